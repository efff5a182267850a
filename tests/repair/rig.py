"""An exchange in memory on virtual time, which counts weight as the real one does, and a repairer that uses it."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np

from klagg.clock import ManualClock
from klagg.exchange.budget import DEFAULT_LIMITS, WeightBudget
from klagg.exchange.endpoints import for_market
from klagg.exchange.rest import RestClient
from klagg.exchange.transport import Transport
from klagg.interval import INTERVALS, MINUTE, MINUTE_MS, Interval, parse_intervals
from klagg.model import CANDLE, Flag, Instrument, Market, Origin, Status
from klagg.repair import Repairer
from klagg.store import Commit, open_store

T0 = 1_725_148_800_000  # 2024-09-01 00:00, a Sunday
KLINES = {  # up to so many rows for so much; None where no limit is given
    Market.USDM: ((100, 1), (500, 2), (1_000, 5), (1_500, 10)),
    Market.SPOT: ((1_000, 2),),
}
NAMES = ("open", "high", "low", "close", "volume_lo", "quote_lo", "trades", "taker_volume_lo", "taker_quote_lo")
AGG_TRADES = {Market.USDM: 20, Market.SPOT: 4}


@dataclass(frozen=True)
class Answer:
    """What the exchange says, after how long."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    after_s: float = 0.1


def refusal(code: int, message: str, status: int = 400, **headers: str) -> Answer:
    return Answer(json.dumps({"code": code, "msg": message}).encode(), status, dict(headers))


Fault = Callable[[str, dict[str, object], int], Answer | None]
"""Given the path, the parameters and the time: an answer in place of the true one, or None."""


def numbers(symbol: str, minute: int) -> tuple[int, ...]:
    """The true minute: open, high, low, close at scale 2, volume at 1, quote at 3, trades, taker volume, taker quote."""
    seed = sum(map(ord, symbol))
    before, close = (10_000 + ((m * 7_919 + seed * 104_729) % 1_000) for m in (minute - 1, minute))
    volume = 2 + (minute + seed) % 9
    return (
        before,
        max(before, close) + 3,
        min(before, close) - 2,
        close,
        volume,
        volume * close,
        1 + (minute + seed) % 5,
        volume - 1,
        (volume - 1) * close,
    )


