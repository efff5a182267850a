"""Intervals and their calendar: the one table of what an interval is called and where its candles begin.

Every instant is UTC milliseconds since 1970. All intervals but the month are a fixed `step_ms` counted from `anchor_ms`;
a month has `step_ms == MONTH_STEP` and follows the calendar. `open_ms_at` and `next_open_ms` are plain integer arithmetic
so that the engine compiles the very same functions (see `engine.calendar`).

Anchors: weeks begin Monday 00:00 (1970-01-05), `3d` candles are counted from 1970-01-02 (as the exchange does, seen on
spot); everything else from the epoch.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from klagg.errors import UsageError

SECOND_MS: Final = 1_000
MINUTE_MS: Final = 60_000
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 86_400_000

MONTH_STEP: Final = 0
"""The `step_ms` that stands for a calendar month."""


def month_index(t_ms: int) -> int:
    """Months since 1970-01 of an instant (year * 12 + month - 1, less 1970 * 12), by the civil-from-days algorithm.

    Source: the proleptic Gregorian calendar counted in eras of 146,097 days from 0000-03-01.
    """
    days = t_ms // DAY_MS + 719_468
    era = days // 146_097
    day_of_era = days - era * 146_097
    year_of_era = (day_of_era - day_of_era // 1_460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_from_march = (5 * day_of_year + 2) // 153
    return (era * 400 + year_of_era - 1970) * 12 + month_from_march + 2


def month_open_ms(month_index: int) -> int:
    """The first instant of a month counted as `month_index` does."""
    months = month_index + 1970 * 12 - 2
    year = months // 12
    month_from_march = months - year * 12
    era = year // 400
    year_of_era = year - era * 400
    day_of_year = (153 * month_from_march + 2) // 5
    day_of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year
    return (era * 146_097 + day_of_era - 719_468) * DAY_MS


def open_ms_at(t_ms: int, step_ms: int, anchor_ms: int) -> int:
    """The open of the candle that contains `t_ms`."""
    if step_ms == MONTH_STEP:
        return month_open_ms(month_index(t_ms))
    return t_ms - (t_ms - anchor_ms) % step_ms


def next_open_ms(open_ms: int, step_ms: int) -> int:
    """The end of the candle that opens at `open_ms`, which is the open of the next one."""
    if step_ms == MONTH_STEP:
        return month_open_ms(month_index(open_ms) + 1)
    return open_ms + step_ms


@dataclass(frozen=True, slots=True)
class Interval:
    """One interval: its name as the exchange writes it, its step and its anchor.

    `code` is its stable number in the database (never renumber); it rises with the length.
    """

    name: str
    code: int
    step_ms: int
    anchor_ms: int = 0

    def open_at(self, t_ms: int) -> int:
        """The open of the candle that contains `t_ms`."""
        return open_ms_at(t_ms, self.step_ms, self.anchor_ms)

    def next_open(self, open_ms: int) -> int:
        """The end (exclusive) of the candle that opens at `open_ms`."""
        return next_open_ms(open_ms, self.step_ms)

    def is_open(self, t_ms: int) -> bool:
        """Whether a candle of this interval opens exactly at `t_ms`."""
        return self.open_at(t_ms) == t_ms

    def opens(self, start_ms: int, end_ms: int) -> Iterator[int]:
        """The opens in `[start_ms, end_ms)`, ascending."""
        open_ms = self.open_at(start_ms)
        if open_ms < start_ms:
            open_ms = self.next_open(open_ms)
        while open_ms < end_ms:
            yield open_ms
            open_ms = self.next_open(open_ms)

    def __str__(self) -> str:
        return self.name


INTERVALS: Final[tuple[Interval, ...]] = (
    Interval("1m", 0, MINUTE_MS),
    Interval("3m", 1, 3 * MINUTE_MS),
    Interval("5m", 2, 5 * MINUTE_MS),
    Interval("15m", 3, 15 * MINUTE_MS),
    Interval("30m", 4, 30 * MINUTE_MS),
    Interval("1h", 5, HOUR_MS),
    Interval("2h", 6, 2 * HOUR_MS),
    Interval("4h", 7, 4 * HOUR_MS),
    Interval("6h", 8, 6 * HOUR_MS),
    Interval("8h", 9, 8 * HOUR_MS),
    Interval("12h", 10, 12 * HOUR_MS),
    Interval("1d", 11, DAY_MS),
    Interval("3d", 12, 3 * DAY_MS, anchor_ms=DAY_MS),
    Interval("1w", 13, 7 * DAY_MS, anchor_ms=4 * DAY_MS),
    Interval("1M", 14, MONTH_STEP),
)
"""Every interval klagg knows, shortest first; the position is the interval's `code`."""

BY_NAME: Final = {interval.name: interval for interval in INTERVALS}
MINUTE: Final = BY_NAME["1m"]
DEFAULT_INTERVALS: Final = tuple(BY_NAME[name] for name in ("1m", "5m", "30m", "1h", "4h", "1d", "1w"))


def parse_interval(name: str) -> Interval:
    """The interval of that name (case matters: `1M` is a month).

    Raises:
        UsageError: it is none of the known ones, which the message lists.
    """
    interval = BY_NAME.get(name.strip())
    if interval is None:
        known = " ".join(BY_NAME)
        raise UsageError(f"unknown interval {name!r}: use one of {known} (1m is a minute, 1M a month)")
    return interval


def parse_intervals(names: Iterable[str]) -> tuple[Interval, ...]:
    """The intervals of those names, each once, shortest first, `1m` always among them.

    Raises:
        UsageError: one of them is unknown.
    """
    chosen = {parse_interval(name).code for name in names} | {MINUTE.code}
    return tuple(INTERVALS[code] for code in sorted(chosen))


def tiles(child: Interval, parent: Interval) -> bool:
    """Whether candles of `child` tile every candle of `parent` exactly (so that one can be folded from the other)."""
    if child.code >= parent.code:
        return False
    if parent.step_ms == MONTH_STEP:
        return child.step_ms <= DAY_MS and DAY_MS % child.step_ms == 0
    return parent.step_ms % child.step_ms == 0 and (parent.anchor_ms - child.anchor_ms) % child.step_ms == 0


def fold_source(parent: Interval, kept: Iterable[Interval]) -> Interval:
    """The longest of the kept intervals that tiles `parent`: what its candles are folded from, cheapest first."""
    return max((child for child in kept if tiles(child, parent)), key=lambda child: child.code)
