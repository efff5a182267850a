"""The native API of one address, put together."""

from litestar.handlers import HTTPRouteHandler

from klagg.serve.native.answers import Room
from klagg.serve.native.description import docs_routes
from klagg.serve.native.routes import NativeRoutes
from klagg.serve.native.source import Lookup
from klagg.serve.source import Live, Source


class NativeApi:
    """What an address serves under `/v1`."""

    def __init__(self, live: Live, source: Source, lookup: Lookup) -> None:
        self._routes = NativeRoutes(live, source, lookup, Room())

    def handlers(self) -> list[HTTPRouteHandler]:
        """The routes."""
        return [*self._routes.handlers(), *docs_routes()]
