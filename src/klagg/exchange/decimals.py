"""Columns of decimal text to columns of integers, exactly; the fast twin of `klagg.fixed.parse`."""

from collections.abc import Sequence

from klagg.errors import NumberError
from klagg.fixed import MANTISSA_LIMIT, MAX_SCALE, POW10, parse, parse_at


def mantissa_and_scale(text: str) -> tuple[int, int]:
    """The mantissa and the scale of a decimal that is not negative, with as few digits as it needs.

    Equal to `klagg.fixed.parse` wherever that gives a number that is not negative; faster, since nearly all text is plain.

    Raises:
        NumberError: not a plain decimal, negative, or more digits than can be held.
    """
    whole, point, fraction = text.partition(".")
    if point:
        fraction = fraction.rstrip("0")
    digits = whole + fraction
    if not (digits.isascii() and digits.isdigit() and whole) or len(digits) > MAX_SCALE:
        # The slow way knows leading zeros and says what is wrong.
        mantissa, scale = parse(text)
        if mantissa < 0:
            raise NumberError(f"{text[:40]!r} is negative")
        return mantissa, scale
    return int(digits), len(fraction)


def digits_needed(texts: Sequence[str]) -> int:
    """The most fractional digits that one of them needs."""
    most = 0
    for text in texts:
        _, _, fraction = text.partition(".")
        if len(fraction) > most:
            most = max(most, len(fraction.rstrip("0")))
    return most


def price_at(text: str, scale: int) -> int:
    """The mantissa of a price at `scale`.

    Raises:
        NumberError: not a plain decimal, negative, too many digits for the scale or for a mantissa.
    """
    mantissa, own_scale = mantissa_and_scale(text)
    if own_scale > scale:
        raise NumberError(f"{text[:40]!r} has {own_scale} decimal places, more than the scale {scale}")
    widened: int = mantissa * POW10[scale - own_scale]
    if widened >= MANTISSA_LIMIT:
        raise NumberError(f"{text[:40]!r} has more than {MAX_SCALE} digits at scale {scale}")
    return widened


def sum_at(text: str, scale: int) -> int:
    """The value of a volume at `scale`, of up to two words.

    Raises:
        NumberError: not a plain decimal, negative, too many digits for the scale or for two words.
    """
    whole, _, fraction = text.partition(".")
    fraction = fraction.rstrip("0")
    digits = whole + fraction
    if digits.isascii() and digits.isdigit() and whole and len(fraction) <= scale:
        value = int(digits) * 10 ** (scale - len(fraction)) if len(digits) <= 40 else -1
    else:
        value = parse_at(text, scale)
    if not 0 <= value < MANTISSA_LIMIT * MANTISSA_LIMIT:
        raise NumberError(f"{text[:40]!r} is negative or has more digits than two words hold at scale {scale}")
    return value
