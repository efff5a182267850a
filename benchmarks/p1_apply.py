"""P1: trades in memory, applied in batches with all of klagg's rules."""

import time
from collections.abc import Iterator
from itertools import pairwise

import numba
import numpy as np

from benchmarks import nautilus
from benchmarks.core import (
    TIMES,
    Figure,
    Measurement,
    Plan,
    Yardstick,
    at_least,
    cpu_seconds,
    median,
    no_garbage,
    spread,
)
from benchmarks.market import TRADES, Market, disturbed, market
from klagg.interval import MINUTE_MS
from klagg.model import Trades

BATCHES = (256, 4096)
ROUNDS = 7
PEER_TRADES = 40_000
MILLION = 1e6

HOW = f"""
{TRADES:,} trades of 500 symbols (Zipf) over two hours lie in memory as klagg's trade columns: times ascend, ids run without a
hole in each symbol. They go through `Engine.apply` in batches, seven intervals kept; at each minute's boundary come `advance` and
`collect`, as in the service, whose time is left out of the figure and given in a line of its own ("and the ticks"). The peer,
nautilus_trader's `TimeBarAggregator`, is fed the same trades as ready `TradeTick` objects, seven aggregators a symbol; its timers never
fire. The limit reads every trade's columns once and adds them up, in a compiled loop. CPU time of the thread, medians of rounds that
take turns. "Disturbed": 2 % of the trades come twice and 2 % in the wrong order.
"""


@numba.njit
def read_columns(trades):  # noqa: ANN001, ANN201 - compiled
    total = 0
    for index in range(trades.shape[0]):
        trade = trades[index]
        total += trade["slot"] + trade["price_scale"] + trade["qty_scale"] + trade["buyer_is_maker"] + trade["kind"]
        total += trade["agg_id"] + trade["price"] + trade["qty"]
        total += trade["first_id"] + trade["last_id"] + trade["time_ms"]
    return total


def in_batches(trades: Trades, size: int) -> list[tuple[int, list[Trades]]]:
    """The batches of each minute, with the boundary after it; no batch reaches over a boundary."""
    minutes = trades["time_ms"] // MINUTE_MS
    cuts = [0, *(np.flatnonzero(np.diff(minutes) > 0) + 1).tolist(), len(trades)]
    return [
        (
            (int(minutes[start]) + 1) * MINUTE_MS,
            [trades[at : min(at + size, end)] for at in range(start, end, size)],
        )
        for start, end in pairwise(cuts)
    ]


def apply_all(made: Market, minutes: list[tuple[int, list[Trades]]]) -> tuple[float, float]:
    """The CPU seconds of applying, and of the ticks between."""
    engine = made.engine()
    applying = ticking = 0.0
    with no_garbage():
        for boundary_ms, batches in minutes:
            started = time.thread_time()
            for batch in batches:
                engine.apply(batch, boundary_ms)
            applied = time.thread_time()
            engine.advance(boundary_ms)
            engine.collect()
            ticking += time.thread_time() - applied
            applying += applied - started
    tally = engine.tally
    expected = sum(len(batch) for _, batches in minutes for batch in batches)
    assert tally.applied + tally.late + tally.duplicate == expected, tally
    return applying, ticking


def measure(plan: Plan) -> Iterator[Measurement]:
    made = market(plan.pick(TRADES, 50_000))
    count, rounds = len(made.trades), plan.pick(ROUNDS, 2)
    calm = {size: in_batches(made.trades, size) for size in BATCHES}
    rough_trades = disturbed(made.trades)
    # By arrival: a trade in the wrong order is still a trade of its own minute here.
    rough = in_batches(rough_trades[np.argsort(rough_trades["time_ms"] // MINUTE_MS, kind="stable")], BATCHES[0])
    read_columns(made.trades[:1])
    apply_all(made, calm[BATCHES[0]][:2])
    applied: dict[int, list[float]] = {size: [] for size in BATCHES}
    with_ticks, disturbed_rates, limits, peers = [], [], [], []
    peer = nautilus.seconds_a_trade(made, plan.pick(PEER_TRADES, 500), rounds, time.thread_time)
    for _ in range(rounds):
        for size, minutes in calm.items():
            applying, ticking = apply_all(made, minutes)
            applied[size].append(count / applying / MILLION)
            if size == BATCHES[0]:
                with_ticks.append(count / (applying + ticking) / MILLION)
        disturbed_rates.append(len(rough_trades) / apply_all(made, rough)[0] / MILLION)
        limits.append(count / cpu_seconds(lambda: read_columns(made.trades)) / MILLION)
        if nautilus.installed():
            peers.append(1 / next(peer) / MILLION)
    limit = Yardstick("reading the columns alone", median(limits))
    against = Yardstick(nautilus.name(), median(peers)) if peers else None
    unit, goal = "million trades/s a core", at_least(50)
    for size, rates in applied.items():
        yield Measurement(
            "P1",
            f"apply, batches of {size}",
            median(rates),
            unit,
            goal=goal if size == BATCHES[0] else None,
            peer=against,
            limit=limit,
            samples=rounds,
            spread=spread(rates),
        )
    yield Measurement(
        "P1",
        f"apply, batches of {BATCHES[0]}, as a multiple of the peer",
        median(applied[BATCHES[0]]) / against.value if against else None,
        TIMES,
        goal=at_least(50),
        peer=Yardstick(f"{against.name}, {unit}", against.value) if against else None,
        samples=rounds,
        note="" if against else nautilus.NOT_INSTALLED,
    )
    for name, rates in (
        (f"apply in batches of {BATCHES[0]}, and the ticks", with_ticks),
        ("apply, disturbed", disturbed_rates),
    ):
        yield Measurement(
            "P1", name, median(rates), unit, peer=against, limit=limit, samples=rounds, spread=spread(rates)
        )


FIGURE = Figure("P1", "Trades applied in batches", HOW, measure)
