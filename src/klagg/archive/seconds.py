"""Klines of a second, as spot's archive publishes them, to the minutes that they fill whole."""

from typing import Final

import numpy as np

from klagg.interval import MINUTE, MINUTE_MS
from klagg.model import Candles, Ints, picked

SECOND_MS: Final = 1_000
_OF_A_MINUTE: Final = MINUTE_MS // SECOND_MS
_HALF: Final = 10**9


def fold_seconds(seconds: Candles) -> tuple[Candles, int]:
    """The minutes of seconds at one scale, and how many minutes are left out since not each of their seconds is there once.

    A second without trades says nothing of the minute's open, high and low; a minute without any is at the close before.
    """
    rows = picked(seconds, np.argsort(seconds["open_ms"], kind="stable"))
    minutes, first, counts = np.unique(rows["open_ms"] // MINUTE_MS, return_index=True, return_counts=True)
    offsets = rows["open_ms"] - np.repeat(minutes * MINUTE_MS, counts)
    expected = (np.arange(len(rows)) - np.repeat(first, counts)) * SECOND_MS
    right = np.add.reduceat((offsets == expected).astype(np.int64), first) if len(rows) else np.zeros(0, np.int64)
    whole = (counts == _OF_A_MINUTE) & (right == _OF_A_MINUTE)
    rows = picked(rows, np.repeat(whole, counts))
    count = int(whole.sum())
    candles = picked(rows, np.arange(count) * _OF_A_MINUTE)
    candles["interval"], candles["open_ms"] = MINUTE.code, minutes[whole] * MINUTE_MS

    def of(name: str) -> Ints:
        table: Ints = rows[name].reshape(count, _OF_A_MINUTE)
        return table

    traded = of("trades") > 0
    any_traded = traded.any(axis=1)
    at = np.arange(count), np.argmax(traded, axis=1)
    candles["open"] = np.where(any_traded, of("open")[at], of("close")[:, -1])
    candles["close"] = of("close")[:, -1]
    top, bottom = np.iinfo(np.int64).max, np.iinfo(np.int64).min
    candles["high"] = np.where(
        any_traded, np.where(traded, of("high"), bottom).max(axis=1, initial=bottom), candles["close"]
    )
    candles["low"] = np.where(any_traded, np.where(traded, of("low"), top).min(axis=1, initial=top), candles["close"])
    candles["trades"] = of("trades").sum(axis=1)
    for name in ("volume", "quote", "taker_volume", "taker_quote"):
        # Sixty low words pass 63 bits: they are added in halves.
        low = of(f"{name}_lo")
        lower = (low % _HALF).sum(axis=1)
        upper = (low // _HALF).sum(axis=1) + lower // _HALF
        candles[f"{name}_hi"] = of(f"{name}_hi").sum(axis=1) + upper // _HALF
        candles[f"{name}_lo"] = upper % _HALF * _HALF + lower % _HALF
    return candles, len(minutes) - count
