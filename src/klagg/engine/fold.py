"""Folding whole arrays of closed candles into longer ones, for repair, backfill and checks."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from klagg.engine.calendar import next_open_ms, open_ms_at
from klagg.engine.candle import begin, fold_into, folded_origin, restate
from klagg.engine.jit import kernel
from klagg.interval import INTERVALS, Interval
from klagg.model import CANDLE, Candles, Flag, Ints, Origin, Source, copied

VERIFIED: Final = int(Flag.VERIFIED)
CLOSED: Final = int(Flag.CLOSED)
UNMATCHED: Final = int(Origin.UNMATCHED)
HIGHEST: Final = int(max(Source))


@dataclass(frozen=True, slots=True)
class Folded:
    """Parents folded from children, one row each.

    `candles`: CLOSED, and VERIFIED (by the lowest source among the children) where every child is; `upto_ms`: up to where the
    children tile the parent from its open without a break (equal to its end where they tile it whole); `lowest`: the lowest
    origin among the children.
    """

    candles: Candles
    upto_ms: Ints
    lowest: npt.NDArray[np.uint8]


@kernel
def _fold(
    children: Any, child_step_ms: int, step_ms: int, anchor_ms: int, code: int, out: Any, upto: Any, lowest: Any
) -> int:
    count = 0
    for index in range(children.shape[0]):
        child = children[index]
        open_ms = open_ms_at(child["open_ms"], step_ms, anchor_ms)
        if count == 0 or out[count - 1]["open_ms"] != open_ms:
            parent = out[count]
            parent["slot"] = child["slot"]
            parent["interval"] = code
            parent["price_scale"] = child["price_scale"]
            parent["qty_scale"] = child["qty_scale"]
            begin(parent, open_ms, child["open"])
            parent["flags"] = CLOSED | VERIFIED
            parent["source"] = HIGHEST
            lowest[count] = UNMATCHED
            upto[count] = open_ms
            count += 1
        parent = out[count - 1]
        fold_into(parent, child)
        parent["flags"] &= child["flags"] | CLOSED
        parent["source"] = min(parent["source"], child["source"])
        lowest[count - 1] = min(lowest[count - 1], child["origin"])
        if child["open_ms"] == upto[count - 1]:
            upto[count - 1] = next_open_ms(child["open_ms"], child_step_ms)
    for index in range(count):
        out[index]["origin"] = folded_origin(lowest[index], out[index]["trades"])
        if (out[index]["flags"] & VERIFIED) == 0:
            out[index]["source"] = 0
    return count


@kernel
def _restate_all(candles: Any, price_scale: int, qty_scale: int) -> None:
    for index in range(candles.shape[0]):
        restate(candles[index], price_scale, qty_scale)


def restated(candles: Candles, price_scale: int, qty_scale: int) -> Candles:
    """The same candles at scales at least as wide as theirs (a copy)."""
    copies = copied(candles)
    _restate_all(copies, price_scale, qty_scale)
    return copies


def fold(children: Candles, parent: Interval) -> Folded:
    """Fold the closed candles of one series (ascending) into those of a longer interval that they tile."""
    if len(children) == 0:
        return Folded(np.zeros(0, CANDLE), np.zeros(0, np.int64), np.zeros(0, np.uint8))
    children = restated(children, int(children["price_scale"].max()), int(children["qty_scale"].max()))
    out = np.zeros(len(children), CANDLE)
    upto = np.zeros(len(children), np.int64)
    lowest = np.zeros(len(children), np.uint8)
    step_ms = INTERVALS[int(children[0]["interval"])].step_ms
    count = _fold(children, step_ms, parent.step_ms, parent.anchor_ms, parent.code, out, upto, lowest)
    return Folded(out[:count], upto[:count], lowest[:count])
