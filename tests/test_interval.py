"""Intervals and their calendar, against `datetime` and plain arithmetic."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klagg.errors import UsageError
from klagg.interval import (
    BY_NAME,
    DAY_MS,
    DEFAULT_INTERVALS,
    INTERVALS,
    MINUTE,
    MINUTE_MS,
    fold_source,
    parse_interval,
    parse_intervals,
    tiles,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
END_OF_TIME_MS = 7_258_118_400_000  # 2200-01-01
instants = st.integers(0, END_OF_TIME_MS)
any_interval = st.sampled_from(INTERVALS)


def ms(year, month=1, day=1, hour=0, minute=0):
    return (datetime(year, month, day, hour, minute, tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)


def date_of(t_ms):
    return EPOCH + timedelta(milliseconds=t_ms)


def test_the_known_intervals_are_the_exchanges_shortest_first_and_their_codes_never_move():
    names = "1m 3m 5m 15m 30m 1h 2h 4h 6h 8h 12h 1d 3d 1w 1M"
    assert " ".join(interval.name for interval in INTERVALS) == names
    assert [interval.code for interval in INTERVALS] == list(range(15))
    assert " ".join(map(str, DEFAULT_INTERVALS)) == "1m 5m 30m 1h 4h 1d 1w"


@pytest.mark.parametrize(
    ("name", "t_ms", "open_ms", "end_ms"),
    [
        ("1m", ms(2024, 2, 29, 23, 59) + 59_999, ms(2024, 2, 29, 23, 59), ms(2024, 3, 1)),
        ("4h", ms(2024, 7, 1, 11, 59), ms(2024, 7, 1, 8), ms(2024, 7, 1, 12)),
        ("1w", ms(2024, 8, 11, 23, 59), ms(2024, 8, 5), ms(2024, 8, 12)),
        ("1w", ms(2024, 12, 31, 12), ms(2024, 12, 30), ms(2025, 1, 6)),
        ("1w", ms(1970, 1, 5), ms(1970, 1, 5), ms(1970, 1, 12)),
        ("3d", ms(1970, 1, 2), ms(1970, 1, 2), ms(1970, 1, 5)),
        ("3d", ms(1970, 1, 4, 23), ms(1970, 1, 2), ms(1970, 1, 5)),
        ("1M", ms(2024, 2, 29, 23, 59), ms(2024, 2), ms(2024, 3)),
        ("1M", ms(2023, 2, 28), ms(2023, 2), ms(2023, 3)),
        ("1M", ms(2100, 2, 28, 23, 59), ms(2100, 2), ms(2100, 3)),
        ("1M", ms(2000, 2, 29), ms(2000, 2), ms(2000, 3)),
        ("1M", ms(2024, 12, 31, 23, 59), ms(2024, 12), ms(2025, 1)),
    ],
)
def test_known_candles(name, t_ms, open_ms, end_ms):
    interval = BY_NAME[name]
    assert interval.open_at(t_ms) == open_ms
    assert interval.next_open(open_ms) == end_ms
    assert interval.is_open(open_ms)
    assert not interval.is_open(t_ms) or t_ms == open_ms


@settings(deadline=None)
@given(instants)
def test_months_follow_the_calendar(t_ms):
    month = BY_NAME["1M"]
    date = date_of(t_ms)
    first = date.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    after = (first + timedelta(days=32)).replace(day=1)
    assert date_of(month.open_at(t_ms)) == first
    assert date_of(month.next_open(month.open_at(t_ms))) == after


def test_every_month_from_1970_to_2200_begins_on_the_first():
    month = BY_NAME["1M"]
    opens = list(month.opens(0, END_OF_TIME_MS))
    assert opens == [ms(year, number) for year in range(1970, 2200) for number in range(1, 13)]


@settings(deadline=None)
@given(instants)
def test_weeks_begin_on_monday(t_ms):
    week = BY_NAME["1w"]
    date = date_of(t_ms)
    monday = (date - timedelta(days=date.weekday())).replace(hour=0, minute=0, second=0, microsecond=0)
    assert date_of(week.open_at(t_ms)) == monday


@settings(deadline=None)
@given(instants)
def test_three_days_are_counted_from_the_second_of_january_1970(t_ms):
    days = (date_of(t_ms).date() - datetime(1970, 1, 2, tzinfo=UTC).date()).days
    assert date_of(BY_NAME["3d"].open_at(t_ms)) == datetime(1970, 1, 2, tzinfo=UTC) + timedelta(days=days // 3 * 3)


@settings(deadline=None)
@given(
    st.sampled_from([interval for interval in INTERVALS if interval.step_ms and interval.step_ms <= DAY_MS]), instants
)
def test_steps_of_a_day_and_less_divide_the_day(interval, t_ms):
    midnight = t_ms // DAY_MS * DAY_MS
    assert DAY_MS % interval.step_ms == 0
    assert interval.open_at(t_ms) == midnight + (t_ms - midnight) // interval.step_ms * interval.step_ms


@settings(deadline=None)
@given(any_interval, instants)
def test_an_instant_lies_in_exactly_one_candle(interval, t_ms):
    open_ms = interval.open_at(t_ms)
    end_ms = interval.next_open(open_ms)
    assert open_ms <= t_ms < end_ms
    assert interval.is_open(open_ms)
    assert interval.is_open(end_ms)
    assert interval.open_at(end_ms - 1) == open_ms
    assert interval.open_at(open_ms - 1) < open_ms


@settings(deadline=None)
@given(any_interval, instants, st.integers(0, 40), st.integers(-1, 1))
def test_opens_are_all_those_in_a_half_open_range(interval, start_ms, candles, nudge_ms):
    end_ms = start_ms
    for _ in range(candles):
        end_ms = interval.next_open(interval.open_at(end_ms))
    end_ms += nudge_ms
    opens = list(interval.opens(start_ms, end_ms))
    assert all(interval.is_open(open_ms) for open_ms in opens)
    assert all(interval.next_open(a) == b for a, b in pairwise(opens))
    if opens:
        assert start_ms <= opens[0]
        assert interval.open_at(opens[0] - 1) < start_ms
        assert opens[-1] < end_ms <= interval.next_open(opens[-1])
    else:
        assert start_ms >= end_ms or interval.open_at(start_ms) == interval.open_at(end_ms - 1) < start_ms


@pytest.mark.parametrize("name", ["1M", "1m", " 1h "])
def test_names_are_read_with_their_case(name):
    assert parse_interval(name).name == name.strip()


@pytest.mark.parametrize("name", ["", "1D", "1H", "2m", "60", "1s", "1mo", "1 m"])
def test_an_unknown_name_is_refused_with_the_known_ones(name):
    with pytest.raises(UsageError) as refusal:
        parse_interval(name)
    message = str(refusal.value)
    assert repr(name) in message
    assert all(known in message.split() for known in BY_NAME)
    assert "\n" not in message


def test_a_list_of_names_becomes_each_once_shortest_first_with_the_minute():
    assert [str(i) for i in parse_intervals(["1M", "1h", "1w", "1h"])] == ["1m", "1h", "1w", "1M"]
    assert parse_intervals([]) == (MINUTE,)
    with pytest.raises(UsageError):
        parse_intervals(["1h", "1y"])


@settings(deadline=None)
@given(any_interval, any_interval, instants)
def test_tiling_means_that_the_opens_of_the_parent_are_opens_of_the_child(child, parent, t_ms):
    if tiles(child, parent):
        assert child.code < parent.code
        open_ms = parent.open_at(t_ms)
        assert child.is_open(open_ms)
        assert child.is_open(parent.next_open(open_ms))


@pytest.mark.parametrize("parent", INTERVALS[1:], ids=str)
def test_what_is_said_not_to_tile_does_not(parent):
    sample = list(parent.opens(ms(2024), ms(2024) + 20 * (parent.step_ms or 31 * DAY_MS)))
    for child in INTERVALS[: parent.code]:
        really = all(child.is_open(open_ms) for open_ms in sample)
        assert tiles(child, parent) == really


@settings(deadline=None)
@given(st.sets(any_interval), any_interval.filter(lambda interval: interval is not MINUTE))
def test_a_candle_is_folded_from_the_longest_kept_interval_that_tiles_it(others, parent):
    kept = others | {MINUTE}
    child = fold_source(parent, kept)
    assert child in kept
    assert tiles(child, parent)
    assert not any(tiles(longer, parent) for longer in kept if longer.code > child.code)


def test_weeks_and_months_are_folded_from_days_never_from_three_days():
    for parent in ("3d", "1w", "1M"):
        assert fold_source(BY_NAME[parent], INTERVALS).name == "1d"
    assert fold_source(BY_NAME["8h"], INTERVALS).name == "4h"
    assert fold_source(BY_NAME["12h"], INTERVALS).name == "6h"


def test_a_minute_is_sixty_seconds():
    assert MINUTE.step_ms == MINUTE_MS == 60_000
