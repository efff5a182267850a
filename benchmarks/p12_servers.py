"""The servers of P12, each a process of its own: klagg's address over a real database, and its peer.

`python -m benchmarks.p12_servers ours|peer FOLDER`, and then commands on stdin (`p12_wire`).
"""

import asyncio
import json
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import web

from benchmarks.p12_wire import run_loop, talk
from benchmarks.rows import START_MS, instruments, some_candles
from klagg.clock import SystemClock
from klagg.interval import BY_NAME, MINUTE, MINUTE_MS, Interval
from klagg.model import CANDLE, Candles, Market
from klagg.serve.access import Access
from klagg.serve.address import Address
from klagg.serve.listening import listen
from klagg.serve.source import Committed, Listing
from klagg.service.followers import Followers
from klagg.service.reading import Reader

SYMBOLS = 500
RUNNING = (MINUTE, BY_NAME["5m"], BY_NAME["1h"], BY_NAME["1d"])
"""What is kept; all of them open at the first boundary, a Monday's midnight."""
MONDAY_MS = START_MS - START_MS % 604_800_000 + 345_600_000
PROBE_S = 0.005
EVERY_S = 0.25
DATABASE = "klagg.db"
PLAIN = "plain.db"


def closed_minutes(open_ms: int) -> Candles:
    return some_candles(SYMBOLS, [MINUTE], open_ms, closed=True)


async def lags(seconds: float) -> list[float]:
    """How late the loop is to what should run now, as milliseconds, over a time: what a tick would wait."""
    found = []
    ends_s = time.perf_counter() + seconds
    while (now_s := time.perf_counter()) < ends_s:
        await asyncio.sleep(PROBE_S)
        found.append(max(0.0, (time.perf_counter() - now_s - PROBE_S) * 1e3))
    return found


class MadeLive:
    """A market of 500 symbols whose commits and trades are made by command."""

    markets = (Market.USDM,)

    def __init__(self) -> None:
        self.followers = Followers()
        self.trading = False
        self._durable_ms = MONDAY_MS
        made = instruments(SYMBOLS)
        self._listings = {one.symbol: Listing(number, one) for number, one in enumerate(made, 1)}
        self._slots = {symbol: slot for slot, symbol in enumerate(self._listings)}
        self._ids = np.arange(1, SYMBOLS + 1)
        self._rows = some_candles(SYMBOLS, RUNNING, MONDAY_MS, closed=False).reshape(SYMBOLS, len(RUNNING))

    def is_live(self, market: Market) -> bool:
        return market is Market.USDM

    def now_ms(self, market: Market) -> int:  # noqa: ARG002
        return self._durable_ms + 20

    def listings(self, market: Market) -> Mapping[str, Listing]:  # noqa: ARG002
        return self._listings

    def kept(self, market: Market) -> Sequence[Interval]:  # noqa: ARG002
        return RUNNING

    def durable_ms(self, market: Market) -> int:  # noqa: ARG002
        return self._durable_ms

    def running(self, market: Market, symbols: Sequence[str]) -> Candles:  # noqa: ARG002
        if not self.trading:
            return np.zeros((len(symbols), len(RUNNING)), CANDLE)
        self._rows["trades"] += 1  # every symbol has traded since the last look
        return self._rows[[self._slots[symbol] for symbol in symbols]]

    def missing(self) -> Sequence[str]:
        return ()

    def commits(self) -> AsyncIterator[Committed]:
        return self.followers.follow()

    def close(self) -> int:
        """Hand on a minute that a commit has closed; when that was, in nanoseconds."""
        candles = closed_minutes(self._durable_ms)
        self._durable_ms += MINUTE_MS
        at_ns = time.monotonic_ns()
        self.followers.tell(Committed(Market.USDM, self._durable_ms, self._ids, candles))
        return at_ns


class Ours:
    """klagg's address."""

    def __init__(self, folder: Path) -> None:
        self.live = MadeLive()
        bound = listen("127.0.0.1", 0)
        self.port = bound.getsockname()[1]
        self.address = Address(bound, Access(), self.live, Reader(str(folder / DATABASE)), SystemClock())

    async def begin(self) -> None:
        self._task = asyncio.create_task(self.address.run())

    async def close(self) -> int:
        return self.live.close()

    def trade(self, *, on: bool) -> None:
        self.live.trading = on