class Exchange:
    """Klines of any symbol, folded from its minutes in plain Python; `lacks` are minutes that it has no candle of."""

    def __init__(self, clock: ManualClock, market: Market = Market.USDM) -> None:
        self.market = market
        self.lacks: dict[str, set[int]] = {}
        self.fault: Fault = lambda _path, _params, _now_ms: None
        self.asked: list[tuple[int, str, dict[str, object], int]] = []
        """Time, path, parameters and weight of each request."""
        self.trades: dict[str, list[dict[str, object]]] = {}
        self._clock = clock
        self._used: Counter[int] = Counter()

    @property
    def now_ms(self) -> int:
        return T0 + self._clock.monotonic_ns() // 1_000_000

    @property
    def weight(self) -> int:
        """All that was charged."""
        return sum(self._used.values())

    def requests(self, symbol: str) -> int:
        return sum(params.get("symbol") == symbol for _, _, params, _ in self.asked)

    def row(self, symbol: str, interval: Interval, open_ms: int) -> tuple[int, ...] | None:
        """The numbers of one candle; None where there is none."""
        lacks = self.lacks.get(symbol, ())
        minutes = [
            numbers(symbol, at // MINUTE_MS)
            for at in range(open_ms, interval.next_open(open_ms), MINUTE_MS)
            if at not in lacks and at < self.now_ms
        ]
        if not minutes:
            return None
        opens, highs, lows, closes, *sums = zip(*minutes, strict=True)
        return (opens[0], max(highs), min(lows), closes[-1], *(sum(values) for values in sums))

    def answer(self, path: str, params: dict[str, object]) -> Answer:
        minute = self.now_ms // MINUTE_MS
        limit = int(str(params.get("limit", 500)))
        weight = AGG_TRADES[self.market]
        if path == "/klines":
            weight = next(weight for most, weight in KLINES[self.market] if limit <= most)
        self._used[minute] += weight
        self.asked.append((self.now_ms, path, params, weight))
        used = {"x-mbx-used-weight-1m": str(self._used[minute])}
        if self._used[minute] > DEFAULT_LIMITS[self.market]:
            return Answer(b'{"code":-1003,"msg":"Too many requests."}', 429, used)
        if (chosen := self.fault(path, params, self.now_ms)) is not None:
            return Answer(chosen.body, chosen.status, {**used, **chosen.headers}, chosen.after_s)
        body = self._klines(params, limit) if path == "/klines" else self._agg_trades(params, limit)
        return Answer(json.dumps(body).encode(), headers=used)

    def _klines(self, params: dict[str, object], limit: int) -> list[list[object]]:
        symbol, name = str(params["symbol"]), params["interval"]
        interval = next(one for one in INTERVALS if one.name == name)
        start_ms, end_ms = int(str(params["startTime"])), int(str(params["endTime"]))
        found: list[list[object]] = []
        for open_ms in interval.opens(start_ms, min(end_ms, self.now_ms) + 1):
            values = self.row(symbol, interval, open_ms)
            if values is None:
                continue
            o, h, low, c, volume, quote, trades, taker, taker_quote = values
            prices = [f"{price / 100:.2f}" for price in (o, h, low, c)]
            sums = f"{quote // 1_000}.{quote % 1_000:03}", f"{taker_quote // 1_000}.{taker_quote % 1_000:03}"
            close_ms = interval.next_open(open_ms) - 1
            found.append(
                [open_ms, *prices, f"{volume / 10:.1f}", close_ms, sums[0], trades, f"{taker / 10:.1f}", sums[1], "0"]
            )
            if len(found) == limit:
                break
        return found

    def _agg_trades(self, params: dict[str, object], limit: int) -> list[dict[str, object]]:
        from_id = int(str(params["fromId"]))
        return [trade for trade in self.trades[str(params["symbol"])] if int(str(trade["a"])) >= from_id][:limit]


class _Response:
    def __init__(self, exchange: Exchange, clock: ManualClock, path: str, params: dict[str, object]) -> None:
        self._exchange, self._clock, self._path, self._params = exchange, clock, path, params

    async def __aenter__(self) -> Self:
        answer = self._exchange.answer(self._path, self._params)
        await self._clock.sleep(answer.after_s)
        self.status, self.headers, self._body = answer.status, answer.headers, answer.body
        return self

    async def __aexit__(self, *_error: object) -> None:
        return None

    async def read(self) -> bytes:
        return self._body


class _Session:
    """As much of an HTTP session as the client uses."""

    def __init__(self, exchange: Exchange, clock: ManualClock) -> None:
        self._exchange, self._clock = exchange, clock

    def get(self, url: str, *, params: dict[str, object]) -> _Response:
        return _Response(self._exchange, self._clock, url[url.rindex("/") :], params)

    async def close(self) -> None:
        return None


class InlineStore:
    """A store whose calls run at once, so that virtual time never waits for a thread."""

    def __init__(self, store) -> None:
        self.store = store

    async def call(self, fn, *args, **kwargs):
        return fn(*args, **kwargs)


class Rig:
    """A database that owns its market, closed up to `closed_ms`, and a repairer over a scripted exchange."""

    def __init__(
        self,
        folder: Path,
        symbols: Iterable[str] = ("AAAUSDT",),
        intervals: Iterable[str] = ("5m",),
        market: Market = Market.USDM,
    ) -> None:
        self.market = market
        self.clock = ManualClock()
        self.exchange = Exchange(self.clock, market)
        self.store = open_store(str(folder / "klagg.db"), mode="create")
        listed = [Instrument(market, symbol, Status.TRADING, 2, 1) for symbol in symbols]
        self.ids = self.store.put_instruments(listed, 0)
        self.instruments = {self.ids[one.symbol]: one for one in listed}
        self.intervals = parse_intervals(list(intervals))
        self.claim = self.store.claim(market, owner="test", now_ms=0)
        self.budget = WeightBudget(DEFAULT_LIMITS[market], clock=self.clock, now_ms=lambda: self.now_ms)
        endpoints = for_market(market, rest_url="http://exchange")
        self.rest = RestClient(
            endpoints,
            clock=self.clock,
            now_ms=lambda: self.now_ms,
            budget=self.budget,
            transport=Transport(open_session=lambda: _Session(self.exchange, self.clock)),
        )
        self.told: list[tuple[object, object, int]] = []
        self.repairer = self.new_repairer()

    def new_repairer(self) -> Repairer:
        """As after a restart."""
        return Repairer(
            self.market,
            self.rest,
            InlineStore(self.store),
            lambda: self.instruments,
            now_ms=lambda: self.now_ms,
            clock=self.clock,
            intervals=self.intervals,
            on_repaired=self._take,
        )

    async def _take(self, _ids, candles, _base_ids, bases, upto_ms) -> None:
        self.told.append((candles, bases, upto_ms))

    @property
    def now_ms(self) -> int:
        return self.exchange.now_ms

    def close_upto(self, boundary_ms: int) -> None:
        self.store.commit(Commit(self.claim, range(256), boundary_ms))

    def put(self, symbol: str, opens: Iterable[int], origin: Origin, interval: Interval = MINUTE, *, close=77) -> None:
        """Store unverified candles with numbers that are not the exchange's."""
        chosen = list(opens)
        rows = np.zeros(len(chosen), CANDLE)
        rows["open_ms"], rows["interval"], rows["origin"], rows["flags"] = chosen, interval.code, origin, Flag.CLOSED
        rows["price_scale"], rows["qty_scale"] = 2, 1
        rows["open"] = rows["high"] = rows["low"] = rows["close"] = close
        rows["trades"] = int(origin in {Origin.PARTIAL, Origin.TRADES})
        rows["first_id"] = rows["last_id"] = -1
        self.store.write(np.full(len(rows), self.ids[symbol]), rows)

    def outage(self, symbols: Iterable[str], start_ms: int, end_ms: int) -> None:
        """The minutes of an outage and the longer candles that hold them, as the clock made them, closed by `closed_upto`."""
        closed_ms = self.store.closed_upto(self.market)
        for symbol in symbols:
            self.put(symbol, range(start_ms, end_ms, MINUTE_MS), Origin.FILLED)
            for interval in self.intervals[1:]:
                opens = [
                    open_ms
                    for open_ms in interval.opens(interval.open_at(start_ms), end_ms)
                    if interval.next_open(open_ms) <= closed_ms
                ]
                within = [at for at in opens if start_ms <= at and interval.next_open(at) <= end_ms]
                self.put(symbol, within, Origin.FILLED, interval)
                self.put(symbol, sorted({*opens}.difference(within)), Origin.PARTIAL, interval)

    async def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> float:
        """Let the repairer run for so long, or until something holds; returns how many seconds it took."""
        task = asyncio.create_task(self.repairer.run())
        began_ms = self.now_ms
        try:
            while self.now_ms - began_ms < seconds * 1e3 and not until():
                await self.clock.advance(1_000)
                if task.done():
                    task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return (self.now_ms - began_ms) / 1e3

    async def fill(self, deadline_s: float = 20.0) -> int:
        """Fill as at a start."""
        task = asyncio.create_task(self.repairer.fill(deadline_s))
        while not task.done():
            await self.clock.advance(100)
        return task.result()

    @property
    def unverified(self) -> int:
        return len(self.store.unverified(self.market, before_ms=1 << 62, limit=1_000_000))

    def check(self) -> None:
        """Nothing waits; what is verified is the exchange's, what is unmatched the exchange has not."""
        assert self.unverified == 0
        for symbol, number in self.ids.items():
            for interval in self.intervals:
                for row in self.store.read(number, interval, T0 - 10 * 86_400_000, self.now_ms):
                    true = self.exchange.row(symbol, interval, int(row["open_ms"]))
                    if row["origin"] == Origin.UNMATCHED:
                        assert true is None
                        continue
                    assert row["flags"] & Flag.VERIFIED
                    assert tuple(int(row[name]) for name in NAMES) == true
