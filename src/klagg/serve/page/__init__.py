"""The page: built files that the package carries, kept in memory and served as they are.

Their sources are in `page/` of the repository (Vite, TypeScript; `make page` builds them into `built/` beside this module).
Names that contain the content's hash are kept by browsers for ever; everything else is asked for again each time.
"""

import gzip
import hashlib
import re
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Final

from litestar import Request, Response, get
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

BUILT: Final = "built"
TYPES: Final = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
"""Nothing from elsewhere, nothing inline, and no text that becomes a script."""
FOR_EVER: Final = "public, max-age=31536000, immutable"
ASK_AGAIN: Final = "no-cache"
_HASHED: Final = re.compile(r"-[A-Za-z0-9_-]{8}\.\w+")


@dataclass(frozen=True, slots=True)
class Asset:
    """One file: its bytes, the same compressed, and the headers it goes with."""

    body: bytes
    packed: bytes
    headers: dict[str, str]

    @classmethod
    def of(cls, name: str, body: bytes) -> "Asset":
        """A file by its name and content."""
        headers = {
            "content-type": TYPES["." + name.rpartition(".")[2]],
            "cache-control": FOR_EVER if _HASHED.search(name) else ASK_AGAIN,
            "content-security-policy": POLICY,
            "etag": f'"{hashlib.sha256(body).hexdigest()[:32]}"',
            "vary": "accept-encoding",
        }
        return cls(body, gzip.compress(body, 9, mtime=0), headers)


def read_page() -> dict[str, Asset]:
    """The built files by path: `index.html`, `assets/…`."""
    return {path: Asset.of(path, file.read_bytes()) for path, file in _walk(files(__name__) / BUILT, "")}


def _walk(folder: Traversable, before: str) -> list[tuple[str, Traversable]]:
    found: list[tuple[str, Traversable]] = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += _walk(entry, f"{before}{entry.name}/")
        elif "." + entry.name.rpartition(".")[2] in TYPES:
            found.append((before + entry.name, entry))
    return found


def page_routes() -> list[HTTPRouteHandler]:
    """`/` and `/assets/…`."""
    page = read_page()

    @get("/", include_in_schema=False)
    async def index(request: Request[Any, Any, Any]) -> Response[bytes]:
        return _answer(page["index.html"], request)

    @get("/assets/{name:str}", include_in_schema=False)
    async def asset(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[bytes]:
        found = page.get(f"assets/{name}")
        if found is None:
            raise NotFoundException
        return _answer(found, request)

    return [index, asset]


def _answer(asset: Asset, request: Request[Any, Any, Any]) -> Response[bytes]:
    headers = dict(asset.headers)
    if asset.headers["etag"] in request.headers.get("if-none-match", ""):
        return Response(b"", status_code=304, headers=headers)
    body = asset.body
    if "gzip" in request.headers.get("accept-encoding", ""):
        body = asset.packed
        headers["content-encoding"] = "gzip"
    return Response(body, headers=headers, media_type=headers.pop("content-type"))
