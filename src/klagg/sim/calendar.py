"""The exchange's candle calendar, written apart from `klagg.interval` so that one can witness the other."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

SECOND_MS: Final = 1_000
MINUTE_MS: Final = 60_000
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 86_400_000

STEPS: Final = {
    "1s": SECOND_MS,
    "1m": MINUTE_MS,
    "3m": 3 * MINUTE_MS,
    "5m": 5 * MINUTE_MS,
    "15m": 15 * MINUTE_MS,
    "30m": 30 * MINUTE_MS,
    "1h": HOUR_MS,
    "2h": 2 * HOUR_MS,
    "4h": 4 * HOUR_MS,
    "6h": 6 * HOUR_MS,
    "8h": 8 * HOUR_MS,
    "12h": 12 * HOUR_MS,
    "1d": DAY_MS,
    "3d": 3 * DAY_MS,
    "1w": 7 * DAY_MS,
    "1M": 0,
}
"""Every interval with its length; a month has none. `1s` exists on spot only."""

_ANCHORS: Final = {"3d": DAY_MS, "1w": 4 * DAY_MS}


def _month_at(t_ms: int, months_on: int = 0) -> int:
    day = datetime.fromtimestamp(t_ms // 1000, UTC)
    months = day.year * 12 + day.month - 1 + months_on
    return int(datetime(months // 12, months % 12 + 1, 1, tzinfo=UTC).timestamp()) * 1000


def open_at(name: str, t_ms: int, shift_ms: int = 0) -> int:
    """The open of the candle that contains an instant; `shift_ms` is the time zone's offset east of UTC."""
    local = t_ms + shift_ms
    if name == "1M":
        return _month_at(local) - shift_ms
    return local - (local - _ANCHORS.get(name, 0)) % STEPS[name] - shift_ms


def next_open(name: str, open_ms: int, shift_ms: int = 0) -> int:
    """The end (exclusive) of the candle that opens at `open_ms`."""
    if name == "1M":
        return _month_at(open_ms + shift_ms, 1) - shift_ms
    return open_ms + STEPS[name]


def opens_from(name: str, start_ms: int, end_ms: int, shift_ms: int = 0) -> Iterator[int]:
    """The opens in `[start_ms, end_ms)`, ascending."""
    open_ms = open_at(name, start_ms, shift_ms)
    if open_ms < start_ms:
        open_ms = next_open(name, open_ms, shift_ms)
    while open_ms < end_ms:
        yield open_ms
        open_ms = next_open(name, open_ms, shift_ms)


def opens_before(name: str, end_ms: int, start_ms: int, shift_ms: int = 0) -> Iterator[int]:
    """The opens in `[start_ms, end_ms)`, descending."""
    open_ms = open_at(name, end_ms - 1, shift_ms)
    while open_ms >= start_ms:
        yield open_ms
        open_ms = open_at(name, open_ms - 1, shift_ms)
