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
from klagg.replay.chain import Before

SLICE_MS: Final = 32 * MINUTE_MS
"""Trades applied at a time reach over no more than this, so that no minute leaves the engine's memory uncollected."""


class Tape:
    """One symbol's engine and how far its recording has come."""

    def __init__(self, intervals: Sequence[Interval], first: Trades, before: Before) -> None:
        self.engine = Engine(intervals, capacity=1)
        self.witnesses = 0
        self.last_id = int(first["agg_id"]) - 1
        self.last_trade_id = int(first["first_id"]) - 1
        """The id of the last trade, which an aggregate's own is not."""
        self.last_ms = first_ms = int(first["time_ms"])
        self.began_ms = boundary_ms = MINUTE.open_at(first_ms)
        covered = False
        price, scale, qty_scale = int(first["price"]), int(first["price_scale"]), int(first["qty_scale"])
        if before.covered_ms is not None:
            covered, boundary_ms = True, before.covered_ms
            wide = max(scale, before.price_scale)
            price, scale = before.close * 10 ** (wide - before.price_scale), wide
        self.slot = self.engine.add(scale, qty_scale, boundary_ms, price, Origin.FILLED)
        if covered:
            last = np.zeros(1, LAST_TRADE)[0]
            last["agg_id"], last["time_ms"] = self.last_id, boundary_ms - 1
            last["price"], last["price_scale"] = price, scale
            self.engine.restore(self.slot, no_candles(), last)
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
        jumps = np.flatnonzero(np.diff(trades["agg_id"]) > 1) + 1
        for piece in np.split(trades, jumps) if len(jumps) else (trades,):
            self._apply_run(piece)
        self.last_ms = max(self.last_ms, now_ms)
        self.last_id = max(self.last_id, int(trades["agg_id"].max()))
        self.last_trade_id = max(self.last_trade_id, int(trades["last_id"].max()))
        self.engine.expire_holes(self.last_ms)

    def _apply_run(self, trades: Trades) -> None:
        """Apply trades of ids that run on. In a recording the ids before them that are not there will not come any more."""
        now_ms = max(self.last_ms, int(trades["time_ms"].max()))
        first_ms = max(self.last_ms, int(trades["time_ms"][0]))
        if len(trades) > 1 and int(trades["agg_id"][0]) > self.last_id + 1:
            self.engine.apply(trades[:1], first_ms)
            self.engine.expire_holes(first_ms + HOLE_PATIENCE_MS)
            trades = trades[1:]
        self.engine.apply(trades, now_ms)

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

    def lose(self, until_ms: int | None = None) -> None:
        """The recording goes no further: from its last trade on nothing is known, or from `until_ms` on, where no id is between."""
        if until_ms is not None and until_ms > self.last_ms:
            self.prove()
            self.advance(until_ms)
            self.engine.blind([self.slot], until_ms)
        else:
            self.engine.blind([self.slot], self.last_ms)

    def tally(self) -> Counter[str]:
        """What became of the recording's own trades."""
        counts = Counter(asdict(self.engine.tally))
        counts["not_market"] -= self.witnesses
        return counts
