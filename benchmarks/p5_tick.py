"""P5: a tick in memory, from the boundary to rows that are ready to be written."""

import copy
import time
from collections.abc import Iterator

import numpy as np

from benchmarks.core import Figure, Goal, Measurement, Plan, Yardstick, at_most, median, no_garbage, quantile, spread
from benchmarks.market import MONDAY_MS, Market, market
from klagg.engine.engine import Engine
from klagg.interval import DEFAULT_INTERVALS, MINUTE_MS
from klagg.model import Candles, Trades

MINUTES_BEFORE = 6
MICRO = 1e6

HOW = """
`Engine.advance` to the boundary, then `collect` and `snapshots`, as the service does before it hands the rows to the store: every
closed candle and every open one of seven intervals, copied and owned by the caller. Each symbol has traded in the minute. Every sample
is an engine of its own that went through the minutes before, so that its memory is in use as in a running service. As there, what the
minute's trades have proven of the minute before was collected by a sweep just before; "nothing swept" leaves it to the tick. The
limit copies the same rows once by numpy, out of the arrays they lie in and into new memory.
"""


def rested(made: Market) -> Engine:
    """An engine some minutes before Monday."""
    return made.engine(MONDAY_MS - MINUTES_BEFORE * MINUTE_MS)


def trade_in(engine: Engine, firsts: Trades, boundary_ms: int) -> None:
    """One trade of every symbol (`firsts` has one of each) in the minute before the boundary."""
    trades = firsts.copy()
    trades["time_ms"] = boundary_ms - 1
    trades["agg_id"] += boundary_ms // MINUTE_MS
    engine.apply(trades, boundary_ms)


def tick(engine: Engine, boundary_ms: int) -> tuple[Candles, Candles, tuple[float, float, float]]:
    """The rows of a tick, and the seconds of its three parts."""
    started = time.perf_counter()
    done = engine.advance(boundary_ms)
    advanced = time.perf_counter()
    closed = engine.collect()
    collected = time.perf_counter()
    opened = engine.snapshots()
    ended = time.perf_counter()
    assert done
    return closed, opened, (advanced - started, collected - advanced, ended - collected)


def measure_symbols(symbols: int, samples: int, goal: Goal, made: Market) -> Iterator[Measurement]:
    mondays, unswept, minutes, limits = [], [], [], []
    parts = []
    prototype = rested(made)
    firsts = made.trades[np.unique(made.trades["slot"], return_index=True)[1]]
    with no_garbage():
        for sample in range(2 * samples):
            swept = sample % 2 == 0
            engine = copy.deepcopy(prototype)
            for before in range(MINUTES_BEFORE - 1, -1, -1):
                boundary_ms = MONDAY_MS - before * MINUTE_MS
                trade_in(engine, firsts, boundary_ms)
                if swept:
                    engine.collect()
                closed, opened, spent = tick(engine, boundary_ms)
                if swept and before:
                    minutes.append(sum(spent) * MICRO)
            assert len(opened) == symbols * len(DEFAULT_INTERVALS)
            # What the trades of a minute prove of the one before comes out once more.
            assert len(closed) == len(opened) + (0 if swept else symbols)
            if not swept:
                unswept.append(sum(spent) * MICRO)
                continue
            mondays.append(sum(spent) * MICRO)
            parts.append([part * MICRO for part in spent])
            source = np.concatenate([closed, opened])
            started = time.perf_counter()
            source.copy()
            limits.append((time.perf_counter() - started) * MICRO)
    limit = Yardstick(f"copying the same {len(source):,} rows by numpy", median(limits))
    advanced, collected, opened_ = (median([part[n] for part in parts]) for n in range(3))
    name = f"tick of Monday 00:00, {symbols:,} symbols"
    yield Measurement(
        "P5",
        f"{name}, p50",
        median(mondays),
        "µs",
        goal=goal,
        limit=limit,
        samples=samples,
        spread=spread(mondays),
        note=f"advance {advanced:.0f} µs, collect {collected:.0f} µs, snapshots {opened_:.0f} µs",
    )
    yield Measurement("P5", f"{name}, p99", quantile(mondays, 0.99), "µs", samples=samples)
    for label, times in (
        (f"{name}, nothing swept before, p50", unswept),
        (f"an ordinary tick, {symbols:,} symbols, p50", minutes),
    ):
        yield Measurement("P5", label, median(times), "µs", samples=len(times), spread=spread(times))


def measure(plan: Plan) -> Iterator[Measurement]:
    yield from measure_symbols(500, plan.pick(100, 3), at_most(50), market(plan.pick(2_000_000, 50_000)))
    if not plan.quick:
        yield from measure_symbols(10_000, 11, at_most(1_000), market(2_000_000, 10_000))


FIGURE = Figure("P5", "A tick in memory", HOW, measure)
