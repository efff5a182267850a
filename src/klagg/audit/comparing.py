"""Two candles as exact decimals, whatever scales they are written at. Pure."""

from typing import Final

import numpy as np
import numpy.typing as npt

from klagg import fixed
from klagg.model import Candles, Ints

Mask = npt.NDArray[np.bool_]

_POW10: Final = np.array(fixed.POW10, np.int64)
_PRICES: Final = ("open", "high", "low", "close")
_SUMS: Final = {  # people's name: ours, and whether it is in the quote asset
    "volume": ("volume", False),
    "quote_volume": ("quote", True),
    "taker_buy_volume": ("taker_volume", False),
    "taker_buy_quote_volume": ("taker_quote", True),
}


def differing(ours: Candles, theirs: Candles) -> Mask:
    """Where candles of the same opens differ in a number that a kline has."""
    by_price = theirs["price_scale"].astype(np.int64) - ours["price_scale"]
    by_qty = theirs["qty_scale"].astype(np.int64) - ours["qty_scale"]
    differ: Mask = ours["trades"] != theirs["trades"]
    plain: Mask = np.ones(len(ours), np.bool_)
    for name in _PRICES:
        _note(differ, plain, ours[name], theirs[name], by_price)
    for column, in_quote in _SUMS.values():
        hi, lo = f"{column}_hi", f"{column}_lo"
        digits = by_qty + by_price if in_quote else by_qty
        words = (ours[hi] != 0) | (theirs[hi] != 0)
        plain &= ~words | (digits == 0)
        differ |= words & (ours[hi] != theirs[hi])
        _note(differ, plain, ours[lo], theirs[lo], digits)
    for at in np.flatnonzero(~plain):
        differ[at] = bool(differences(ours[at], theirs[at]))
    return differ


def _note(differ: Mask, plain: Mask, ours: Ints, theirs: Ints, digits: Ints) -> None:
    """Note where numbers differ, theirs being written with so many more digits; what needs more than a word is not plain."""
    plain &= np.abs(digits) <= fixed.MAX_SCALE
    factor = _POW10[np.minimum(np.abs(digits), fixed.MAX_SCALE)]
    finer, coarser = np.where(digits >= 0, theirs, ours), np.where(digits >= 0, ours, theirs)
    differ |= (finer % factor != 0) | (finer // factor != coarser)


def differences(ours: np.void, theirs: np.void) -> dict[str, tuple[str, str]]:
    """The fields in which two candles differ, as decimal text of both, by the names of the database's views."""
    found: dict[str, tuple[str, str]] = {}
    for name in _PRICES:
        _compare(found, name, *((int(one[name]), int(one["price_scale"])) for one in (ours, theirs)))
    for name, (column, in_quote) in _SUMS.items():
        values = []
        for one in (ours, theirs):
            scale = int(one["qty_scale"]) + (int(one["price_scale"]) if in_quote else 0)
            values.append((fixed.join(int(one[f"{column}_hi"]), int(one[f"{column}_lo"])), scale))
        _compare(found, name, *values)
    if ours["trades"] != theirs["trades"]:
        found["trades"] = str(int(ours["trades"])), str(int(theirs["trades"]))
    return found


def _compare(found: dict[str, tuple[str, str]], name: str, ours: tuple[int, int], theirs: tuple[int, int]) -> None:
    scale = max(ours[1], theirs[1])
    if ours[0] * 10 ** (scale - ours[1]) != theirs[0] * 10 ** (scale - theirs[1]):
        found[name] = fixed.to_text(*ours), fixed.to_text(*theirs)
