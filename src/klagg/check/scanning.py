"""One series, candle after candle: what a row alone and its predecessor can tell."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from klagg import fixed
from klagg.check.folding import PRICES, SUMS, Mask, at_scale, common_scale, next_opens, opens_at
from klagg.check.report import Finding, Kind, Report
from klagg.fixed import MAX_SCALE, WORD
from klagg.interval import MINUTE, MONTH_STEP, Interval, month_index
from klagg.model import Candles, Flag, Ints, Market, Origin, no_candles

_QUOTE_DIGITS: Final = 8
"""The exchange states quote volumes with so many decimal places at most, cutting each trade's."""
_NEAR: Final = 1e-6
"""Two magnitudes are compared in floating point; what is nearer than this is not told apart."""


@dataclass(frozen=True, slots=True)
class Series:
    """One series, and the spans `[start_ms, end_ms)` in which its symbol was not listed between two lives."""

    market: Market
    symbol: str
    interval: Interval
    unlisted: Sequence[tuple[int, int]] = ()
    price_scale: int = MAX_SCALE
    """The widest that the instrument ever had."""

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


def _origin_text(candle: np.void) -> str:
    origin = int(candle["origin"])
    return Origin(origin).label if origin <= max(Origin) else str(origin)


def _waits(candles: Candles) -> Mask:
    """Which candles are on the repair's list, since they are known to lack evidence: what they hold is no promise."""
    waits: Mask = ((candles["flags"] & Flag.VERIFIED) == 0) & (candles["origin"] <= Origin.PARTIAL)
    return waits


def _magnitude(candles: Candles, name: str) -> npt.NDArray[np.float64]:
    """A two-word sum in floating point: to be compared, never to be stored."""
    value: npt.NDArray[np.float64] = candles[f"{name}_hi"] * float(WORD) + candles[f"{name}_lo"]
    return value


_STEPPED: Final = -(1 << 62)
"""In place of the beginning of a series whose scale has changed since."""


@dataclass(frozen=True, slots=True)
class Run:
    """Candles `[open_ms, until_ms)` whose scale contradicts their neighbours' (`until_ms` 0: to the end of the series)."""

    open_ms: int
    until_ms: int
    price_scale: int
    scale_before: int


class ScaleRuns:
    """Tells scales that were changed by hand from those that the exchange changed.

    Where a scale changes by hand, the price jumps by a power of ten though the digits run on. The exchange's own change keeps
    the price; a redenomination may do both at once, but not there and back. So a run of candles is accused where the digits
    run on at both its ends and the scale after it is that before it, or at its only end where no scale of the instrument is
    so wide.
    """

    def __init__(self, widest: int) -> None:
        self._widest = widest
        self._run: Run | None = None
        self._since_ms: int | None = None

    def begin(self, open_ms: int) -> None:
        """The series begins with the candle that opens there; later calls mean nothing."""
        self._since_ms = open_ms if self._since_ms is None else self._since_ms

    def step(self, before: np.void, after: np.void, *, follows: bool) -> Run | None:
        """A change of scale between two candles of a series; a run that it proves wrong."""
        run_on = (
            follows
            and int(before["close"]) <= 2 * int(after["open"])
            and int(after["open"]) <= 2 * int(before["close"])
        )
        run, self._run = self._run, None
        since_ms, self._since_ms = self._since_ms, _STEPPED
        if not run_on:
            return None
        was, now, open_ms = int(before["price_scale"]), int(after["price_scale"]), int(after["open_ms"])
        if run is not None and run.scale_before == now:
            return Run(run.open_ms, open_ms, was, now)
        if since_ms not in {None, _STEPPED} and was > self._widest:
            return Run(since_ms or 0, open_ms, was, now)
        self._run = Run(open_ms, 0, now, was)
        return None

    def end(self) -> Run | None:
        """The end of the series: a run that reaches it, if it is wrong."""
        return self._run if self._run is not None and self._run.price_scale > self._widest else None


