"""Two candles as exact decimals, whatever scales they are written at. Pure."""

from typing import Final

import numpy as np
import numpy.typing as npt

from klagg import fixed
from klagg.model import NUMBERS, Candles

Mask = npt.NDArray[np.bool_]

_PRICES: Final = ("open", "high", "low", "close")
_SUMS: Final = {  # people's name: ours, and whether it is in the quote asset
    "volume": ("volume", False),
    "quote_volume": ("quote", True),
    "taker_buy_volume": ("taker_volume", False),
    "taker_buy_quote_volume": ("taker_quote", True),
}


def differing(ours: Candles, theirs: Candles) -> Mask:
    """Where candles of the same opens differ in a number that a kline has."""
    same_scale = (ours["price_scale"] == theirs["price_scale"]) & (ours["qty_scale"] == theirs["qty_scale"])
    differ: Mask = np.zeros(len(ours), np.bool_)
    for name in NUMBERS:
        differ |= ours[name] != theirs[name]
    for at in np.flatnonzero(~same_scale):
        differ[at] = bool(differences(ours[at], theirs[at]))
    return differ


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
