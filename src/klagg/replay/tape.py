"""One symbol's recording: an engine of its own, and how far it has come."""

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

import numpy as np

from klagg.engine.engine import Engine
from klagg.engine.state import HOLE_PATIENCE_MS
from klagg.interval import MINUTE, MINUTE_MS, Interval
from klagg.model import LAST_TRADE, TRADE, Origin, TradeKind, Trades, no_candles

SLICE_MS: Final = 32 * MINUTE_MS
"""Trades applied at a time reach over no more than this, so that no minute leaves the engine's memory uncollected."""


class Tape:
    """One symbol's engine and how far its recording has come."""

    def __init__(self, intervals: Sequence[Interval], first: Trades, covered_ms: int | None) -> None:
        self.engine = Engine(intervals, capacity=1)
        self.witnesses = 0
        self.covered_to_ms: int | None = None
        """Up to where an archive file covers its time whole, if the last file read does."""
        self.last_id = int(first["agg_id"]) - 1
        self.last_ms = self.alive_ms = first_ms = int(first["time_ms"])
        boundary_ms = MINUTE.open_at(first_ms)
        covered = covered_ms is not None and covered_ms <= boundary_ms
        # Ids begin at 0 or 1 with the listing, before which there is nothing.
        if covered_ms is not None and covered and self.last_id > 0:
            boundary_ms = covered_ms
        price_scale, qty_scale = int(first["price_scale"]), int(first["qty_scale"])
        self.slot = self.engine.add(price_scale, qty_scale, boundary_ms, int(first["price"]), Origin.FILLED)
        if covered:
            before = np.zeros(1, LAST_TRADE)[0]
            before["agg_id"], before["time_ms"] = self.last_id, boundary_ms - 1
            before["price"], before["price_scale"] = first["price"], first["price_scale"]
            self.engine.restore(self.slot, no_candles(), before)
        self.sight(boundary_ms if covered else boundary_ms + MINUTE_MS)

    def copied(self) -> "Tape":
        """The same state, apart; the room for candles being collected (2 MiB, empty between calls) is shared."""
        room = vars(self.engine)["_out"]
        return copy.deepcopy(self, {id(room): room})

    def sight(self, at_ms: int) -> None:
        """The recording shows everything from then on."""
        self.engine.sight([self.slot], at_ms)

    def follows_late(self, trades: Trades) -> bool:
        """Whether these go on with the next id, so late that the engine may no longer hold the last trade's minute."""
        late = int(trades["time_ms"][0]) - self.last_ms >= SLICE_MS
        return late and int(trades["agg_id"][0]) == self.last_id + 1

    def apply(self, trades: Trades) -> None:
        """Apply trades, the time going with them."""
        now_ms = int(trades["time_ms"].max())
        trades["slot"] = self.slot
        self.engine.apply(trades, max(now_ms, self.last_ms))
        self.last_ms = max(self.last_ms, now_ms)
        self.last_id = max(self.last_id, int(trades["agg_id"].max()))
        self.engine.expire_holes(self.last_ms)

    def advance(self, boundary_ms: int) -> None:
        """Close what ends by then."""
        while not self.engine.advance(boundary_ms):
            pass

    def prove(self) -> None:
        """Prove the last trade's minute at its end, when it is known that no trade of a lower id is to come.

        The next trade may be so late that the engine no longer holds that minute: a trade of no market stands in for it.
        """
        end_ms = MINUTE.open_at(self.last_ms) + MINUTE_MS
        holes = -1
        while self.engine.tally.holes != holes:
            holes = self.engine.tally.holes
            self.engine.expire_holes(end_ms + HOLE_PATIENCE_MS)
        witness = np.zeros(1, TRADE)
        witness["kind"] = TradeKind.OTHER
        witness["slot"], witness["agg_id"], witness["time_ms"] = self.slot, self.last_id + 1, end_ms
        self.engine.apply(witness, end_ms)
        self.witnesses += 1
        last = self.engine.last_trades()[0].copy()
        last["agg_id"], last["time_ms"] = self.last_id, end_ms - 1
        self.engine.restore(self.slot, no_candles(), last)

    def lose(self) -> int:
        """The recording goes no further: what an archive file covers to its end is proven; from when on nothing is known."""
        covered_to_ms, self.covered_to_ms = self.covered_to_ms, None
        since_ms = max(self.last_ms, self.alive_ms)
        if covered_to_ms is not None and covered_to_ms > self.last_ms:
            self.prove()
            self.advance(covered_to_ms)
            since_ms = covered_to_ms
        self.engine.blind([self.slot], since_ms)
        return since_ms

    def tally(self) -> Counter[str]:
        """What became of the recording's own trades."""
        counts = Counter(asdict(self.engine.tally))
        counts["not_market"] -= self.witnesses
        return counts
