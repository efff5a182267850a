"""The native API of one address, put together."""

import asyncio
from collections.abc import Mapping
from functools import partial

from litestar.handlers import HTTPRouteHandler

from klagg.clock import Clock
from klagg.serve.feed.feed import Feed
from klagg.serve.feed.routes import FeedRoutes
from klagg.serve.feed.running import RunningPushes
from klagg.serve.feed.source import Log
from klagg.serve.feed.talk import feed_talk
from klagg.serve.gate import Door, Gate
from klagg.serve.native.answers import Room
from klagg.serve.native.description import docs_routes
from klagg.serve.native.desk import Desk, DeskRoutes
from klagg.serve.native.routes import NativeRoutes
from klagg.serve.native.source import Lookup
from klagg.serve.running import RunningCandles
from klagg.serve.source import Live, Source
from klagg.serve.udf import UdfRoutes


class NativeApi:
    """What an address serves under `/v1` and `/udf`."""

    def __init__(self, live: Live, source: Source, lookup: Lookup, log: Log, desk: Desk, clock: Clock) -> None:
        room, running = Room(), RunningCandles(live, source)
        self.feed = Feed(log, live, clock)
        self._routes = NativeRoutes(live, lookup, running, room)
        self._udf = UdfRoutes(live, self._routes.reader, room)
        self._desk = DeskRoutes(live, lookup, desk, room)
        self._feed_routes = FeedRoutes(live, log, self.feed, room)
        self._pushes = [RunningPushes(market, self.feed, live, running, clock) for market in live.markets]
        self._live = live

    def handlers(self) -> list[HTTPRouteHandler]:
        """The routes."""
        routes = [*self._routes.handlers(), *self._desk.handlers(), *self._feed_routes.handlers()]
        return [*routes, *self._udf.handlers(), *docs_routes()]

    def doors(self) -> Mapping[str, Door]:
        """The WebSockets."""
        return {"/v1/feed": partial(feed_talk, self.feed, self._live)}

    async def prepare(self, gate: Gate) -> None:
        """Get ready to be asked, at an address."""
        self._feed_routes.gate = gate
        await self.feed.prepare()

    async def run(self) -> None:
        """Keep the feed going until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.feed.run())
            for pushes in self._pushes:
                tasks.create_task(pushes.run())
