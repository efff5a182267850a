"""One address that serves: markets, streams, health, the page and whatever routes others add, composed in one place."""

import asyncio
import socket
from collections.abc import Mapping, Sequence

from litestar.handlers import HTTPRouteHandler

from klagg.clock import Clock
from klagg.model import Market
from klagg.serve.access import Access
from klagg.serve.app import build_app, health_routes, market_routes
from klagg.serve.gate import Door, Gate
from klagg.serve.hub import Hub
from klagg.serve.limits import Weights
from klagg.serve.page import page_routes
from klagg.serve.pushes import Pusher
from klagg.serve.rest import MarketRest
from klagg.serve.running import RunningCandles
from klagg.serve.server import Server
from klagg.serve.source import Live, Source


class Address:
    """Serves until cancelled. `routes` are put beside the exchange's and health's, `doors` beside its streams."""

    def __init__(
        self,
        bound: socket.socket,
        access: Access,
        live: Live,
        source: Source,
        clock: Clock,
        routes: Sequence[HTTPRouteHandler] = (),
        doors: Mapping[str, Door] | None = None,
    ) -> None:
        served = live.markets
        hub, running = Hub(), RunningCandles(live, source)
        self.gate = Gate(access, hub, served[0] if len(served) == 1 else Market.SPOT, live.now_ms)
        self.gate.doors.update(doors or {})
        self._pushers = [Pusher(market, hub, live, source, running, clock) for market in served]
        every = [*health_routes(live), *page_routes(), *routes]
        for market in Market:
            every += market_routes(market, MarketRest(market, live, source, running), Weights(), live)
        self._server = Server(build_app(every, self.gate), self.gate, bound)

    @property
    def name(self) -> str:
        """HOST:PORT."""
        return self._server.address

    async def run(self) -> None:
        """Serve and push."""
        async with asyncio.TaskGroup() as tasks:
            for pusher in self._pushers:
                tasks.create_task(pusher.run())
            tasks.create_task(self._server.run())
