"""A database with its one owner, and an address that serves it in the test's own loop, as `klagg serve` would."""

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from klagg.clock import SystemClock
from klagg.interval import BY_NAME, MINUTE, MINUTE_MS
from klagg.model import VIRTUAL_SHARDS, Candles, Flag, Instrument, Market, Origin, Status
from klagg.serve.access import Access
from klagg.serve.folding import fold
from klagg.serve.listening import listen
from klagg.serve.source import Frame
from klagg.service.polling import PolledLive
from klagg.service.reading import Reader
from klagg.service.readside import ReadSide
from klagg.store import Commit, SqliteStore, open_store
from serve.fakes import candle

START_MS = 1_753_833_600_000
"""A midnight."""
FIVE = BY_NAME["5m"]
SYMBOLS = ("BTCUSDT", "ETHUSDT", "币安人生USDT")


class Owner:
    """The writer of a database: closes minutes of its symbols, verifies and revises them."""

    def __init__(
        self,
        path: Path,
        symbols: tuple[str, ...] = SYMBOLS,
        market: Market = Market.USDM,
        *,
        listed_ms: int = START_MS,
    ) -> None:
        self.path, self.market = path, market
        self.store: SqliteStore = open_store(str(path), mode="create")
        self.instruments = [
            Instrument(market, symbol, Status.TRADING, 2, 3, symbol[:-4], "USDT", listed_ms, "TRADING")
            for symbol in symbols
        ]
        self.ids = self.store.put_instruments(self.instruments, START_MS)
        self.store.set_intervals(market, [MINUTE, FIVE])
        self.claim = self.store.claim(market, owner="test", now_ms=START_MS)
        self.minutes = 0
        self.now_ms = START_MS

    def price(self, symbol: str, minute: int) -> int:
        return 10_000 + 100 * list(self.ids).index(symbol) + minute % 37

    def close(self, minutes: int = 1, *, skip: tuple[str, ...] = (), verified: bool = False) -> None:
        """Close so many minutes of all symbols but these."""
        for _ in range(minutes):
            open_ms = START_MS + self.minutes * MINUTE_MS
            self.now_ms = open_ms + MINUTE_MS
            rows, ids = [], []
            for symbol, number in self.ids.items():
                if symbol in skip:
                    continue
                flags = Flag.CLOSED.value | (Flag.VERIFIED.value if verified else 0)
                rows.append(candle(open_ms, self.price(symbol, self.minutes), 1 + self.minutes % 3, flags=flags))
                ids.append(number)
                if (self.minutes + 1) % 5 == 0:
                    five = self.store.read(number, MINUTE, open_ms - 4 * MINUTE_MS, open_ms)
                    if len(five) == 4:
                        parent = fold(np.concatenate([five, rows[-1]]), Frame(FIVE)).candles
                        rows.append(parent)
                        ids.append(number)
                rows.append(candle(open_ms + MINUTE_MS, self.price(symbol, self.minutes), 0))
                ids.append(number)
            self.minutes += 1
            self.commit(np.array(ids, np.int64), np.concatenate(rows))

    def close_at_once(self, minutes: int) -> None:
        """Close so many minutes of all symbols in one commit, all alike."""
        rows = np.repeat(candle(START_MS, 10_000, flags=Flag.CLOSED.value), minutes * len(self.ids))
        first = self.minutes
        rows["open_ms"] += np.tile(np.arange(first, first + minutes), len(self.ids)) * MINUTE_MS
        self.minutes += minutes
        self.now_ms = START_MS + self.minutes * MINUTE_MS
        self.commit(np.repeat(list(self.ids.values()), minutes), rows)

    def commit(self, ids: Any, candles: Candles) -> None:
        self.store.commit(
            Commit(
                self.claim, range(VIRTUAL_SHARDS), START_MS + self.minutes * MINUTE_MS, ids, candles, now_ms=self.now_ms
            )
        )

    def settle(self, symbol: str, minute: int, price: int | None = None) -> None:
        """Have the exchange's own candle of a minute stored: verified, with other numbers where a price is given."""
        self.now_ms += 1_000
        stored = self.store.read(
            self.ids[symbol], MINUTE, START_MS + minute * MINUTE_MS, START_MS + minute * MINUTE_MS + 1
        )
        row = stored.copy()
        if price is not None:
            row["close"] = row["high"] = price
        row["flags"] = Flag.CLOSED.value | Flag.VERIFIED.value
        row["origin"] = Origin.EXCHANGE.value
        with self.store.knowing(self.now_ms):
            self.store.write(np.array([self.ids[symbol]], np.int64), row)

    def rows(self, statement: str, *parameters: object) -> list[dict[str, Any]]:
        """What sqlite3 alone reads."""
        with contextlib.closing(sqlite3.connect(self.path)) as shell:
            shell.row_factory = sqlite3.Row
            return [dict(row) for row in shell.execute(statement, parameters)]


class Rig:
    """An address and a client."""

    def __init__(self, base: str, live: PolledLive) -> None:
        self.base = base
        self.live = live
        self.http = aiohttp.ClientSession()

    async def get(self, path: str, status: int = 200, **query: object) -> Any:
        params = {name.rstrip("_"): str(value) for name, value in query.items()}
        async with self.http.get(f"http://{self.base}{path}", params=params) as response:
            text = await response.text()
            assert response.status == status, text
            return json.loads(text)

    async def body(self, path: str, headers: dict[str, str] | None = None, **query: object) -> bytes:
        params = {name.rstrip("_"): str(value) for name, value in query.items()}
        async with self.http.get(f"http://{self.base}{path}", params=params, headers=headers) as response:
            assert response.status == 200
            return await response.read()

    async def seen(self, owner: Owner) -> None:
        """Wait until what the owner has closed is seen to be durable."""
        async with asyncio.timeout(10):
            while self.live.durable_ms(owner.market) < START_MS + owner.minutes * MINUTE_MS:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def served(path: Path, port: int = 0, access: Access | None = None) -> AsyncIterator[Rig]:
    """Serve a database until the block ends."""
    reader = Reader(str(path))
    live = PolledLive(reader)
    await live.load()
    bound = listen("127.0.0.1", port)
    side = ReadSide(bound, access or Access(), live, reader, SystemClock())
    tasks = [asyncio.create_task(live.follow()), asyncio.create_task(side.run())]
    rig = Rig(f"127.0.0.1:{bound.getsockname()[1]}", live)
    try:
        yield rig
    finally:
        await rig.http.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        reader.close()
