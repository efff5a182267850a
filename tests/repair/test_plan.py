"""The ranges to ask for cost no more than any others that hold the wanted candles."""

from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klagg.interval import BY_NAME, INTERVALS, MINUTE, MINUTE_MS
from klagg.model import Market
from klagg.repair.plan import Fetch, Why, affordable, asked_end_ms, fetches, plan_ranges

T0 = 1_725_148_800_000
LADDERS = {  # the whole of what the exchange states: up to so many rows for so much
    Market.USDM: ((100, 1), (500, 2), (1_000, 5), (1_500, 10)),
    Market.SPOT: ((1_000, 2),),
}


@cache
def cheapest(market: Market, rows: int) -> int:
    """The least weight of so many rows in a stretch, by any requests: tried one after the other."""
    if rows <= 0:
        return 0
    return min(weight + cheapest(market, rows - most) for most, weight in LADDERS[market])


def weight_by_trying(market: Market, places: list[int]) -> int:
    """The least weight over every way to cut the wanted rows into stretches."""
    if not places:
        return 0
    return min(
        cheapest(market, places[cut] - places[0] + 1) + weight_by_trying(market, places[cut + 1 :])
        for cut in range(len(places))
    )


def weight_of_requests(market: Market, rows: list[int]) -> int:
    return sum(next(weight for most, weight in LADDERS[market] if count <= most) for count in rows)


@given(
    st.sampled_from(list(Market)),
    st.sampled_from([BY_NAME["1m"], BY_NAME["4h"], BY_NAME["3d"], BY_NAME["1w"]]),
    st.lists(st.integers(0, 1_200) | st.integers(0, 120), min_size=1, max_size=8, unique=True),
)
def test_no_other_ranges_are_cheaper(market, interval, places):
    start_ms = interval.open_at(T0)
    opens = [start_ms + place * interval.step_ms for place in places]
    ranges = plan_ranges(market, interval, opens)
    rows = [(end_ms - from_ms) // interval.step_ms for from_ms, end_ms in ranges]
    assert weight_of_requests(market, rows) == weight_by_trying(market, sorted(places))
    assert all(any(from_ms <= open_ms < end_ms for from_ms, end_ms in ranges) for open_ms in opens)
    assert all(end_ms <= next_ms for (_, end_ms), (next_ms, _) in pairwise(ranges))
    assert {from_ms for from_ms, _ in ranges} <= set(opens), "nothing is asked for before what is wanted"


@pytest.mark.parametrize(
    ("market", "opens", "expected"),
    [
        (Market.USDM, [0, 99], [(0, 100)]),
        (Market.USDM, [0, 100], [(0, 101)]),
        (Market.USDM, [0, 150, 290, 430], [(0, 431)]),
        (Market.USDM, [0, 5_000], [(0, 1), (5_000, 5_001)]),
        (Market.USDM, [0, 400, 499], [(0, 500)]),
        (Market.SPOT, [0, 400, 999, 1_000], [(0, 1_000), (1_000, 1_001)]),
    ],
)
def test_ranges_by_example(market, opens, expected):
    found = plan_ranges(market, MINUTE, [T0 + n * MINUTE_MS for n in opens])
    assert [((a - T0) // MINUTE_MS, (b - T0) // MINUTE_MS) for a, b in found] == expected


def test_months_are_counted_as_the_calendar_has_them():
    month = INTERVALS[-1]
    start_ms = month.open_at(T0)
    assert plan_ranges(Market.SPOT, month, [start_ms]) == [(start_ms, month.next_open(start_ms))]
    opens = list(month.opens(start_ms, start_ms + 12 * 31 * 86_400_000))
    assert plan_ranges(Market.USDM, month, opens) == [(start_ms, month.next_open(opens[-1]))]


def test_newest_first_and_only_what_the_weight_allows():
    minute = {(1, MINUTE.code): [T0], (2, MINUTE.code): [T0 + 9 * MINUTE_MS], (3, MINUTE.code): [T0 + 4 * MINUTE_MS]}
    found = fetches(Market.USDM, minute, Why.URGENT)
    assert [fetch.instrument_id for fetch in found] == [2, 3, 1]
    assert [fetch.instrument_id for fetch in affordable(Market.USDM, found, 2)] == [2, 3]


def test_a_row_more_is_asked_for_where_it_costs_nothing():
    whole = Fetch(1, MINUTE, T0, T0 + 100 * MINUTE_MS)
    part = Fetch(1, MINUTE, T0, T0 + 99 * MINUTE_MS)
    late_ms = T0 + 200 * MINUTE_MS
    assert asked_end_ms(Market.USDM, whole, late_ms) == whole.end_ms
    assert asked_end_ms(Market.USDM, part, late_ms) == part.end_ms + MINUTE_MS
    assert asked_end_ms(Market.USDM, part, part.end_ms + MINUTE_MS + 9_999) == part.end_ms
