"""klagg serving what it makes of an offline exchange, and that exchange itself: two base URLs that must answer alike."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from klagg.clock import ScaledClock
from klagg.config.settings import Settings
from klagg.interval import DAY_MS, MINUTE_MS
from klagg.model import Market
from klagg.service.run import Service
from klagg.service.serving import Serving
from klagg.sim import ExchangeSettings, OfflineExchange
from klagg.store import open_store
from klagg.store.thread import StoreThread

SPEED = 20.0
SYMBOLS = 5
HISTORY = "26h"


@dataclass
class Pair:
    """An offline exchange, and the service that reads it and is read."""

    exchange: OfflineExchange
    service: Service
    serving: Serving
    minis: dict[tuple[Market, str], list[dict[str, Any]]] = field(default_factory=dict)
    """The mini-tickers that were heard, alone and in arrays."""

    @property
    def rest_url(self) -> str:
        return f"http://127.0.0.1:{self.serving.address[1]}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.serving.address[1]}"

    def revised(self) -> list[tuple[str, str, int]]:
        """Market, symbol and open of every minute whose numbers changed after it was first stored."""
        with contextlib.closing(sqlite3.connect(self.service.store.store.path)) as shell:
            return shell.execute(
                "SELECT market, symbol, open_time_ms FROM candles WHERE interval = '1m' AND closed AND revision > 0"
            ).fetchall()

    def closed_ms(self, market: Market) -> int:
        """A boundary long enough ago that all before it is closed, durable and settled."""
        chosen = next(one for one in self.service.markets if one.market is market)
        return chosen.boundary_ms - 2 * MINUTE_MS


async def _all_verified(service: Service) -> None:
    """Wait (bounded) until the history is there and nothing of it waits for repair."""
    for _ in range(400):
        left = 0
        for market in service.markets:
            store = service.store.store
            queue = await service.store.call(
                store.unverified, market.market, before_ms=market.boundary_ms - 3 * MINUTE_MS, urgent=None, limit=5
            )
            left += len(queue) + (not market.history_ready)
        if left == 0:
            return
        await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def open_pair(
    folder: Path, *markets: Market, speed: float = SPEED, symbols: int = SYMBOLS
) -> AsyncIterator[Pair]:
    exchange = OfflineExchange(
        *(
            ExchangeSettings(market=market, symbols=symbols, seed=5, speed=speed, history_ms=2 * DAY_MS)
            for market in markets
        )
    )
    await exchange.start()
    names = [market.value for market in markets]
    settings = Settings(
        market=tuple(names),
        db=str(folder / "klagg.db"),
        rest_url=tuple(f"{name}={exchange.rest_url}" for name in names),
        ws_url=tuple(f"{name}={exchange.ws_url}" for name in names),
        history=HISTORY,
        clock_speed=speed,
        margin_ms=3_000,
        serve="127.0.0.1:0",
    )
    serving = Serving(settings)
    store = StoreThread(open_store(settings.db, mode="create"))
    service = Service(settings, ScaledClock(speed), store, serving=serving)
    stopped = asyncio.Event()
    running = asyncio.create_task(service.run(stopped))
    try:
        live = asyncio.create_task(service.live.wait())
        await asyncio.wait({running, live}, return_when=asyncio.FIRST_COMPLETED)
        live.cancel()
        if running.done():
            await running
        await _all_verified(service)
        yield Pair(exchange, service, serving)
        stopped.set()
        await running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await store.close()
        serving.close()
        await exchange.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def both(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    """Both markets at one address, for all tests of a module: a pair takes some seconds to make."""
    async with open_pair(tmp_path_factory.mktemp("pair"), Market.USDM, Market.SPOT) as pair:
        yield pair
