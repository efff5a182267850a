"""Between candles as arrays and candles as rows of the database."""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from klagg.interval import INTERVALS, MONTH_STEP
from klagg.model import Candles, Flag, Ints, no_candles
from klagg.store.schema import SERIES_INTERVALS, VALUES

Mask = npt.NDArray[np.bool_]

_STEPS: Final = np.array([interval.step_ms for interval in INTERVALS], np.int64)
_ANCHORS: Final = np.array([interval.anchor_ms for interval in INTERVALS], np.int64)


def series_of(instrument_ids: Ints, candles: Candles) -> Ints:
    """The series of each candle."""
    series: Ints = np.asarray(instrument_ids, np.int64) * SERIES_INTERVALS + candles["interval"]
    return series


def is_closed(candles: Candles) -> Mask:
    """Which candles carry `Flag.CLOSED`."""
    mask: Mask = (candles["flags"] & Flag.CLOSED.value) != 0
    return mask


def is_verified(candles: Candles) -> Mask:
    """Which candles carry `Flag.VERIFIED`."""
    mask: Mask = (candles["flags"] & Flag.VERIFIED.value) != 0
    return mask


def is_amended(candles: Candles) -> Mask:
    """Which candles carry `Flag.AMENDED`."""
    mask: Mask = (candles["flags"] & Flag.AMENDED.value) != 0
    return mask


def _months(t_ms: Ints) -> npt.NDArray[np.datetime64]:
    return t_ms.astype("datetime64[ms]").astype("datetime64[M]")


def end_ms(candles: Candles) -> Ints:
    """The end (exclusive) of each candle: the open of the next one."""
    opens, steps = candles["open_ms"], _STEPS[candles["interval"]]
    ends: Ints = opens + steps
    monthly = steps == MONTH_STEP
    if monthly.any():
        ends[monthly] = (_months(opens[monthly]) + 1).astype("datetime64[ms]").astype(np.int64)
    return ends


def is_aligned(candles: Candles) -> Mask:
    """Which candles open where their interval's candles open."""
    opens, codes = candles["open_ms"], candles["interval"]
    steps = _STEPS[codes]
    aligned: Mask = (opens - _ANCHORS[codes]) % np.maximum(steps, 1) == 0
    monthly = steps == MONTH_STEP
    if monthly.any():
        aligned[monthly] = _months(opens[monthly]).astype("datetime64[ms]").astype(np.int64) == opens[monthly]
    return aligned


def row_values(candles: Candles) -> Iterator[tuple[Any, ...]]:
    """`open_ms` and `VALUES` of each candle, as a row's parameters."""
    return zip(candles["open_ms"].tolist(), *(candles[name].tolist() for name in VALUES), strict=True)


def closed_rows(series: Ints, candles: Candles, known_ms: Ints, leave: Ints) -> Iterator[tuple[Any, ...]]:
    """The parameters of `guard.UPSERT`: key, values, source, verified, when known, the row's number, the writer's leave."""
    return zip(
        series.tolist(),
        candles["open_ms"].tolist(),
        *(candles[name].tolist() for name in VALUES),
        candles["source"].tolist(),
        is_verified(candles).tolist(),
        known_ms.tolist(),
        range(len(candles)),
        leave.tolist(),
        strict=True,
    )


def integers(rows: Iterable[tuple[int, ...]], width: int) -> Ints:
    """Rows of `width` integers as one array [n, width], without a list of them in between."""
    return np.fromiter(chain.from_iterable(rows), np.int64).reshape(-1, width)


SMALL_COLUMNS: Final = ("price_scale", "qty_scale", "origin")
"""The columns that are one byte in `CANDLE`."""
READ_COLUMNS: Final = ", ".join(("open_ms", *VALUES, "verified", "source"))
READ_WIDTH: Final = len(VALUES) + 3


def candles_of(table: Ints, interval_codes: Ints | int, *, closed: bool) -> Candles:
    """The candles of rows read as `open_ms, *VALUES, verified, source` (open ones have neither of the last two).

    A small column that does not fit a byte is 255, which no scale and no origin is.
    """
    candles = no_candles(len(table))
    candles["interval"] = interval_codes
    candles["open_ms"] = table[:, 0]
    for column, name in enumerate(VALUES, 1):
        values = table[:, column]
        if name in SMALL_COLUMNS:
            values = np.where((values < 0) | (values > 255), 255, values)
        candles[name] = values
    if closed:
        verified = table[:, len(VALUES) + 1] != 0
        candles["flags"] = Flag.CLOSED.value | np.where(verified, Flag.VERIFIED.value, 0)
        candles["source"] = table[:, len(VALUES) + 2]
    return candles
