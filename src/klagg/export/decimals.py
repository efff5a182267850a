"""Columns of decimals, whole columns at a time: 128-bit integers at one scale, floats, and plain text.

A value is `(hi * 10^18 + lo) / 10^scale`, with a scale a row (see `klagg.fixed`). Rows of one scale are computed together by
whole words; what that cannot hold (negative numbers, more than 37 digits, more than 18 decimal places) goes row by row through
Python's integers, which are exact.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from klagg import fixed
from klagg.fixed import WORD
from klagg.model import Ints

Words = npt.NDArray[np.uint64]

DIGITS: Final = 38
SCALE: Final = 18
"""`decimal128(38, 18)` for every symbol: readers of many files at once give wrong numbers where scales differ."""
TYPE: Final = pa.decimal128(DIGITS, SCALE)
_LIMIT: Final = 10**DIGITS
_SAFE: Final = 9.9e37
"""Below this a value computed in floating point is below `_LIMIT` for certain."""
_EXACT_FLOATS: Final = 1 << 53
_EXACT_POWERS: Final = 22
"""A quotient of integers up to 2^53 by powers of ten up to 10^22 is the nearest float: both are floats themselves."""
_LOW: Final = np.uint64(0xFFFF_FFFF)
_HALF: Final = np.uint64(32)


class Unfit(Exception):
    """A value that `decimal128(38, 18)` cannot hold: which row it is."""

    def __init__(self, row: int) -> None:
        super().__init__(row)
        self.row = row


@dataclass(frozen=True, slots=True, eq=False)
class Decimals:
    """A column of decimals as two words (`hi` None where all are 0) and a scale a row."""

    hi: Ints | None
    lo: Ints
    scales: Ints

    def mantissa(self, row: int) -> int:
        """The whole number of one row."""
        return int(self.lo[row]) + (0 if self.hi is None else int(self.hi[row]) * WORD)

    def text(self, row: int) -> str:
        """One row as a plain decimal."""
        return fixed.to_text(self.mantissa(row), int(self.scales[row]))

    def scale(self) -> int | None:
        """The scale where all rows have the same; None where they differ."""
        first = int(self.scales[0]) if len(self.scales) else 0
        return first if bool((self.scales == first).all()) else None


def as_decimal128(column: Decimals) -> pa.Array:
    """The column as `TYPE`.

    Raises:
        Unfit: a value does not fit; the first such row.

    """
    words = np.zeros((len(column.lo), 2), np.uint64)
    slow = np.zeros(len(column.lo), np.bool_)
    for scale in np.unique(column.scales).tolist():
        rows = column.scales == scale
        if scale > SCALE:
            slow |= rows
            continue
        hi = None if column.hi is None else column.hi[rows]
        words[rows], slow[rows] = _scaled(hi, column.lo[rows], 10 ** (SCALE - scale))
    for row in np.flatnonzero(slow).tolist():
        words[row] = np.frombuffer(_scaled_exactly(column, row), np.uint64)
    return pa.Array.from_buffers(TYPE, len(words), [None, pa.py_buffer(words)])


def _scaled(hi: Ints | None, lo: Ints, factor: int) -> tuple[Words, npt.NDArray[np.bool_]]:
    """Low and high words of the products, and which rows they may be wrong of."""
    estimate = lo.astype(np.float64) * factor
    odd = lo < 0
    out = np.empty((len(lo), 2), np.uint64)
    out[:, 1], out[:, 0] = _product(lo.view(np.uint64), np.uint64(factor))
    if hi is not None and bool(hi.any()):
        estimate += hi * float(WORD) * factor
        odd |= hi < 0
        upper, lower = _product(hi.view(np.uint64), np.uint64(factor))
        more, low = _product(lower, np.uint64(WORD))
        out[:, 0] += low
        out[:, 1] += more + upper * np.uint64(WORD) + (out[:, 0] < low)
    return out, odd | (estimate >= _SAFE)


def _product(left: Words, right: np.uint64) -> tuple[Words, Words]:
    """High and low words of 64-bit products, by halves of 32 bits."""
    a, b = left >> _HALF, left & _LOW
    c, d = right >> _HALF, right & _LOW
    low = b * d
    middle = a * d + (low >> _HALF)
    other = b * c + (middle & _LOW)
    return a * c + (middle >> _HALF) + (other >> _HALF), left * right


def _scaled_exactly(column: Decimals, row: int) -> bytes:
    scale = int(column.scales[row])
    shift: int = 10 ** abs(SCALE - scale)
    value, rest = divmod(column.mantissa(row), shift) if scale > SCALE else (column.mantissa(row) * shift, 0)
    if rest or abs(value) >= _LIMIT:
        raise Unfit(row)
    return value.to_bytes(16, "little", signed=True)


def as_float64(column: Decimals) -> npt.NDArray[np.float64]:
    """The column as the nearest floats: each is what `float` makes of its text."""
    exact = (column.lo >= 0) & (column.lo <= _EXACT_FLOATS) & (column.scales <= _EXACT_POWERS)
    if column.hi is not None:
        exact &= column.hi == 0
    values: npt.NDArray[np.float64] = column.lo / (10.0 ** np.minimum(column.scales, _EXACT_POWERS))
    for row in np.flatnonzero(~exact).tolist():
        # Of integers Python's quotient is the nearest float.
        values[row] = column.mantissa(row) / 10 ** int(column.scales[row])
    return values


def as_text(column: Decimals) -> pa.Array:
    """The column as plain decimals, each with the digits of its scale."""
    scale = column.scale()
    if scale is None or bool((column.lo < 0).any()):
        return pa.array([column.text(row) for row in range(len(column.lo))], pa.string())
    digits: Any = pc.cast(pa.array(column.lo), pa.string())
    if column.hi is not None and bool(column.hi.any()):
        long = pc.binary_join_element_wise(
            pc.cast(pa.array(column.hi), pa.string()), pc.ascii_lpad(digits, 18, "0"), ""
        )
        digits = pc.if_else(pa.array(column.hi > 0), long, digits)
    if scale == 0:
        return digits
    digits = pc.ascii_lpad(digits, scale + 1, "0")
    # Digits are ASCII: by bytes is by characters.
    return pc.binary_replace_slice(digits, -scale, -scale, ".")
