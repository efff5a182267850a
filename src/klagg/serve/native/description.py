"""The API's description (OpenAPI), made from the routes, and the page that shows it with nothing fetched from elsewhere."""

from importlib.resources import files
from typing import Final

from litestar import MediaType, Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin

from klagg import __version__

ABOUT: Final = """Candles that are complete, true, durable and on time, with where each comes from and whether it is verified.

Times in answers are milliseconds UTC; parameters also take ISO 8601, `-7d`, `today`. Decimals are strings. Ranges are half-open.
A feed of everything that becomes durable is at `/v1/feed`, as a WebSocket or as server-sent events.
Where a token is set it is asked for as `Authorization: Bearer TOKEN`."""
_FILES: Final = {
    "": ("docs.html", "text/html; charset=utf-8"),
    "/docs.js": ("docs.js", "text/javascript; charset=utf-8"),
    "/docs.css": ("docs.css", "text/css; charset=utf-8"),
}


def description() -> OpenAPIConfig:
    """What litestar makes the description with; it is served at `/v1/openapi.json`."""
    return OpenAPIConfig(
        title="klagg",
        version=__version__,
        description=ABOUT,
        path="/v1/openapi.json",
        render_plugins=[JsonRenderPlugin(path="/", media_type=MediaType.JSON)],
        create_examples=False,
    )


def docs_routes() -> list[HTTPRouteHandler]:
    """`/v1/docs`: the page and its files, read once."""

    def route(path: str, name: str, media_type: str) -> HTTPRouteHandler:
        body = files("klagg.serve.native").joinpath("docs", name).read_bytes()

        @get(f"/v1/docs{path}", include_in_schema=False, name=f"docs {name}")
        async def page() -> Response[bytes]:
            return Response(body, media_type=media_type)

        return page

    return [route(path, *served) for path, served in _FILES.items()]
