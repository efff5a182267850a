"""Exact decimals, against `decimal.Decimal`."""

from decimal import Decimal, localcontext

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from klagg import fixed
from klagg.errors import NumberError

digits = st.text("0123456789", min_size=1, max_size=24)
plain = st.builds(
    lambda sign, whole, point, fraction: f"{sign}{whole}{point}{fraction if point else ''}",
    st.sampled_from(["", "+", "-"]),
    digits,
    st.sampled_from(["", "."]),
    st.text("0123456789", max_size=24),
)
mantissas = st.integers(-(fixed.MANTISSA_LIMIT - 1), fixed.MANTISSA_LIMIT - 1)
scales = st.integers(0, fixed.MAX_SCALE)
NOT_PLAIN = [
    "", " ", "-", ".", ".5", "1e5", "1E-7", "nan", "NaN", "inf", "-Infinity", " 1", "1 ", "1\n", "1,5", "0x10", "1_000",
    "--1", "1.2.3", "\u0661\u0662", "\uff11.5", "1.\u0662",
]  # fmt: skip


def exactly(mantissa, scale):
    with localcontext() as context:
        context.prec = 60
        return Decimal(mantissa).scaleb(-scale)


@settings(deadline=None)
@given(plain)
@example("000000000000000000000001.5")
@example("1.000000000000000000000000")
@example("-0.0")
@example("999999999999999999")
@example("0.000000000000000001")
def test_a_plain_decimal_is_read_exactly_with_as_few_digits_as_it_needs_or_refused(text):
    number = Decimal(text)
    with localcontext() as context:
        context.prec = 60
        fewest = max(0, -int(number.normalize().as_tuple().exponent)) if number else 0
    if fewest > fixed.MAX_SCALE or abs(int(number.scaleb(fewest))) >= fixed.MANTISSA_LIMIT:
        with pytest.raises(NumberError):
            fixed.parse(text)
        return
    mantissa, scale = fixed.parse(text)
    assert exactly(mantissa, scale) == number
    assert scale == fewest == fixed.digits_of(text)


@pytest.mark.parametrize("text", NOT_PLAIN)
def test_what_is_no_plain_decimal_is_refused(text):
    with pytest.raises(NumberError):
        fixed.parse(text)
    with pytest.raises(NumberError):
        fixed.parse_at(text, 8)


@pytest.mark.parametrize("text", ["9" * 5_000, "0." + "3" * 5_000])
def test_a_number_of_absurd_length_is_refused_in_one_short_line(text):
    with pytest.raises(NumberError) as refusal:
        fixed.parse(text)
    assert len(str(refusal.value)) < 200
    with pytest.raises(NumberError) as refusal:
        fixed.parse_at(text, 8)
    assert len(str(refusal.value)) < 200


@settings(deadline=None)
@given(plain, scales)
def test_reading_at_a_scale_is_exact_or_refused(text, scale):
    number = Decimal(text)
    if fixed.digits_of(text) > scale:
        with pytest.raises(NumberError, match=f"scale {scale}"):
            fixed.parse_at(text, scale)
    else:
        assert exactly(fixed.parse_at(text, scale), scale) == number


@settings(deadline=None)
@given(st.integers(-(10**37), 10**37), scales)
def test_text_has_exactly_the_scales_digits_and_reads_back(mantissa, scale):
    text = fixed.to_text(mantissa, scale)
    assert Decimal(text) == exactly(mantissa, scale)
    assert len(text.partition(".")[2]) == scale
    assert fixed.parse_at(text, scale) == mantissa
    assert "e" not in text.lower()


@pytest.mark.parametrize(
    ("mantissa", "scale", "text"),
    [(0, 0, "0"), (0, 2, "0.00"), (5, 2, "0.05"), (-5, 2, "-0.05"), (5894201, 2, "58942.01"), (-7, 0, "-7")],
)
def test_how_numbers_are_written(mantissa, scale, text):
    assert fixed.to_text(mantissa, scale) == text


@settings(deadline=None)
@given(st.integers(0, 2**63 * fixed.WORD - 1))
def test_two_words_hold_a_sum(value):
    hi, lo = fixed.split(value)
    assert 0 <= lo < fixed.WORD
    assert 0 <= hi < 2**63
    assert fixed.join(hi, lo) == value


@settings(deadline=None)
@given(mantissas, scales, scales)
def test_another_scale_is_the_same_number_or_refused(mantissa, from_scale, to_scale):
    number = exactly(mantissa, from_scale)
    fits = fixed.digits_of(fixed.to_text(mantissa, from_scale)) <= to_scale if from_scale else True
    if fits:
        assert exactly(fixed.rescale(mantissa, from_scale, to_scale), to_scale) == number
    else:
        with pytest.raises(NumberError):
            fixed.rescale(mantissa, from_scale, to_scale)


def test_powers_of_ten():
    assert list(fixed.POW10) == [10**n for n in range(19)]
