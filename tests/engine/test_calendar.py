"""The compiled calendar is `klagg.interval`'s, and what is found due is what plainly ends at a boundary."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klagg.engine.calendar import find_due, next_open_ms, open_ms_at
from klagg.interval import BY_NAME, DAY_MS, INTERVALS, MINUTE_MS, parse_intervals
from oracle import ends_at

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CALENDAR = np.array([(interval.step_ms, interval.anchor_ms) for interval in INTERVALS], np.int64)


def ms(year, month=1, day=1):
    return (datetime(year, month, day, tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)


def found_due(boundary_ms, intervals=INTERVALS):
    calendar = np.array([(interval.step_ms, interval.anchor_ms) for interval in intervals], np.int64)
    due = np.zeros(len(intervals), np.int64)
    count = find_due(boundary_ms, calendar, due)
    return {"1m"} | {intervals[k].name for k in due[:count]}


@settings(deadline=None)
@given(st.sampled_from(INTERVALS), st.integers(0, ms(2200)))
def test_the_compiled_calendar_is_the_plain_one(interval, t_ms):
    open_ms = interval.open_at(t_ms)
    assert open_ms_at(t_ms, interval.step_ms, interval.anchor_ms) == open_ms
    assert next_open_ms(open_ms, interval.step_ms) == interval.next_open(open_ms)


def boundaries_of(start_ms, end_ms):
    return range(start_ms, end_ms, MINUTE_MS)


def test_due_intervals_are_those_that_plainly_end_in_every_minute_of_a_week():
    start_ms = ms(2024, 8, 8)
    for boundary_ms in boundaries_of(start_ms, start_ms + 7 * DAY_MS + MINUTE_MS):
        assert found_due(boundary_ms) == ends_at(boundary_ms)


@pytest.mark.parametrize(
    "midnight_ms",
    [
        *(ms(2024, month) for month in range(1, 13)),
        *(ms(year, 3) for year in (1972, 2000, 2023, 2024, 2100)),
        *(ms(2024, 2, 29), ms(2023, 1, 1), ms(2025, 1, 1), ms(2024, 12, 30), ms(2029, 1, 1), ms(2018, 1, 1)),
        *(ms(2024, 7, day) for day in range(1, 16)),
    ],
)
def test_due_intervals_at_month_ends_year_ends_and_mondays(midnight_ms):
    for minutes in range(-2, 3):
        boundary_ms = midnight_ms + minutes * MINUTE_MS
        assert found_due(boundary_ms) == ends_at(boundary_ms)


@settings(deadline=None)
@given(st.sets(st.sampled_from(list(BY_NAME))), st.integers(ms(1971) // MINUTE_MS, ms(2200) // MINUTE_MS))
def test_a_subset_of_intervals_has_its_own_share_of_what_is_due(names, minute):
    intervals = parse_intervals(names)
    boundary_ms = minute * MINUTE_MS
    assert found_due(boundary_ms, intervals) == ends_at(boundary_ms) & {interval.name for interval in intervals}


def test_an_instant_inside_a_minute_ends_nothing_longer():
    assert found_due(ms(2024) + 1) == {"1m"}
