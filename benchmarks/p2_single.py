"""P2: a quiet market, in which every trade comes alone."""

import time
from collections.abc import Iterator

import numba
import numpy as np

from benchmarks import nautilus
from benchmarks.core import TIMES, Figure, Measurement, Plan, Yardstick, at_most, cpu_seconds, median, spread
from benchmarks.market import market
from klagg.engine import state
from klagg.interval import DEFAULT_INTERVALS
from klagg.model import CANDLE

TRADES = 40_000
ROUNDS = 7
MICRO = 1e6

HOW = """
The trades of P1, each in an `Engine.apply` of its own. The peer is fed the same trades, seven aggregators a trade. The limit
is what Python pays for calling a compiled function that does nothing with as many arrays of the same types: the engine's own work comes
on top of it. CPU time of the thread, medians of rounds that take turns.
"""


@numba.njit
def do_nothing(rows, ints, trades, start, now_ms, calendar, due, out, used, tallies):  # noqa: ANN001, ANN201, ARG001 - compiled
    return start, used, now_ms


def measure(plan: Plan) -> Iterator[Measurement]:
    count, rounds = plan.pick(TRADES, 500), plan.pick(ROUNDS, 2)
    made = market(plan.pick(2_000_000, 50_000))
    singles = [made.trades[index : index + 1] for index in range(count * rounds)]
    times_ms = made.trades["time_ms"][: count * rounds].tolist()
    engine = made.engine()
    empty = (
        np.zeros((1, state.row_columns(len(DEFAULT_INTERVALS))), CANDLE),
        np.zeros((1, state.int_columns(len(DEFAULT_INTERVALS))), np.int64),
    )
    rest = (np.zeros((7, 2), np.int64), np.zeros(7, np.int64), np.zeros(7, CANDLE), 0, np.zeros(9, np.int64))
    do_nothing(*empty, singles[0], 0, times_ms[0], *rest)

    def apply_each(start: int) -> None:
        for index in range(start, start + count):
            engine.apply(singles[index], times_ms[index])

    def call_each(start: int) -> None:
        for index in range(start, start + count):
            do_nothing(*empty, singles[index], 0, times_ms[index], *rest)

    ours, limits, peers = [], [], []
    peer = nautilus.seconds_a_trade(made, count, rounds, time.thread_time)
    for start in range(0, count * rounds, count):
        ours.append(cpu_seconds(lambda: apply_each(start)) / count * MICRO)  # noqa: B023 - called at once
        limits.append(cpu_seconds(lambda: call_each(start)) / count * MICRO)  # noqa: B023 - called at once
        if nautilus.installed():
            peers.append(next(peer) * MICRO)
    assert engine.tally.applied == len(singles)
    against = Yardstick(nautilus.name(), median(peers)) if peers else None
    unit, limit = "µs a trade", Yardstick("an empty compiled call with the same arrays", median(limits))
    yield Measurement(
        "P2",
        "apply, one trade at a time, as a multiple of the peer",
        median(ours) / against.value if against else None,
        TIMES,
        goal=at_most(1),
        peer=Yardstick(f"{against.name}, {unit}", against.value) if against else None,
        samples=rounds,
        note="" if against else nautilus.NOT_INSTALLED,
    )
    yield Measurement(
        "P2",
        "apply, one trade at a time",
        median(ours),
        unit,
        peer=against,
        limit=limit,
        samples=rounds,
        spread=spread(ours),
    )


FIGURE = Figure("P2", "One trade at a time", HOW, measure)
