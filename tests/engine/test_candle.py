"""Arithmetic on two words, against Python's own integers."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from klagg.engine.candle import product
from klagg.fixed import WORD

mantissas = st.one_of(
    st.integers(0, WORD - 1),
    st.builds(lambda power, near: max(0, 10**power + near), st.integers(0, 17), st.integers(-2, 2)),
)


@settings(deadline=None)  # the first call compiles
@given(mantissas, mantissas)
@example(WORD - 1, WORD - 1)
@example(10**9, 10**9)
@example(10**16 - 1, 10**16 + 1)
@example(999_999_999_999_999, 100_000_000_000_000_001)
def test_a_product_is_exact_in_two_words(a: int, b: int) -> None:
    assert product(a, b) == divmod(a * b, WORD)


@settings(deadline=None)  # the first call compiles
@given(st.integers(1, 10**14), st.integers(1, 10**17), st.integers(-2, 2))
def test_a_product_is_exact_next_to_a_whole_high_word(hi: int, a: int, near: int) -> None:
    """Where an estimate of the high word is most easily one off."""
    b = hi * WORD // a + near
    if 0 <= b < WORD:
        assert product(a, b) == divmod(a * b, WORD)
