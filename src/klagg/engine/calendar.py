"""The calendar of `klagg.interval`, compiled."""

from typing import Any

from klagg.engine.jit import kernel
from klagg.interval import month_index, month_open_ms

_month_index = kernel(month_index)
_month_open_ms = kernel(month_open_ms)


@kernel
def open_ms_at(t_ms: int, step_ms: int, anchor_ms: int) -> Any:
    """`klagg.interval.open_ms_at`."""
    if step_ms == 0:
        return _month_open_ms(_month_index(t_ms))
    return t_ms - (t_ms - anchor_ms) % step_ms


@kernel
def next_open_ms(open_ms: int, step_ms: int) -> Any:
    """`klagg.interval.next_open_ms`."""
    if step_ms == 0:
        return _month_open_ms(_month_index(open_ms) + 1)
    return open_ms + step_ms


@kernel
def find_due(boundary_ms: int, calendar: Any, due: Any) -> int:
    """The positions of the longer intervals of which a candle ends at `boundary_ms`, into `due`; returns how many.

    `calendar`: int64[intervals, 2] of step and anchor, `1m` first. Found by flooring the boundary, never by a remainder of now.
    """
    count = 0
    for k in range(1, calendar.shape[0]):
        if open_ms_at(boundary_ms, calendar[k, 0], calendar[k, 1]) == boundary_ms:
            due[count] = k
            count += 1
    return count
