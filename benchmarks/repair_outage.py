"""R1: how long repair takes after an outage, against the least that the exchange's weight limit allows."""

import asyncio
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar, cast

import numpy as np

from benchmarks.core import TIMES, Figure, Measurement, Plan, Yardstick, at_most, wall_seconds
from klagg.clock import ManualClock
from klagg.exchange.budget import DEFAULT_LIMITS, Purpose, WeightBudget
from klagg.exchange.endpoints import for_market
from klagg.exchange.klines import SETTLE_MS
from klagg.exchange.rest import RestClient
from klagg.exchange.transport import Transport
from klagg.interval import DEFAULT_INTERVALS, MINUTE, MINUTE_MS
from klagg.model import CANDLE, Flag, Instrument, Ints, Market, Origin, Status
from klagg.repair import Repairer
from klagg.store import Commit, SqliteStore, open_store

P = ParamSpec("P")
T = TypeVar("T")
SYMBOLS = 500
MANY = 3_000
"""So many that their weight does not fit into one minute."""
ANSWER_S = 0.1
"""The time that the exchange takes for one answer."""
LADDER = ((100, 1), (500, 2), (1_000, 5), (1_500, 10))
"""USDT-M: up to so many rows cost so much."""
T0 = 1_725_148_800_000
STEP_MS = 100
PATIENCE_S = 3_600

HOW = f"""
The feed of {SYMBOLS} symbols was away; the database holds, in seven intervals, what the clock alone could make of that time, unverified.
The repairer, the REST client and its weight budget are the real ones; the exchange is played in memory on virtual time: it answers after
{ANSWER_S} s and charges weight as USDT-M does, 2,400 a clock minute, of which repair may use 90 %. Timed is, in virtual seconds, from the
end of the outage until every closed candle of it is verified. The least time is what the exchange imposes: the last minute settles
{SETTLE_MS // 1_000} s after its close, then the weight of the cheapest requests for all of it must fit into clock minutes at that
share, and the last answer takes its {ANSWER_S} s. The least weight is one cheapest request for each symbol.
"""


class Exchange:
    """Flat klines of any symbol and interval, and a count of the weight."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.used: Counter[int] = Counter()

    @property
    def now_ms(self) -> int:
        return T0 + self.clock.monotonic_ns() // 1_000_000

    @property
    def weight(self) -> int:
        return self.used.total()

    def answer(self, params: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        assert params["interval"] == MINUTE.name, "minutes are enough: longer candles follow from them"
        minute = self.now_ms // MINUTE_MS
        self.used[minute] += next(weight for rows, weight in LADDER if params["limit"] <= rows)
        headers = {"x-mbx-used-weight-1m": str(self.used[minute])}
        if self.used[minute] > DEFAULT_LIMITS[Market.USDM]:
            return 429, headers, b'{"code":-1003,"msg":"Too many requests"}'
        opens = MINUTE.opens(params["startTime"], min(params["endTime"], self.now_ms) + 1)
        rows = [
            [o, "1.00", "1.00", "1.00", "1.00", "1.0", o + MINUTE_MS - 1, "1.000", 1, "0.0", "0.000", "0"]
            for o in opens
        ]
        return 200, headers, json.dumps(rows[: params["limit"]]).encode()


class Response:
    def __init__(self, exchange: Exchange, params: dict[str, Any]) -> None:
        self.exchange, self.params = exchange, params

    async def __aenter__(self) -> Self:
        self.status, self.headers, self.body = self.exchange.answer(self.params)
        await self.exchange.clock.sleep(ANSWER_S)
        return self

    async def __aexit__(self, *_error: object) -> None:
        return None

    async def read(self) -> bytes:
        return self.body


class Session:
    """As much of an HTTP session as the client uses."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange

    def get(self, _url: str, *, params: dict[str, Any]) -> Response:
        return Response(self.exchange, params)

    async def close(self) -> None:
        return None


