"""What to ask the exchange for: the cheapest ranges that hold the wanted candles. Pure."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from klagg.exchange.klines import PAGES, SETTLE_MS, weight_of
from klagg.exchange.rest import count_opens
from klagg.interval import INTERVALS, MONTH_STEP, Interval
from klagg.model import Market
from klagg.repair.patience import Key

Wanted = Mapping[tuple[int, int], list[int]]
"""Opens to settle, by instrument and interval code."""


class Why(Enum):
    """Why a range is asked for."""

    ASKED = "asked"
    """Others want it, whatever is stored."""
    URGENT = "urgent"
    LEISURE = "leisure"


@dataclass(frozen=True, slots=True)
class Fetch:
    """One range of klines to ask for: opens in `[start_ms, end_ms)`; `opens` are those of the queue, empty where others ask."""

    instrument_id: int
    interval: Interval
    start_ms: int
    end_ms: int
    why: Why = Why.ASKED
    opens: frozenset[int] = frozenset()

    @property
    def keys(self) -> set[Key]:
        """The candles of the queue that it settles."""
        return {(self.instrument_id, self.interval.code, open_ms) for open_ms in self.opens}

    def weight(self, market: Market) -> int:
        """What asking for it costs."""
        return weight_of(market, max(count_opens(self.interval, self.start_ms, self.end_ms), 1))


def plan_ranges(market: Market, interval: Interval, opens: Iterable[int]) -> list[tuple[int, int]]:
    """The ranges to ask for these opens, one request each, ascending: the least weight, with it the fewest requests.

    A request reaches over as many rows as its price allows, from a wanted one on; from the last wanted open backwards, the
    best way to go on after each is known.
    """
    wanted = sorted(set(opens))
    best = [(0, 0, 0)] * (len(wanted) + 1)
    for index in range(len(wanted) - 1, -1, -1):
        choices = []
        for rows, weight in PAGES[market]:
            after = bisect_left(wanted, _reach_ms(interval, wanted[index], rows))
            choices.append((weight + best[after][0], 1 + best[after][1], after))
        best[index] = min(choices)
    ranges = []
    index = 0
    while index < len(wanted):
        after = best[index][2]
        ranges.append((wanted[index], interval.next_open(wanted[after - 1])))
        index = after
    return ranges


def _reach_ms(interval: Interval, open_ms: int, rows: int) -> int:
    """The end of so many rows from an open on."""
    if interval.step_ms != MONTH_STEP:
        return open_ms + rows * interval.step_ms
    for _ in range(rows):
        open_ms = interval.next_open(open_ms)
    return open_ms


def fetches(market: Market, wanted: Wanted, why: Why) -> list[Fetch]:
    """The fetches that settle what is wanted, newest first."""
    found = []
    for (instrument_id, code), opens in wanted.items():
        interval = INTERVALS[code]
        ordered = sorted(opens)
        for start_ms, end_ms in plan_ranges(market, interval, ordered):
            within = frozenset(ordered[bisect_left(ordered, start_ms) : bisect_left(ordered, end_ms)])
            found.append(Fetch(instrument_id, interval, start_ms, end_ms, why, within))
    return sorted(found, key=lambda fetch: -fetch.end_ms)


def affordable(market: Market, fetches: Iterable[Fetch], weight: int) -> list[Fetch]:
    """The leading fetches that the weight allows."""
    chosen: list[Fetch] = []
    for fetch in fetches:
        weight -= fetch.weight(market)
        if weight < 0:
            break
        chosen.append(fetch)
    return chosen


def asked_end_ms(market: Market, fetch: Fetch, now_ms: int) -> int:
    """The end to ask for: a row more where it costs nothing, the evidence that earlier ones will not come."""
    further_ms = fetch.interval.next_open(fetch.end_ms)
    if further_ms > now_ms - SETTLE_MS:
        return fetch.end_ms
    further = weight_of(market, count_opens(fetch.interval, fetch.start_ms, further_ms))
    return further_ms if further == fetch.weight(market) else fetch.end_ms
