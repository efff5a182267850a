"""A plain exchange with a long history: what it says of a minute follows from the symbol and the minute alone."""

import asyncio
import json
import time
from collections import Counter
from decimal import Decimal

from aiohttp import web

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
STEPS = {"1m": MINUTE, "5m": 5 * MINUTE, "1h": HOUR, "1d": DAY}
MONDAY = 1_725_235_200_000  # 2024-09-02


class History:
    """Klines up to `now_ms`, from where its clock runs on; counts what it was asked for."""

    def __init__(self, symbols: list[str], listed_ms: int, now_ms: int) -> None:
        self.symbols, self.listed_ms, self.now_ms = symbols, listed_ms, now_ms
        self.unlisted: set[str] = set()
        """Known by their klines only."""
        self.lacking: set[int] = set()
        self.asked: Counter[tuple[str, str, int]] = Counter()
        self.delay_s = 0.01
        self.refusals = 0
        self.asked_event = asyncio.Event()
        self._started_s = time.monotonic()

    def minute(self, symbol: str, open_ms: int) -> tuple[Decimal, ...] | None:
        """Open, high, low, close, volume, quote volume, trades, taker volumes; None where there is none."""
        if not self.listed_ms <= open_ms <= self.now_ms - MINUTE or open_ms in self.lacking:
            return None
        seed = (open_ms // MINUTE * 7919 + sum(map(ord, symbol)) * 104_729) % 1_000
        price = Decimal(10_000 + seed) / 100
        qty = Decimal(1 + seed % 7) / 10
        high, low = price + Decimal("0.05"), price - Decimal("0.05")
        return price, high, low, price + Decimal("0.01"), qty, qty * price, Decimal(2), qty / 2, qty * price / 2

    def kline(self, symbol: str, interval: str, open_ms: int) -> tuple[Decimal, ...] | None:
        step = STEPS[interval]
        found = [m for t in range(open_ms, open_ms + step, MINUTE) if (m := self.minute(symbol, t)) is not None]
        if not found:
            return None
        sums = [sum((m[n] for m in found), Decimal(0)) for n in range(4, 9)]
        return (found[0][0], max(m[1] for m in found), min(m[2] for m in found), found[-1][3], *sums)

    def row(self, symbol: str, interval: str, open_ms: int) -> list[object] | None:
        kline = self.kline(symbol, interval, open_ms)
        if kline is None:
            return None
        o, h, low, c, v, q, n, tv, tq = kline
        texts = [f"{x:f}" for x in (o, h, low, c, v)]
        return [open_ms, *texts, open_ms + STEPS[interval] - 1, f"{q:f}", int(n), f"{tv:f}", f"{tq:f}", "0"]

    # As a server

    async def start(self) -> str:
        app = web.Application()
        app.router.add_get("/fapi/v1/{what}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        what = request.match_info["what"]
        if what == "time":
            passed_ms = int((time.monotonic() - self._started_s) * 1_000)
            return web.json_response({"serverTime": self.now_ms + passed_ms})
        if what == "exchangeInfo":
            return web.json_response(self._info())
        query = request.query
        symbol, interval = query["symbol"], query["interval"]
        start_ms, end_ms, limit = int(query["startTime"]), int(query["endTime"]), int(query["limit"])
        self.asked[symbol, interval, start_ms] += 1
        self.asked_event.set()
        await asyncio.sleep(self.delay_s)
        if self.refusals:
            self.refusals -= 1
            return web.json_response({"code": -1003, "msg": "Too many"}, status=429, headers={"Retry-After": "1"})
        if symbol not in {*self.symbols, *self.unlisted}:
            return web.json_response({"code": -1121, "msg": "Invalid symbol."}, status=400)
        step = STEPS[interval]
        rows = []
        first_ms = max(start_ms, self.listed_ms - self.listed_ms % step)
        for open_ms in range(first_ms + -first_ms % step, min(end_ms + 1, self.now_ms), step):
            row = self.row(symbol, interval, open_ms)
            rows += [row] if row else []
            if len(rows) == limit:
                break
        return web.Response(text=json.dumps(rows), content_type="application/json")

    def _info(self) -> dict[str, object]:
        filters = [
            {"filterType": "PRICE_FILTER", "tickSize": "0.01"},
            {"filterType": "LOT_SIZE", "stepSize": "0.001"},
        ]
        rows = [
            {
                "symbol": name,
                "status": "TRADING",
                "contractType": "PERPETUAL",
                "marginAsset": "USDT",
                "quoteAsset": "USDT",
                "onboardDate": self.listed_ms,
                "deliveryDate": 4_133_404_800_000,
                "filters": filters,
            }
            for name in self.symbols
        ]
        limit = {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 2_400}
        return {"serverTime": self.now_ms, "rateLimits": [limit], "symbols": rows}