class Scan:
    """Goes through one series; `feed` takes its candles ascending, in pieces, and returns the sound ones."""

    def __init__(self, series: Series, report: Report) -> None:
        self._series = series
        self._report = report
        self._previous = no_candles()
        """The last aligned candle, once there was one."""
        self._scales = ScaleRuns(series.price_scale)

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
        aligned = (opens_at(candles["open_ms"], self._series.interval) == candles["open_ms"]) & (
            candles["open_ms"] >= 0
        )
        for candle in candles[~aligned]:
            self._add(Kind.MISALIGNED, candle, {})
        candles = candles[aligned]
        bad_prices = self._check_prices(candles)
        bad_volumes = self._check_volumes(candles)
        bad_volumes |= self._check_values(candles, bad_prices | bad_volumes)
        self._check_marks(candles)
        if self._series.interval is MINUTE:
            self._check_ids(candles)
        if len(candles):
            chain = np.concatenate([self._previous, candles])
            self._check_holes(chain["open_ms"])
            self._check_flats(chain)
            self._check_scales(chain)
            self._previous = candles[-1:]
        return candles[~(bad_prices | bad_volumes)]

    def finish(self, upto_ms: int | None) -> None:
        """End of the series: it must reach the candle that opens at `upto_ms`, where that is known."""
        if (run := self._scales.end()) is not None:
            self._add_run(run)
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
        bad |= (candles["trades"] > 0) & (candles["volume_hi"] == 0) & (candles["volume_lo"] == 0)
        bad |= _above(candles, "taker_volume", "volume") | _above(candles, "taker_quote", "quote")
        for candle in candles[bad]:
            self._add(Kind.VOLUMES, candle, _volumes(candle))
        return bad

    def _check_values(self, candles: Candles, known_bad: Mask) -> Mask:
        """The quote volume is what the volume cost: between the lowest and the highest price of it, of the takers' part too."""
        low, high = candles["low"].astype(np.float64), candles["high"].astype(np.float64)
        scale = candles["price_scale"].astype(np.float64) + candles["qty_scale"]
        cut = (candles["trades"] + 1) * 10.0 ** (scale - _QUOTE_DIGITS)
        quote = _magnitude(candles, "quote")
        slack = cut + _NEAR * quote
        parts = [
            (_magnitude(candles, "volume"), quote),
            (_magnitude(candles, "taker_volume"), _magnitude(candles, "taker_quote")),
        ]
        parts.append((parts[0][0] - parts[1][0], parts[0][1] - parts[1][1]))
        bad: Mask = np.zeros(len(candles), np.bool_)
        for volume, worth in parts:
            bad |= (worth < low * volume * (1 - _NEAR) - slack) | (worth > high * volume * (1 + _NEAR) + slack)
        bad &= (candles["trades"] > 0) & ~known_bad & ~_waits(candles)
        for candle in candles[bad]:
            self._add(Kind.VALUE, candle, {**_prices(candle), **_volumes(candle)})
        return bad

    def _check_marks(self, candles: Candles) -> None:
        """Origin, verified and the number of trades do not contradict each other."""
        origin, traded = candles["origin"], candles["trades"] > 0
        verified = (candles["flags"] & Flag.VERIFIED) != 0
        bad = traded & np.isin(origin, (Origin.FILLED, Origin.SEED, Origin.FLAT))
        bad |= (candles["trades"] == 0) & (origin == Origin.TRADES)
        bad |= verified & ((origin < Origin.FLAT) | (origin == Origin.UNMATCHED))
        for candle in candles[bad]:
            values: dict[str, str | int] = {"origin": _origin_text(candle), "trades": int(candle["trades"])}
            values["verified"] = int(candle["flags"] & Flag.VERIFIED != 0)
            self._add(Kind.MARKS, candle, values)

    def _check_ids(self, candles: Candles) -> None:
        """A minute has both trade ids or none, in order, and so many trades at most."""
        first, last, trades = candles["first_id"], candles["last_id"], candles["trades"]
        both = (first >= 0) & (last >= 0)
        bad = (first < -1) | (last < -1) | ((first < 0) != (last < 0)) | (both & ((last < first) | (trades == 0)))
        bad |= both & (last - first + 1 < trades)
        told = np.flatnonzero(both & ~bad)
        # Ids that fall and rise again at the next minute: out of order. A new numbering does not come back.
        falls = np.flatnonzero(first[told[1:-1]] <= last[told[:-2]]) if len(told) > 2 else np.zeros(0, np.int64)
        back = falls[first[told[falls + 2]] > last[told[falls]]]
        bad[told[back]] = bad[told[back + 1]] = True
        for candle in candles[bad]:
            self._add(Kind.IDS, candle, {name: int(candle[name]) for name in ("first_id", "last_id", "trades")})

    def _check_scales(self, chain: Candles) -> None:
        """A scale that was changed by hand moves the price by powers of ten, there and back."""
        self._scales.begin(int(chain["open_ms"][0]))
        follows = chain["open_ms"][1:] == next_opens(chain["open_ms"], self._series.interval)[:-1]
        waits = _waits(chain)
        for at in np.flatnonzero(chain["price_scale"][1:] != chain["price_scale"][:-1]).tolist():
            run = self._scales.step(
                chain[at], chain[at + 1], follows=bool(follows[at]) and not waits[at : at + 2].any()
            )
            if run is not None:
                self._add_run(run)

    def _add_run(self, run: "Run") -> None:
        self._report.add(
            self._series.finding(
                Kind.SCALE,
                run.open_ms,
                {"price_scale": run.price_scale, "price_scale_before": run.scale_before, "until_ms": run.until_ms},
            )
        )

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
        monthly = interval.step_ms == MONTH_STEP
        missing = month_index(end_ms) - month_index(start_ms) if monthly else (end_ms - start_ms) // interval.step_ms
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
        # What waits for the exchange may differ from it, and what follows that may be right.
        waits = _waits(chain)
        unsure = waits | ((chain["origin"] == Origin.UNMATCHED) & ((chain["flags"] & Flag.VERIFIED) == 0))
        broken &= ~waits & ~(np.r_[False, unsure[:-1]] & ~uneven)
        # The first of the chain was checked in the piece before.
        broken[: len(self._previous)] = False
        for at in np.flatnonzero(broken):
            values = _prices(chain[at])
            if follows[at]:
                values["previous_close"] = price_text(chain[at - 1], "close")
            self._add(Kind.FLAT, chain[at], values)
