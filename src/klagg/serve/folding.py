"""Longer candles out of shorter ones at read, for frames that are not kept, on whole columns.

A plain twin of what the engine does, without its kernels: reading must not wait for a compiler.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from klagg.fixed import WORD, join, split
from klagg.interval import DAY_MS, INTERVALS, MONTH_STEP, Interval
from klagg.model import Candles, Flag, Ints, Origin, no_candles
from klagg.serve.source import Frame

_HALF: Final = 10**9
_PRICES: Final = ("open", "high", "low", "close")
SUMS: Final = ("volume", "quote", "taker_volume", "taker_quote")


@dataclass(frozen=True, slots=True, eq=False)
class Folded:
    """Parents, one row each, and whether all of their children are there."""

    candles: Candles
    whole: np.ndarray[tuple[int], np.dtype[np.bool_]]


def opens_of(t_ms: Ints, frame: Frame) -> Ints:
    """The open of the candle of the frame that contains each instant."""
    local = t_ms + frame.shift_ms
    if frame.interval.step_ms == MONTH_STEP:
        opens = local.astype("datetime64[ms]").astype("datetime64[M]").astype("datetime64[ms]").astype(np.int64)
    else:
        opens = local - (local - frame.interval.anchor_ms) % frame.interval.step_ms
    result: Ints = opens - frame.shift_ms
    return result


def fold(children: Candles, frame: Frame, listed_ms: int | None = None) -> Folded:
    """Fold candles of one series (ascending, of one interval) into those of a longer frame that they tile.

    A parent is whole where its children tile it; the one in which the symbol was listed (`listed_ms`) where they tile it from then on.
    """
    if len(children) == 0:
        return Folded(no_candles(), np.zeros(0, np.bool_))
    opens, starts, counts = np.unique(opens_of(children["open_ms"], frame), return_index=True, return_counts=True)
    out = grouped(children, starts)
    out["interval"] = frame.interval.code
    out["open_ms"] = opens
    whole = _whole(children, opens, starts, starts + counts, frame)
    if listed_ms is not None:
        child = INTERVALS[int(children["interval"][0])]
        for row in np.flatnonzero(opens == frame.open_at(listed_ms)).tolist():
            there = children["open_ms"][starts[row] : starts[row] + counts[row]].tolist()
            wanted = child.opens(child.open_at(listed_ms), frame.next_open(int(opens[row])))
            whole[row] |= there == list(wanted)
    return Folded(out, whole)


def grouped(children: Candles, starts: Ints) -> Candles:
    """One candle of each group of neighbours (ascending); the groups begin at `starts`.

    A child without trades gives nothing to open, high and low; a group of such children alone is flat at the first one's price.
    """
    children = at_one_scale(children)
    out = children[starts].copy()
    out["first_id"] = out["last_id"] = -1
    traded = np.flatnonzero(children["trades"] > 0)
    if len(traded):
        parents = np.searchsorted(starts, traded, "right") - 1
        busy, at = np.unique(parents, return_index=True)
        last = np.append(at[1:], len(traded)) - 1
        for name in ("open", "first_id"):
            out[name][busy] = children[name][traded[at]]
        for name in ("close", "last_id"):
            out[name][busy] = children[name][traded[last]]
        out["high"][busy] = np.maximum.reduceat(children["high"][traded], at)
        out["low"][busy] = np.minimum.reduceat(children["low"][traded], at)
    out["trades"] = np.add.reduceat(children["trades"], starts)
    for name in SUMS:
        out[f"{name}_hi"], out[f"{name}_lo"] = _sums(children[f"{name}_hi"], children[f"{name}_lo"], starts)
    marks = (Flag.CLOSED.value, Flag.VERIFIED.value)
    out["flags"] = sum(np.minimum.reduceat(children["flags"] & mark, starts) for mark in marks)
    lowest = np.minimum.reduceat(children["origin"], starts)
    out["origin"] = np.where((lowest == Origin.FLAT.value) & (out["trades"] > 0), Origin.TRADES.value, lowest)
    return out


def joined(parts: Candles) -> Candles:
    """Neighbouring spans (ascending, at least one) as one candle."""
    return grouped(parts, np.zeros(1, np.int64))


def _whole(
    children: Candles, opens: Ints, starts: Ints, ends: Ints, frame: Frame
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which parents' children run from their open to their end without a break."""
    child = INTERVALS[int(children["interval"][0])]
    unbroken = np.ones(len(children), np.bool_)
    if len(children) > 1:
        before = children["open_ms"][:-1]
        follow = (
            np.array([child.next_open(t) for t in before.tolist()])
            if child.step_ms == MONTH_STEP
            else before + child.step_ms
        )
        unbroken[1:] = children["open_ms"][1:] == follow
    unbroken[starts] = children["open_ms"][starts] == opens
    whole = np.logical_and.reduceat(unbroken, starts)
    last = [child.next_open(t) for t in children["open_ms"][ends - 1].tolist()]
    wanted = [frame.next_open(t) for t in opens.tolist()]
    result: np.ndarray[tuple[int], np.dtype[np.bool_]] = whole & (np.array(last) == np.array(wanted))
    return result