class Peer:
    """The same by aiohttp, plainly: rows by sqlite3, bodies by json, each event sent to each client that asked for it."""

    def __init__(self, folder: Path) -> None:
        self.port = 0
        self._rows = sqlite3.connect(folder / PLAIN)
        self._sockets: dict[web.WebSocketResponse, set[str]] = {}
        self._durable_ms = MONDAY_MS
        self._symbols = [one.symbol for one in instruments(SYMBOLS)]
        self._running = some_candles(SYMBOLS, RUNNING, MONDAY_MS, closed=False).reshape(SYMBOLS, len(RUNNING))
        self._trading: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        app = web.Application()
        app.router.add_get("/fapi/v1/klines", self._klines)
        app.router.add_get("/market/ws", self._socket)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = runner.addresses[0][1]

    async def _klines(self, request: web.Request) -> web.Response:
        query = request.query
        rows = self._rows.execute(
            "SELECT * FROM (SELECT open_time, open, high, low, close, volume, close_time, quote_volume, trades, taker_volume, "
            "taker_quote, '0' FROM kline WHERE symbol = ? ORDER BY open_time DESC LIMIT ?) ORDER BY open_time",
            (query["symbol"], int(query["limit"])),
        ).fetchall()
        return web.Response(text=json.dumps(rows, separators=(",", ":")), content_type="application/json")

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        names = self._sockets[socket] = set()
        try:
            async for message in socket:
                asked = json.loads(message.data)
                names.update(asked["params"])
                await socket.send_str(json.dumps({"result": None, "id": asked["id"]}))
        finally:
            del self._sockets[socket]
        return socket

    async def _broadcast(self, events: list[tuple[str, str]]) -> None:
        async def send(socket: web.WebSocketResponse, names: set[str]) -> None:
            for name, text in events:
                if name in names:
                    await socket.send_str(text)

        await asyncio.gather(*(send(socket, names) for socket, names in self._sockets.items()))

    async def close(self) -> int:
        candles = closed_minutes(self._durable_ms)
        self._durable_ms += MINUTE_MS
        at_ns = time.monotonic_ns()
        rows = zip(self._symbols, candles, strict=True)
        await self._broadcast([event(symbol, MINUTE, row, self._durable_ms, closed=True) for symbol, row in rows])
        return at_ns

    def trade(self, *, on: bool) -> None:
        if on:
            self._trading = asyncio.create_task(self._trade())
        elif self._trading is not None:
            self._trading.cancel()

    async def _trade(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            self._running["trades"] += 1
            events = []
            wanted = set().union(*self._sockets.values())
            for symbol, rows in zip(self._symbols, self._running, strict=True):
                for interval, row in zip(RUNNING, rows, strict=True):
                    if f"{symbol.lower()}@kline_{interval.name}" in wanted:
                        events.append(event(symbol, interval, row, self._durable_ms, closed=False))
            await self._broadcast(events)


def event(symbol: str, interval: Interval, row: np.void, event_ms: int, *, closed: bool) -> tuple[str, str]:
    """Name and text of a candle's event, as the exchange writes it."""
    opened = int(row["open_ms"])
    price = {name: str(Decimal(int(row[name])).scaleb(-2)) for name in ("open", "high", "low", "close")}
    volume = {name: str(Decimal(int(row[f"{name}_lo"])).scaleb(-3)) for name in ("volume", "taker_volume")}
    quote = {name: str(Decimal(int(row[f"{name}_lo"])).scaleb(-5)) for name in ("quote", "taker_quote")}
    k = {"t": opened, "T": opened + interval.step_ms - 1, "s": symbol, "i": interval.name}
    k |= {"f": int(row["first_id"]), "L": int(row["last_id"])}
    k |= {"o": price["open"], "c": price["close"], "h": price["high"], "l": price["low"], "v": volume["volume"]}
    k |= {"n": int(row["trades"]), "x": closed, "q": quote["quote"]}
    k |= {"V": volume["taker_volume"], "Q": quote["taker_quote"], "B": "0"}
    text = json.dumps({"e": "kline", "E": event_ms, "s": symbol, "k": k}, separators=(",", ":"))
    return f"{symbol.lower()}@kline_{interval.name}", text


async def main(kind: str, folder: Path) -> None:
    server = Ours(folder) if kind == "ours" else Peer(folder)
    await server.begin()

    async def do(command: dict[str, Any]) -> dict[str, Any]:
        match command["do"]:
            case "close":
                return {"at_ns": await server.close()}
            case "lags":
                server.trade(on=command["trading"])
                before_s = time.process_time()
                found = await lags(command["seconds"])
                server.trade(on=False)
                return {"lags": found, "cpu_s": time.process_time() - before_s}
            case "cpu":
                return {"cpu_s": time.process_time()}
            case _:
                return {"port": server.port}

    await talk(do)


if __name__ == "__main__":
    run_loop(main(sys.argv[1], Path(sys.argv[2])))
