"""Columns of decimals: each value is what Python's own integers and `Decimal` say, whatever its size and scale."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from klagg.export.decimals import Decimals, Unfit, as_decimal128, as_float64, as_text
from klagg.fixed import WORD

VALUES = st.integers(0, WORD * WORD - 1) | st.integers(0, 10**12) | st.integers(0, 10**20)
ROWS = st.lists(st.tuples(VALUES, st.integers(0, 36)), min_size=1, max_size=8)
ALIKE = st.tuples(st.lists(VALUES, min_size=1, max_size=8), st.integers(0, 18)).map(
    lambda drawn: [(value, drawn[1]) for value in drawn[0]]
)


def column(rows: list[tuple[int, int]]) -> Decimals:
    hi, lo = (np.array(words, np.int64) for words in zip(*(divmod(value, WORD) for value, _ in rows), strict=True))
    return Decimals(hi, lo, np.array([scale for _, scale in rows], np.int64))


def exact(value: int, scale: int) -> Decimal:
    return Decimal((0, tuple(map(int, str(value))), -scale))


@given(ROWS | ALIKE)
@example([(10**38 // 10**18 - 1, 0), (10**20 - 1, 0)])
@example([(WORD * WORD - 1, 18), (WORD * WORD - 1, 0)])
def test_decimal128(rows: list[tuple[int, int]]) -> None:
    scaled = [Fraction(value, 10**scale) * 10**18 for value, scale in rows]
    unfit = [row for row, value in enumerate(scaled) if value.denominator != 1 or value >= 10**38]
    if unfit:
        with pytest.raises(Unfit) as raised:
            as_decimal128(column(rows))
        assert raised.value.row == unfit[0]
        return
    array = as_decimal128(column(rows))
    array.validate(full=True)
    assert array.type == pa.decimal128(38, 18)
    # Arrow's own conversion of its integers, by Python's `Decimal`.
    assert [Fraction(value) for value in array.to_pylist()] == [value / 10**18 for value in scaled]


@given(ROWS | ALIKE)
@example([(9_007_199_254_740_993, 1), ((1 << 53) + 1, 22), (1, 36)])
def test_float64_is_what_float_makes_of_the_text(rows: list[tuple[int, int]]) -> None:
    assert as_float64(column(rows)).tolist() == [float(str(exact(*row))) for row in rows]


@given(ROWS | ALIKE)
def test_text_has_the_digits_of_the_scale(rows: list[tuple[int, int]]) -> None:
    assert as_text(column(rows)).to_pylist() == [f"{exact(*row):f}" for row in rows]


def test_negative_numbers_are_exact_too() -> None:
    below = Decimals(None, np.array([-123, 5], np.int64), np.array([2, 2], np.int64))
    assert as_decimal128(below).to_pylist() == [Decimal("-1.23"), Decimal("0.05")]
    assert as_float64(below).tolist() == [-1.23, 0.05]
    assert as_text(below).to_pylist() == ["-1.23", "0.05"]


def test_nothing_is_nothing() -> None:
    none = Decimals(None, np.zeros(0, np.int64), np.zeros(0, np.int64))
    assert len(as_decimal128(none)) == len(as_float64(none)) == len(as_text(none)) == 0
