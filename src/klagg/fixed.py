"""Exact decimals: integers at a scale, from the wire to the database, never through a float.

A *mantissa* at a *scale* is the number `mantissa / 10**scale`. Trailing zeros add no digits: `"58942.0100"` is `5894201`
at scale 2. A mantissa is below `MANTISSA_LIMIT` (10^18), so that it fits 63 bits and its product with another can be
built from halves of nine digits.

Sums (volumes) are held in *two words* of base 10^18: `hi * 10**18 + lo` with `0 <= lo < 10**18`. The base is decimal so
that a person with a database shell can read them.
"""

import re
from typing import Final

from klagg.errors import NumberError

MAX_SCALE: Final = 18
"""The most fractional digits one number may have."""
WORD: Final = 10**18
"""The base of two-word sums."""
MANTISSA_LIMIT: Final = 10**18
"""Mantissas are below this."""
POW10: Final = tuple(10**n for n in range(MAX_SCALE + 1))

_MAX_DIGITS: Final = 100
"""Two words hold 37 digits; a text with more than this is refused before `int` is asked, which raises its own error."""
_PLAIN_DECIMAL: Final = re.compile(r"([+-]?)(\d+)(?:\.(\d*))?", re.ASCII)


def parse(text: str) -> tuple[int, int]:
    """The mantissa and the scale of a plain decimal, with as few digits as it needs.

    Raises:
        NumberError: not a plain decimal (no exponent, no blanks), or more digits than can be held.
    """
    match = _PLAIN_DECIMAL.fullmatch(text)
    if match is None:
        raise NumberError(f"{text[:40]!r} is not a plain decimal number")
    sign, whole, fraction = match.groups()
    fraction = (fraction or "").rstrip("0")
    if len(fraction) > MAX_SCALE:
        raise NumberError(f"{text[:40]!r} has {len(fraction)} decimal places, more than {MAX_SCALE}")
    digits = (whole + fraction).lstrip("0") or "0"
    if len(digits) > MAX_SCALE:
        raise NumberError(f"{text[:40]!r} has more than {MAX_SCALE} digits")
    mantissa = int(digits)
    return (-mantissa if sign == "-" else mantissa), len(fraction)


def parse_at(text: str, scale: int) -> int:
    """The mantissa of a plain decimal at `scale`; it may be of any size (use `split` for two words).

    Raises:
        NumberError: not a plain decimal, or it has more digits than `scale` holds.
    """
    match = _PLAIN_DECIMAL.fullmatch(text)
    if match is None:
        raise NumberError(f"{text[:40]!r} is not a plain decimal number")
    sign, whole, fraction = match.groups()
    fraction = (fraction or "").rstrip("0")
    if len(fraction) > scale:
        raise NumberError(f"{text[:40]!r} has {len(fraction)} decimal places, more than the scale {scale}")
    digits: str = (whole + fraction.ljust(scale, "0")).lstrip("0") or "0"
    if len(digits) > _MAX_DIGITS:
        raise NumberError(f"{text[:40]!r} has {len(digits)} digits, more than any sum has")
    mantissa = int(digits)
    return -mantissa if sign == "-" else mantissa


def digits_of(text: str) -> int:
    """How many fractional digits a plain decimal needs (trailing zeros add none)."""
    _, _, fraction = text.partition(".")
    return len(fraction.rstrip("0"))


def to_text(mantissa: int, scale: int) -> str:
    """The plain decimal of a mantissa, with exactly `scale` fractional digits."""
    if scale == 0:
        return str(mantissa)
    sign, digits = ("-", str(-mantissa)) if mantissa < 0 else ("", str(mantissa))
    digits = digits.rjust(scale + 1, "0")
    return f"{sign}{digits[:-scale]}.{digits[-scale:]}"


def join(hi: int, lo: int) -> int:
    """The whole value of two words."""
    return hi * WORD + lo


def split(value: int) -> tuple[int, int]:
    """The two words of a value that is not negative."""
    assert value >= 0
    return divmod(value, WORD)


def rescale(mantissa: int, from_scale: int, to_scale: int) -> int:
    """The same number at another scale.

    Raises:
        NumberError: the narrower scale would lose digits.
    """
    factor: int = 10 ** abs(to_scale - from_scale)
    if to_scale >= from_scale:
        return mantissa * factor
    quotient, remainder = divmod(mantissa, factor)
    if remainder:
        raise NumberError(f"{to_text(mantissa, from_scale)} does not fit {to_scale} decimal places")
    return quotient