def _sums(hi: Ints, lo: Ints, starts: Ints) -> tuple[Ints, Ints]:
    """Sums of two words by group; the low word is added in halves of nine digits, which no number of candles overflows."""
    low = np.add.reduceat(lo % _HALF, starts)
    middle = np.add.reduceat(lo // _HALF, starts) + low // _HALF
    return np.add.reduceat(hi, starts) + middle // _HALF, middle % _HALF * _HALF + low % _HALF


def at_one_scale(candles: Candles) -> Candles:
    """The same candles, all at the widest of their scales."""
    price, qty = int(candles["price_scale"].max()), int(candles["qty_scale"].max())
    narrow = np.flatnonzero((candles["price_scale"] < price) | (candles["qty_scale"] < qty))
    if len(narrow) == 0:
        return candles
    candles = candles.copy()
    for row in (candles[index] for index in narrow):
        by_price, by_qty = 10 ** (price - int(row["price_scale"])), 10 ** (qty - int(row["qty_scale"]))
        for name in _PRICES:
            row[name] = int(row[name]) * by_price
        for name in SUMS:
            factor = by_price * by_qty if "quote" in name else by_qty
            row[f"{name}_hi"], row[f"{name}_lo"] = split(join(int(row[f"{name}_hi"]), int(row[f"{name}_lo"])) * factor)
        row["price_scale"], row["qty_scale"] = price, qty
    return candles


def sum_of(row: np.void, name: str) -> int:
    """One of a candle's sums as a whole number."""
    return int(row[f"{name}_hi"]) * WORD + int(row[f"{name}_lo"])


def tiles(child: Interval, frame: Frame) -> bool:
    """Whether candles of an interval tile every candle of a frame exactly."""
    step_ms, parent = child.step_ms, frame.interval
    if child is parent and frame.shift_ms == 0:
        return True
    if step_ms == MONTH_STEP or child.code > parent.code:
        return False
    if parent.step_ms == MONTH_STEP:
        return DAY_MS % step_ms == 0 and frame.shift_ms % step_ms == 0
    return parent.step_ms % step_ms == 0 and (parent.anchor_ms - frame.shift_ms - child.anchor_ms) % step_ms == 0


def fold_source(frame: Frame, kept: Iterable[Interval]) -> Interval:
    """The longest of the kept intervals that tiles a frame: what its candles are folded from. `1m` tiles all."""
    return max((child for child in kept if tiles(child, frame)), key=lambda child: child.code)


def with_later(earlier: Candles, later: Candles) -> Candles:
    """Each candle with the one of the later span beside it (at the same scales) put to it."""
    out = earlier.copy()
    fresh, was = later["trades"] > 0, earlier["trades"] > 0
    first = fresh & ~was
    for name in ("open", "high", "low", "first_id"):
        out[name] = np.where(first, later[name], earlier[name])
    both = fresh & was
    out["high"] = np.where(both, np.maximum(earlier["high"], later["high"]), out["high"])
    out["low"] = np.where(both, np.minimum(earlier["low"], later["low"]), out["low"])
    for name in ("close", "last_id"):
        out[name] = np.where(fresh, later[name], earlier[name])
    out["trades"] = earlier["trades"] + later["trades"]
    for name in SUMS:
        low = earlier[f"{name}_lo"] + later[f"{name}_lo"]
        out[f"{name}_hi"] = earlier[f"{name}_hi"] + later[f"{name}_hi"] + low // WORD
        out[f"{name}_lo"] = low % WORD
    return out
