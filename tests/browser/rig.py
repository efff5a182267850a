"""klagg itself over an offline exchange on accelerated time, at an address that outlives it: it can be stopped and started again."""

import asyncio
import contextlib
import sqlite3
from pathlib import Path
from typing import Any

from klagg.clock import ScaledClock
from klagg.config.settings import Settings
from klagg.interval import DAY_MS
from klagg.model import Market
from klagg.service.run import Service
from klagg.service.serving import Serving
from klagg.sim import ExchangeSettings, OfflineExchange
from klagg.store import open_store
from klagg.store.thread import StoreThread

SPEED = 12.0
SYMBOLS = 8
HISTORY = "14h"
KEPT = ("1m", "5m", "30m", "1h", "4h", "1d", "1w")


class Rig:
    """An exchange, a database, and a service that serves the page."""

    def __init__(self, folder: Path) -> None:
        self.db = folder / "klagg.db"
        self.exchange = OfflineExchange(
            ExchangeSettings(market=Market.USDM, symbols=SYMBOLS, seed=11, speed=SPEED, history_ms=2 * DAY_MS)
        )
        self.port = 0
        self._stopped = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.service: Service | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start the service; returns once it is live."""
        settings = Settings(
            market=("usdm",),
            db=str(self.db),
            rest_url=(self.exchange.rest_url,),
            ws_url=(self.exchange.ws_url,),
            intervals=KEPT,
            history=HISTORY,
            clock_speed=SPEED,
            margin_ms=2_000,
            serve=f"127.0.0.1:{self.port}",
        )
        serving = Serving(settings)
        self.port = serving.address[1]
        self._stopped = asyncio.Event()
        self._task = asyncio.create_task(self._run(settings, serving))
        while self.service is None or not self.service.live.is_set():
            if self._task.done():
                await self._task
            await asyncio.sleep(0.05)

    async def _run(self, settings: Settings, serving: Serving) -> None:
        store = StoreThread(open_store(settings.db, mode="create"))
        try:
            self.service = Service(settings, ScaledClock(SPEED), store, serving=serving)
            await self.service.run(self._stopped)
        finally:
            self.service = None
            await store.close()
            serving.close()

    async def stop(self) -> None:
        """Stop it in order."""
        self._stopped.set()
        if self._task is not None:
            await self._task

    async def minutes_later(self, minutes: int) -> None:
        assert self.service is not None
        boundary = self.service.markets[0].boundary
        await boundary.beyond(boundary.boundary_ms + (minutes - 1) * 60_000)

    def rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        """What the database says, asked by itself."""
        with contextlib.closing(sqlite3.connect(f"file:{self.db}?mode=ro", uri=True)) as shell:
            shell.row_factory = sqlite3.Row
            return shell.execute(query, values).fetchall()
