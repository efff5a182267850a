"""One series, candle after candle: what a row alone and its predecessor can tell."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from klagg import fixed
from klagg.check.folding import PRICES, SUMS, Mask, at_scale, common_scale, next_opens, opens_at
from klagg.check.report import Finding, Kind, Report
from klagg.fixed import MAX_SCALE, WORD
from klagg.interval import MONTH_STEP, Interval
from klagg.model import Candles, Ints, Market, Origin, no_candles


@dataclass(frozen=True, slots=True)
class Series:
    """One series, and the spans `[start_ms, end_ms)` in which its symbol was not listed between two lives."""

    market: Market
    symbol: str
    interval: Interval
    unlisted: Sequence[tuple[int, int]] = ()

    def finding(self, kind: Kind, open_ms: int, values: dict[str, str | int]) -> Finding:
        """Something wrong with one of its candles."""
        return Finding(kind, self.market, self.symbol, self.interval, int(open_ms), values)


def price_text(candle: np.void, name: str) -> str:
    """A price as people read it."""
    return fixed.to_text(int(candle[name]), int(candle["price_scale"]))


def sum_text(candle: np.void, name: str) -> str:
    """A volume as people read it."""
    scale = int(candle["qty_scale"]) + (int(candle["price_scale"]) if "quote" in name else 0)
    return fixed.to_text(fixed.join(int(candle[f"{name}_hi"]), int(candle[f"{name}_lo"])), scale)


def _prices(candle: np.void) -> dict[str, str | int]:
    return {name: price_text(candle, name) for name in PRICES}


def _volumes(candle: np.void) -> dict[str, str | int]:
    return {"trades": int(candle["trades"]), **{name: sum_text(candle, name) for name in SUMS}}


def _above(candles: Candles, one: str, other: str) -> Mask:
    """Where one two-word sum is above another."""
    hi, other_hi = candles[f"{one}_hi"], candles[f"{other}_hi"]
    above: Mask = (hi > other_hi) | ((hi == other_hi) & (candles[f"{one}_lo"] > candles[f"{other}_lo"]))
    return above


class Scan:
    """Goes through one series; `feed` takes its candles ascending, in pieces, and returns the sound ones."""

    def __init__(self, series: Series, report: Report) -> None:
        self._series = series
        self._report = report
        self._previous = no_candles()
        """The last aligned candle, once there was one."""

    def feed(self, candles: Candles) -> Candles:
        """Check candles; those come back that are fit to be folded and compared."""
        self._report.candles += len(candles)
        bad_scale = (candles["price_scale"] > MAX_SCALE) | (candles["qty_scale"] > MAX_SCALE)
        for candle in candles[bad_scale]:
            scales: dict[str, str | int] = {name: int(candle[name]) for name in ("price_scale", "qty_scale")}
            self._add(Kind.SCALE, candle, scales)
        for candle in candles[candles["origin"] > max(Origin)]:
            self._add(Kind.ORIGIN, candle, {"origin": int(candle["origin"])})
        candles = candles[~bad_scale]
        aligned = opens_at(candles["open_ms"], self._series.interval) == candles["open_ms"]
        for candle in candles[~aligned]:
            self._add(Kind.MISALIGNED, candle, {})
        candles = candles[aligned]
        bad_prices = self._check_prices(candles)
        bad_volumes = self._check_volumes(candles)
        if len(candles):
            chain = np.concatenate([self._previous, candles])
            self._check_holes(chain["open_ms"])
            self._check_flats(chain)
            self._previous = candles[-1:]
        return candles[~(bad_prices | bad_volumes)]

    def finish(self, upto_ms: int | None) -> None:
        """End of the series: it must reach the candle that opens at `upto_ms`, where that is known."""
        if upto_ms is None or not len(self._previous):
            return
        end_ms = int(next_opens(self._previous["open_ms"], self._series.interval)[0])
        if end_ms < upto_ms:
            self._hole(end_ms, upto_ms)

    def _add(self, kind: Kind, candle: np.void, values: dict[str, str | int]) -> None:
        self._report.add(self._series.finding(kind, candle["open_ms"], values))

    def _check_prices(self, candles: Candles) -> Mask:
        top = np.maximum(candles["open"], candles["close"])
        bottom = np.minimum(candles["open"], candles["close"])
        bad: Mask = (candles["high"] < top) | (candles["low"] > bottom) | (candles["low"] <= 0)
        for candle in candles[bad]:
            self._add(Kind.PRICES, candle, _prices(candle))
        return bad

    def _check_volumes(self, candles: Candles) -> Mask:
        bad: Mask = candles["trades"] < 0
        some = np.zeros(len(candles), np.bool_)
        for name in SUMS:
            hi, lo = candles[f"{name}_hi"], candles[f"{name}_lo"]
            bad |= (hi < 0) | (lo < 0) | (lo >= WORD)
            some |= (hi != 0) | (lo != 0)
        bad |= some & (candles["trades"] == 0)
        bad |= _above(candles, "taker_volume", "volume") | _above(candles, "taker_quote", "quote")
        for candle in candles[bad]:
            self._add(Kind.VOLUMES, candle, _volumes(candle))
        return bad

    def _check_holes(self, opens: Ints) -> None:
        ends = next_opens(opens, self._series.interval)
        for at in np.flatnonzero(opens[1:] > ends[:-1]):
            self._hole(int(ends[at]), int(opens[at + 1]))

    def _hole(self, start_ms: int, end_ms: int) -> None:
        interval = self._series.interval
        for retired_ms, listed_ms in self._series.unlisted:
            # Candles stop with the one that holds the retiring and begin with the one that holds the listing.
            if start_ms >= interval.open_at(retired_ms) and end_ms <= interval.next_open(interval.open_at(listed_ms)):
                return
        if interval.step_ms == MONTH_STEP:
            missing = sum(1 for _ in interval.opens(start_ms, end_ms))
        else:
            missing = (end_ms - start_ms) // interval.step_ms
        self._report.add(self._series.finding(Kind.HOLE, start_ms, {"missing": missing, "until_ms": end_ms}))

    def _check_flats(self, chain: Candles) -> None:
        """A candle without trades is its previous close, where its predecessor is there, and flat in any case."""
        scaled, fits = at_scale(chain, *common_scale(chain))
        flat = (scaled["trades"] == 0) & fits
        uneven = flat & ((scaled["high"] != scaled["low"]) | (scaled["open"] != scaled["close"]))
        follows = np.r_[False, chain["open_ms"][1:] == next_opens(chain["open_ms"], self._series.interval)[:-1]]
        previous_close = np.r_[0, scaled["close"][:-1]]
        fits_before = np.r_[False, fits[:-1]]
        broken = uneven | (flat & follows & fits_before & (scaled["open"] != previous_close))
        # The first of the chain was checked in the piece before.
        broken[: len(self._previous)] = False
        for at in np.flatnonzero(broken):
            values = _prices(chain[at])
            if follows[at]:
                values["previous_close"] = price_text(chain[at - 1], "close")
            self._add(Kind.FLAT, chain[at], values)
