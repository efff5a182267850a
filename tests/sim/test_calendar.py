from hypothesis import given
from hypothesis import strategies as st

from klagg import interval
from klagg.sim import calendar

TIMES = st.integers(0, 4_000_000_000_000)
NAMES = st.sampled_from(sorted(interval.BY_NAME))


@given(TIMES, NAMES)
def test_both_calendars_agree(t_ms: int, name: str):
    ours = interval.BY_NAME[name]
    open_ms = calendar.open_at(name, t_ms)
    assert open_ms == ours.open_at(t_ms)
    assert calendar.next_open(name, open_ms) == ours.next_open(open_ms)


@given(TIMES, NAMES)
def test_opens_are_the_same_from_both_ends(t_ms: int, name: str):
    end_ms = calendar.next_open(name, calendar.next_open(name, t_ms)) + 1
    forward = list(calendar.opens_from(name, t_ms, end_ms))
    assert forward == list(calendar.opens_before(name, end_ms, t_ms))[::-1]
    assert all(calendar.open_at(name, open_ms) == open_ms for open_ms in forward)


def test_a_time_zone_moves_days_and_months():
    eight = 8 * calendar.HOUR_MS
    assert calendar.open_at("1d", 1_795_521_630_000, eight) == 1_795_449_600_000  # 2026-11-23 16:00 UTC
    assert calendar.open_at("1M", 1_795_521_630_000, eight) == 1_793_462_400_000  # 2026-10-31 16:00 UTC
