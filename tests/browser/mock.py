"""A stand-in for klagg's address, for what a real one cannot be made to show on command: 3,000 symbols, hostile names, silence.

It speaks the native API as far as the page does, over a seeded market that it makes itself. What is true of klagg is tested
against klagg; this tells only how the page behaves.
"""

import asyncio
import json
import math
import random
import time
from typing import Any, Final

from aiohttp import web

from klagg.interval import BY_NAME
from klagg.serve.page import read_page

MINUTE_MS: Final = 60_000
BEAT_S: Final = 5.0
OPEN_EVERY_S: Final = 0.25
WAVES: Final = ((0.04, 1_711), (0.012, 311), (0.005, 89), (0.002, 23), (0.001, 7.3))
PRICES: Final = {
    "BTCUSDT": 97_412.6,
    "ETHUSDT": 3_391.2,
    "SOLUSDT": 244.7,
    "XRPUSDT": 1.41,
    "DOGEUSDT": 0.392,
    "BNBUSDT": 651.0,
}


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Market:
    """Symbols whose candles are a function of their name and the time."""

    def __init__(self, symbols: list[str]) -> None:
        self.symbols = symbols
        self.revised: dict[tuple[str, str, int], dict[str, Any]] = {}
        self.base = {name: PRICES.get(name) or 10 ** random.Random(name).uniform(-3, 3) for name in symbols}
        self.phase = {name: random.Random(name).random() for name in symbols}

    def scale(self, symbol: str) -> int:
        """Five significant digits or so."""
        return max(1, 5 - math.ceil(math.log10(self.base[symbol])))

    def price(self, symbol: str, t_ms: int) -> float:
        t, phase = t_ms / MINUTE_MS, self.phase[symbol]
        wave = sum(size * math.sin(6.283 * (t / period + phase * period)) for size, period in WAVES)
        noise = math.sin(t_ms // 7_000 * 12.9898 + phase * 78.233) * 43758.5453
        return self.base[symbol] * (1 + wave + 0.0008 * (noise - math.floor(noise) - 0.5))

    def candle(self, symbol: str, interval: str, open_ms: int, at_ms: int) -> dict[str, Any]:
        known = self.revised.get((symbol, interval, open_ms))
        if known is not None:
            return known
        end_ms = BY_NAME[interval].next_open(open_ms)
        closed = end_ms <= at_ms
        last_ms = min(end_ms, at_ms)
        points = [self.price(symbol, open_ms + (last_ms - open_ms) * n // 4) for n in range(5)]
        dice = random.Random(f"{symbol}{interval}{open_ms}")
        trades = int(1 + 400 * dice.random() * (last_ms - open_ms) / (end_ms - open_ms)) if dice.random() > 0.02 else 0
        if not trades:
            points = points[:1] * 5
        volume = trades * dice.uniform(0.2, 3.0)
        first = open_ms // 1_000 * 7
        draw = dice.random()
        settled = at_ms - end_ms > 12_000
        origin = "filled" if draw < 0.012 else "exchange" if draw < 0.06 else "trades" if trades else "flat"
        verified = closed and settled and origin != "filled" and not 0.06 <= draw < 0.075
        digits = self.scale(symbol)
        price = [f"{point:.{digits}f}" for point in points]
        numbers = [float(one) for one in price]
        return {
            "market": "usdm",
            "symbol": symbol,
            "interval": interval,
            "open_time_ms": open_ms,
            "close_time_ms": end_ms - 1,
            "open": price[0],
            "high": price[numbers.index(max(numbers))],
            "low": price[numbers.index(min(numbers))],
            "close": price[-1],
            "volume": f"{volume:.3f}",
            "quote_volume": f"{volume * numbers[-1]:.5f}",
            "trades": trades,
            "taker_buy_volume": f"{volume * dice.uniform(0.3, 0.7):.3f}",
            "taker_buy_quote_volume": f"{volume * numbers[-1] * 0.5:.5f}",
            "first_trade_id": first if trades else None,
            "last_trade_id": first + trades - 1 if trades else None,
            "closed": closed,
            "origin": origin if closed else None,
            "verified": verified,
            "revision": 1 if closed and 0.06 > draw > 0.04 else 0,
            "known_ms": end_ms + 31 if closed else None,
        }


class Mock:
    """The address. While `speaking` is not set the feed says nothing more, and nothing else answers."""

    def __init__(self, symbols: list[str], *, markets: tuple[str, ...] = ("usdm",)) -> None:
        self.market = Market(symbols)
        self.markets = markets
        self.speaking = asyncio.Event()
        self.speaking.set()
        self.seq = 1_000
        self.sockets: set[web.WebSocketResponse] = set()
        self.asked: list[dict[str, str]] = []
        """The parameters of every feed that was opened."""
        self.notes: list[dict[str, Any]] = []
        self.rows: list[dict[str, Any]] = []
        self.url = ""
        self.port = 0
        self._page = read_page()
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/", self.page)
        app.router.add_get("/assets/{name}", self.page)
        app.router.add_get("/v1/feed", self.feed)
        for name in ("status", "symbols", "overview", "minutes", "ops", "events", "candles", "candle"):
            app.router.add_get(f"/v1/{name}", self.answering(getattr(self, name)))
        self._runner = web.AppRunner(app, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        server = site._server
        assert isinstance(server, asyncio.Server)
        self.port = server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    async def stop(self) -> None:
        for socket in tuple(self.sockets):
            await socket.close()
        assert self._runner is not None
        await self._runner.cleanup()

    async def page(self, request: web.Request) -> web.Response:
        asset = self._page.get(request.path.strip("/") or "index.html")
        if asset is None:
            raise web.HTTPNotFound
        return web.Response(body=asset.body, headers=asset.headers)

    def answering(self, answer: Any) -> Any:
        async def handler(request: web.Request) -> web.Response:
            await self.speaking.wait()
            return web.json_response(answer(dict(request.query)))

        return handler

    # Answers

    def status(self, _: dict[str, str]) -> dict[str, Any]:
        now = now_ms()
        boundary = now - now % MINUTE_MS
        one = {
            "phase": "live",
            "symbols": len(self.market.symbols),
            "boundary_ms": boundary,
            "durable_ms": boundary,
            "verified_ms": boundary - MINUTE_MS,
            "closed_lag_ms": 14,
            "durable_lag_ms": 31,
            "verified_share": 0.99981,
            "pending": 3,
            "urgent": 0,
            "next_tick_ms": boundary + MINUTE_MS,
            "offset_ms": -3.2,
            "uncertainty_ms": 1.1,
            "tick_lag_p99_ms": 12.4,
            "trades_per_s": 1834.0,
            "connections": [],
            "weight_used": 182,
            "weight_limit": 2400,
            "write_p99_ms": 18.0,
            "repair_eta_s": 0,
            "history_progress": None,
            "gaps_open": 0,
            "gaps_final": 0,
        }
        markets = [{"market": name, **one} for name in self.markets]
        notes = self.notes or [
            {
                "at_ms": now - now % MINUTE_MS - 67_000,
                "event": "lane.renewed",
                "text": "connection 2 renewed, 0 lost",
                "market": "usdm",
            },
            {
                "at_ms": now - now % MINUTE_MS - 367_000,
                "event": "repair.done",
                "text": "XYZUSDT 2 minutes repaired from the exchange",
                "market": "usdm",
            },
            {
                "at_ms": now - now % MINUTE_MS - 3_600_000,
                "event": "market.live",
                "text": "512 symbols live, 2 days of history",
                "market": "usdm",
            },
        ]
        return {"version": "0.1.0", "now_ms": now, "ready": True, "missing": [], "markets": markets, "notes": notes}

    def symbols(self, _: dict[str, str]) -> dict[str, Any]:
        rows = [
            {"symbol": name, "status": "trading", "price_scale": self.market.scale(name), "qty_scale": 3}
            for name in self.market.symbols
        ]
        return {"market": "usdm", "at_ms": now_ms(), "symbols": rows}

    def overview(self, _: dict[str, str]) -> dict[str, Any]:
        """The day is told once, and the newest prices of some of the symbols each time: thousands of them cost little."""
        now = now_ms()
        minute = now - now % MINUTE_MS
        if not self.rows:
            self.rows = [self._row(number, name, minute) for number, name in enumerate(self.market.symbols)]
        for row in self.rows[:50]:
            row["last"] = f"{self.market.price(row['symbol'], now):.{self.market.scale(row['symbol'])}f}"
        return {"market": "usdm", "now_ms": now, "symbols": self.rows}

    def _row(self, number: int, name: str, minute: int) -> dict[str, Any]:
        digits = self.market.scale(name)
        dice = random.Random(name)
        spark = [round(self.market.price(name, minute - n * 3 * MINUTE_MS), digits) for n in range(20, -1, -1)]
        return {
            "symbol": name,
            "status": "halt" if number % 97 == 96 else "trading",
            "last": f"{spark[-1]:.{digits}f}",
            "change_24h_pct": round(dice.gauss(0, 4), 2),
            "quote_volume_24h": f"{10 ** dice.uniform(4.5, 10):.2f}",
            "spark": spark,
            "pending": 2 if number % 41 == 1 else 0,
            "origin": "trades",
            "last_minute_ms": minute - MINUTE_MS,
        }

    def minutes(self, asked: dict[str, str]) -> dict[str, Any]:
        boundary = now_ms() // MINUTE_MS * MINUTE_MS
        total = len(self.market.symbols)
        rows = []
        for n in range(int(asked.get("minutes", "60")), 0, -1):
            pending = {1: min(3, total), 7: 1}.get(n, 0)
            gap = 1 if n == 22 else 0
            rows.append(
                {
                    "open_time_ms": boundary - n * MINUTE_MS,
                    "symbols": total,
                    "verified": total - pending - gap,
                    "pending": pending,
                    "gap": gap,
                    "pending_symbols": self.market.symbols[:pending],
                    "gap_symbols": self.market.symbols[-gap:] if gap else [],
                }
            )
        return {"minutes": rows}

    def ops(self, _: dict[str, str]) -> dict[str, Any]:
        dice = random.Random(now_ms() // 5_000)

        def line(middle: float, spread: float) -> list[float]:
            return [round(max(0.0, dice.gauss(middle, spread)), 1) for _ in range(120)]

        series: dict[str, Any] = {
            "offset_ms": [-value for value in line(3, 0.5)],
            "tick_lag_ms": line(12, 2),
            "trades_per_s": line(1800, 240),
            "feed_age_ms": {"usdm-0-0": line(60, 20), "usdm-0-1": line(75, 30), "usdm-1-0": line(50, 12)},
            "weight_used": line(180, 30),
            "write_ms": line(15, 4),
            "pending": line(3, 2),
        }
        return {"step_ms": 5_000, "series": series}

    def events(self, asked: dict[str, str]) -> dict[str, Any]:
        return {"oldest_seq": 1, "newest_seq": self.seq, "next_seq": self.seq, "cut": None, "events": []}

    def candles(self, asked: dict[str, str]) -> dict[str, Any]:
        now = now_ms()
        symbol, interval = asked["symbols"], asked["intervals"]
        step = BY_NAME[interval]
        end = int(asked.get("end", now))
        open_ms = step.open_at(end - 1)
        rows = []
        floor = now - 400 * 86_400_000
        while len(rows) < int(asked.get("limit", "500")) and open_ms >= floor:
            one = self.market.candle(symbol, interval, open_ms, now)
            if one["closed"] or asked.get("open") == "include":
                rows.append(one)
            open_ms = step.open_at(open_ms - 1)
        meta = {"market": "usdm", "now_ms": now, "missing": [], "truncated": False, "next": None}
        return {"meta": meta, "candles": rows[::-1]}

    def candle(self, asked: dict[str, str]) -> dict[str, Any]:
        one = self.market.candle(asked["symbol"], asked["interval"], int(asked["open_time"]), now_ms())
        before = {**one, "revision": 0, "origin": "partial", "verified": False, "close": one["low"], "trades": 1}
        later = {**one, "known_ms": one["known_ms"] + 14_000}
        return {**one, "history": [before, later] if one["revision"] else [one]}

    # The feed

    async def feed(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.asked.append(dict(request.query))
        self.sockets.add(socket)
        interest = {"symbols": request.query["symbols"].split(","), "intervals": request.query["intervals"].split(",")}
        await socket.send_json({"kind": "hello", "seq": self.seq, "oldest_seq": 1, "version": "0.1.0"})
        pushing = [asyncio.create_task(self._beat(socket)), asyncio.create_task(self._open(socket, interest))]
        try:
            async for message in socket:
                interest.update(json.loads(message.data)["subscribe"])
        finally:
            for task in pushing:
                task.cancel()
            self.sockets.discard(socket)
        return socket

    async def _beat(self, socket: web.WebSocketResponse) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            if self.speaking.is_set():
                await socket.send_json({"kind": "beat", "now_ms": now_ms()})

    async def _open(self, socket: web.WebSocketResponse, interest: dict[str, Any]) -> None:
        turn = 0
        while True:
            await asyncio.sleep(OPEN_EVERY_S)
            turn += 1
            now = now_ms()
            for number, symbol in enumerate(interest["symbols"]):
                if not self.speaking.is_set() or symbol not in self.market.base or (number and (turn + number) % 6):
                    continue
                for interval in interest["intervals"]:
                    one = self.market.candle(symbol, interval, BY_NAME[interval].open_at(now), now)
                    event = {
                        "kind": "candle_open",
                        "market": "usdm",
                        "symbol": symbol,
                        "interval": interval,
                        "candle": one,
                    }
                    await socket.send_json(event)

    async def tell(self, **event: Any) -> None:
        """Tell an event of the sequence to everyone who listens."""
        self.seq += 1
        for socket in tuple(self.sockets):
            await socket.send_json({"seq": self.seq, "at_ms": now_ms(), "market": "usdm", **event})


BASES = ("BTC", "ETH", "SOL", "XRP", "DOGE", "BNB", "ADA", "1000PEPE", "LINK", "AVAX", "SUI", "LTC")


def names(count: int) -> list[str]:
    """So many symbols that look like an exchange's."""
    dice = random.Random(4)
    found = [f"{base}USDT" for base in BASES[:count]]
    while len(found) < count:
        name = "".join(dice.choices("ABCDEFGIKLMNOPRSTUVXYZ", k=dice.randint(3, 6))) + dice.choice(("USDT", "USDC"))
        if name not in found:
            found.append(name)
    return found