class Inline:
    """A store whose calls run at once, so that virtual time never waits for a thread."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store

    async def call(self, run: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return run(*args, **kwargs)


@dataclass(frozen=True)
class Outage:
    """What is played: so many minutes, and when after the last boundary the network is back."""

    minutes: int
    back_ms: int
    symbols: int

    @property
    def end_ms(self) -> int:
        """The last boundary of the outage."""
        return T0 + 60 * MINUTE_MS + self.minutes * MINUTE_MS

    def least_weight(self) -> int:
        return self.symbols * min(weight for rows, weight in LADDER if self.minutes <= rows)

    def least_s(self) -> float:
        """The time that the settling, the weight limit and one answer take."""
        settled_ms = self.end_ms + SETTLE_MS
        share = int(DEFAULT_LIMITS[Market.USDM] * 0.9)
        further_minutes = (self.least_weight() - 1) // share
        begun_ms = max(settled_ms, self.end_ms + self.back_ms)
        if further_minutes:
            begun_ms = (begun_ms // MINUTE_MS + further_minutes) * MINUTE_MS
        return (begun_ms - self.end_ms - self.back_ms) / 1e3 + ANSWER_S


def prepare(store: SqliteStore, outage: Outage) -> dict[int, Instrument]:
    """The database after the outage: closed up to its end, nothing of it verified."""
    listed = [Instrument(Market.USDM, f"S{n:04}USDT", Status.TRADING, 2, 1) for n in range(outage.symbols)]
    ids = store.put_instruments(listed, 0)
    claim = store.claim(Market.USDM, owner="benchmark", now_ms=0)
    store.commit(Commit(claim, range(256), outage.end_ms))
    numbers = np.array(list(ids.values()), np.int64)
    # What was before it is verified, so that the longer candles have all their children.
    start_ms = outage.end_ms - outage.minutes * MINUTE_MS
    for interval in DEFAULT_INTERVALS:
        ends = {open_ms: interval.next_open(open_ms) for open_ms in interval.opens(T0, outage.end_ms)}
        before = [open_ms for open_ms, end_ms in ends.items() if end_ms <= start_ms]
        within = [open_ms for open_ms, end_ms in ends.items() if start_ms < end_ms <= outage.end_ms]
        origin = Origin.FILLED if interval is MINUTE else Origin.PARTIAL
        write(store, numbers, before, interval.code, Origin.EXCHANGE, Flag.CLOSED | Flag.VERIFIED)
        write(store, numbers, within, interval.code, origin, Flag.CLOSED)
    return {ids[one.symbol]: one for one in listed}


def write(store: SqliteStore, numbers: Ints, opens: Sequence[int], code: int, origin: Origin, flags: Flag) -> None:
    chosen = np.array(opens, np.int64)
    rows = np.zeros(len(chosen), CANDLE)
    rows["interval"], rows["origin"], rows["flags"], rows["open_ms"] = code, origin, flags, chosen
    rows["price_scale"], rows["qty_scale"], rows["first_id"], rows["last_id"] = 2, 1, -1, -1
    for name in ("open", "high", "low", "close"):
        rows[name] = 100
    if flags & Flag.VERIFIED:
        rows["volume_lo"], rows["quote_lo"], rows["trades"] = 10, 1_000, 1
    store.write(np.repeat(numbers, len(rows)), np.tile(rows, len(numbers)))


async def play(outage: Outage, folder: Path) -> tuple[float, int]:
    """Virtual seconds until all is verified, and the weight it took."""
    clock = ManualClock()
    exchange = Exchange(clock)
    store = open_store(str(folder / "repair.db"), mode="create")
    try:
        instruments = prepare(store, outage)
        clock.jump(outage.end_ms + outage.back_ms - T0)
        budget = WeightBudget(DEFAULT_LIMITS[Market.USDM], clock=clock, now_ms=lambda: exchange.now_ms)
        assert budget.rate(Purpose.REPAIR) == int(DEFAULT_LIMITS[Market.USDM] * 0.9)
        rest = RestClient(
            for_market(Market.USDM, rest_url="http://exchange"),
            clock=clock,
            now_ms=lambda: exchange.now_ms,
            budget=budget,
            transport=Transport(open_session=cast("Any", lambda: Session(exchange))),
        )
        repairer = Repairer(
            Market.USDM,
            rest,
            cast("Any", Inline(store)),
            lambda: instruments,
            now_ms=lambda: exchange.now_ms,
            clock=clock,
            intervals=DEFAULT_INTERVALS,
        )
        began_ms = exchange.now_ms
        running = asyncio.create_task(repairer.run())
        while len(store.unverified(Market.USDM, before_ms=outage.end_ms, limit=1)):
            await clock.advance(STEP_MS)
            if running.done() or exchange.now_ms - began_ms > PATIENCE_S * 1_000:
                raise RuntimeError(f"{len(store.unverified(Market.USDM, before_ms=1 << 62))} candles are left")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return (exchange.now_ms - began_ms) / 1e3, exchange.weight
    finally:
        store.close()


def measure(plan: Plan) -> Iterator[Measurement]:
    for minutes, symbols, back_ms, when in (
        (5, SYMBOLS, 1_000, "back 1 s after a boundary"),
        (5, MANY, 1_000, "back 1 s after a boundary"),
        (60, SYMBOLS, 1_000, "back 1 s after a boundary"),
    ):
        outage = Outage(minutes, back_ms, plan.pick(symbols, 20))
        name = f"{minutes} min outage of {outage.symbols:,} symbols, {when}"
        took: list[tuple[float, int]] = []
        with tempfile.TemporaryDirectory(prefix="klagg-benchmarks-") as folder:
            spent_s = wall_seconds(lambda: took.append(asyncio.run(play(outage, Path(folder)))))  # noqa: B023
        ((seconds, weight),) = took
        yield Measurement(
            "R1",
            f"until verified, {name}",
            seconds / outage.least_s(),
            TIMES,
            goal=at_most(1.5) if minutes == 5 else None,
            limit=Yardstick("the least that settling, weight limit and one answer take, s", outage.least_s()),
            note=f"{seconds:.1f} s virtual; {spent_s:.1f} s real, all of the exchange's part included",
        )
        yield Measurement(
            "R1",
            f"weight, {name}",
            weight / outage.least_weight(),
            TIMES,
            goal=at_most(1.1) if minutes == 5 else None,
            limit=Yardstick("the cheapest requests", outage.least_weight()),
            note=f"weight {weight:,}",
        )


FIGURE = Figure("R1", "Repair after an outage", HOW, measure)
