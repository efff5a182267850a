"""The engine of one shard: told trades, boundaries and the exchange's candles, it returns candles."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from klagg.engine import applying, closing, evidence, matching
from klagg.engine import state as s
from klagg.errors import NumberError
from klagg.fixed import MANTISSA_LIMIT, MAX_SCALE, WORD
from klagg.interval import INTERVALS, MINUTE, MINUTE_MS, Interval
from klagg.model import CANDLE, LAST_TRADE, TRADE, Candles, Ints, Origin, Trades, copied, joined, no_candles, picked

OUT_ROOM: Final = 16_384
"""Candles that one kernel call may return; a longer catch-up comes in several calls, between which trades are applied."""
FIRST_CAPACITY: Final = 64

Verdicts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of the trades since the engine was made."""

    applied: int
    late: int
    duplicate: int
    too_old: int
    invalid: int
    not_market: int
    holes: int
    renumbered: int
    after_verified: int


@dataclass(frozen=True, slots=True)
class Hole:
    """Ids of a slot that are missed: some of `[first_id, end_id)`, `first_id` among them; `end_id` has been seen."""

    slot: int
    first_id: int
    end_id: int
    since_ms: int
    """When the first id beyond them arrived; `HOLE_PATIENCE_MS` later they are given up."""


class Engine:
    """Candles of many instruments in several intervals, `1m` always among them.

    A *slot* is an instrument's row. Prices are mantissas at the instrument's scale. Every closed candle that is new or
    changed comes out of `collect` once, in its newest state.
    """

    def __init__(self, intervals: Sequence[Interval], *, capacity: int = FIRST_CAPACITY) -> None:
        assert intervals[0] is MINUTE
        assert [i.code for i in intervals] == sorted({i.code for i in intervals})
        self.intervals = tuple(intervals)
        self._codes = np.array([interval.code for interval in intervals], np.uint8)
        self._calendar = np.array([(i.step_ms, i.anchor_ms) for i in intervals], np.int64)
        self._due = np.zeros(len(intervals), np.int64)
        self._rows = np.zeros((s.row_columns(len(intervals)), s.width(capacity)), CANDLE)
        self._ints = np.zeros((s.int_columns(len(intervals)), s.width(capacity)), np.int64)
        self._tallies = np.zeros(s.TALLIES, np.int64)
        self._live = np.zeros(0, np.int64)
        self._slots = 0
        self._boundary_ms = 0
        self._collected_ms = 0
        self._room(capacity)
        self._used = 0
        self._ready: list[Candles] = []

    def _room(self, capacity: int) -> None:
        wanted = max(OUT_ROOM, 2 * capacity * len(self.intervals))
        self._out = np.zeros(wanted, CANDLE)

    # Instruments

    def add(self, price_scale: int, qty_scale: int, boundary_ms: int, price: int, origin: Origin = Origin.SEED) -> int:
        """Take an instrument in at the last boundary: an open candle without trades at `price` in every interval.

        `origin` SEED marks its first minute as seeded (an activation); FILLED is for an instrument that was known before.
        Returns its slot.
        """
        assert boundary_ms % MINUTE_MS == 0
        assert 0 < price < MANTISSA_LIMIT
        slot = self._new_slot()
        ints = self._ints[:, slot]
        ints[:] = 0
        ints[s.LIVE] = 1
        ints[s.PRICE_SCALE], ints[s.QTY_SCALE] = price_scale, qty_scale
        ints[s.MINUTE] = ints[s.BORN] = boundary_ms
        ints[s.SEEDED] = boundary_ms if origin == Origin.SEED else -1
        ints[s.NEXT_ID] = -1
        # Until a market trade is the last: ids may be seen before a price is.
        ints[s.FRONTIER_PRICE] = price
        ints[s.FIRST_AGG : s.AHEAD_MS] = -1
        ints[s.CHAIN] = ints[s.SIGHTED] = s.FAR
        closing.place(self._rows, self._ints, slot, boundary_ms, price, self._calendar)
        for k in range(1, len(self.intervals)):
            column = s.RING + 2 * (k - 1)
            self._rows[column : column + 2, slot]["interval"] = self._codes[k]
            if self._rows[column, slot]["open_ms"] < boundary_ms:
                # Its part before the boundary is not known here: the rank of a seed stands for it until it is rebased.
                ints[s.LONGER + s.LONGER_WIDTH * (k - 1) + 1 + int(Origin.SEED)] = -1
        self._live = np.append(self._live, slot)
        self._boundary_ms = max(self._boundary_ms, boundary_ms)
        return slot

    def restore(self, slot: int, candles: Candles, last_trade: npt.NDArray[np.void] | None = None) -> None:
        """Give a slot just added what the store knew: open candles folded to its boundary, and its last trade.

        `candles`: at most one open candle per interval, any of which may be missing or older than the boundary's (then it
        is left out); scales may be narrower than the slot's.
        """
        for candle in copied(candles):
            k = int(np.searchsorted(self._codes, candle["interval"]))
            if k == len(self.intervals) or self._codes[k] != candle["interval"] or k == 0:
                continue
            candle["slot"] = slot
            self._widen_to(slot, int(candle["price_scale"]), int(candle["qty_scale"]))
            matching.rebase(self._rows, self._ints, slot, k, candle, int(self._ints[s.MINUTE, slot]))
        if last_trade is not None and last_trade["agg_id"] >= 0:
            ints = self._ints[:, slot]
            ints[s.NEXT_ID] = last_trade["agg_id"] + 1
            ints[s.CHAIN] = ints[s.FRONTIER] = ints[s.TOP] = last_trade["time_ms"]
            self._widen_to(slot, int(last_trade["price_scale"]), 0)
            power = int(ints[s.PRICE_SCALE]) - int(last_trade["price_scale"])
            ints[s.FRONTIER_PRICE] = int(last_trade["price"]) * 10**power

    def retire(self, slot: int) -> None:
        """Stop making candles of an instrument; what changed and was not collected still comes out."""
        self._ints[s.LIVE, slot] = 0
        self._live = self._live[self._live != slot]
        self._collected_ms = 0

    def _new_slot(self) -> int:
        slot = self._slots
        held = self._ints.shape[1]
        if slot == held:
            more = s.width(2 * held) - held
            self._rows = np.pad(self._rows, ((0, 0), (0, more)))
            self._ints = np.pad(self._ints, ((0, 0), (0, more)))
            self._flush_out()
            self._room(held + more)
        self._slots += 1
        return slot

    @property
    def live(self) -> npt.NDArray[np.int64]:
        """The slots whose candles are made."""
        return self._live

    @property
    def boundary_ms(self) -> int:
        """The boundary up to which every live instrument is closed."""
        return self._boundary_ms

    def minute_ms(self, slot: int) -> int:
        """The open of an instrument's open minute."""
        return int(self._ints[s.MINUTE, slot])

    def scales(self, slot: int) -> tuple[int, int]:
        """An instrument's price and quantity scale."""
        return int(self._ints[s.PRICE_SCALE, slot]), int(self._ints[s.QTY_SCALE, slot])

    def minute_origin(self, slot: int, open_ms: int) -> Origin | None:
        """The origin of a closed minute that is still in memory."""
        row = self._rows[s.minute_column(open_ms), slot]
        return Origin(int(row["origin"])) if row["open_ms"] == open_ms < self._ints[s.MINUTE, slot] else None

    # Trades and time

    def apply(self, trades: Trades, now_ms: int) -> None:
        """Apply a batch of trades in any order. Ids decide about order and duplicates; what is dropped is in `tally`."""
        index = 0
        while True:
            index, self._used, why = applying.apply(
                self._rows,
                self._ints,
                trades,
                index,
                now_ms,
                self._calendar,
                self._due,
                self._out,
                self._used,
                self._tallies,
            )
            if why == applying.DONE:
                return
            if why == applying.FULL:
                self._flush_out()
                continue
            trade = trades[index]
            try:
                self._widen_to(int(trade["slot"]), int(trade["price_scale"]), int(trade["qty_scale"]))
            except NumberError:
                self._tallies[s.INVALID] += 1
                index += 1

    def advance(self, boundary_ms: int) -> bool:
        """Close what ends at or before `boundary_ms`, in bounded work; returns whether all is done (call again if not)."""
        assert boundary_ms % MINUTE_MS == 0
        if len(self._live) == 0:
            self._boundary_ms = max(self._boundary_ms, boundary_ms)
            return True
        start_ms = int(self._ints[s.MINUTE, self._live].min())
        if start_ms < boundary_ms:
            if len(self._out) < self._used + 2 * len(self._live) * len(self.intervals):
                self._flush_out()
            self._used, start_ms = closing.tick(
                self._rows,
                self._ints,
                self._live,
                self._calendar,
                self._due,
                self._out,
                self._used,
                start_ms,
                boundary_ms,
            )
            if start_ms < boundary_ms:
                self._boundary_ms = max(self._boundary_ms, start_ms)
                return False
        self._boundary_ms = max(self._boundary_ms, boundary_ms)
        return True

    def expire_holes(self, now_ms: int) -> None:
        """Give up the holes in the ids that late arrivals have not filled within `HOLE_PATIENCE_MS`."""
        evidence.expire_holes(self._rows, self._ints, self._live, now_ms, self._tallies)

    def holes(self) -> list[Hole]:
        """The holes in the ids that may still be filled, one for each slot that has any."""
        found = []
        for slot in self._live[self._ints[s.AHEAD, self._live] > 0].tolist():
            first_id = int(self._ints[s.NEXT_ID, slot])
            places = np.flatnonzero(self._ints[s.AHEAD_MS : s.AHEAD_MS + s.WINDOW, slot])
            end_id = first_id + int(((places - first_id) % s.WINDOW).max())
            found.append(Hole(slot, first_id, end_id, int(self._ints[s.AHEAD_SEEN + places, slot].min())))
        return found

    def sight(self, slots: Iterable[int], at_ms: int) -> None:
        """The feed of these instruments is alive since `at_ms`."""
        chosen = np.fromiter(slots, np.int64)
        self._ints[s.SIGHTED, chosen] = np.minimum(self._ints[s.SIGHTED, chosen], at_ms)

    def blind(self, slots: Iterable[int], since_ms: int) -> None:
        """Nothing is known of these instruments since `since_ms`: their minutes without trades prove nothing."""
        evidence.blind(self._rows, self._ints, np.fromiter(slots, np.int64), since_ms)

    # The exchange's own candles

    def compare(self, klines: Candles) -> Verdicts:
        """Compare closed minutes with the exchange's (`slot` set, settled); equal ones become verified.

        Returns one of `matching.GONE, EARLY, EQUAL, DIFFERS` for each.
        """
        return self._match(matching.compare, klines)

    def replace(self, klines: Candles) -> Verdicts:
        """Put the exchange's candles in the place of closed minutes; returns EQUAL where done, GONE elsewhere.

        The parents must then be folded again from the store and handed back by `rebase`.
        """
        return self._match(matching.replace, klines)

    def _match(self, match: object, klines: Candles) -> Verdicts:
        assert callable(match)
        copies = copied(klines)
        verdicts = np.zeros(len(copies), np.int64)
        match(self._rows, self._ints, copies, verdicts)
        wide = np.flatnonzero(verdicts == matching.TOO_WIDE)
        if len(wide):
            for index in wide:
                self._widen_to(
                    int(copies[index]["slot"]), int(copies[index]["price_scale"]), int(copies[index]["qty_scale"])
                )
            copies = copied(klines)
            match(self._rows, self._ints, copies, verdicts)
        return verdicts

    def rebase(self, parents: Candles, upto_ms: int) -> npt.NDArray[np.bool_]:
        """Take longer candles folded anew from `[open, upto_ms)`; the minutes since are added from the ring.

        `origin` is the lowest rank of what they were folded from. Returns which could be taken.
        """
        taken = np.zeros(len(parents), np.bool_)
        for index, parent in enumerate(copied(parents)):
            slot = int(parent["slot"])
            self._widen_to(slot, int(parent["price_scale"]), int(parent["qty_scale"]))
            k = int(np.searchsorted(self._codes, parent["interval"]))
            taken[index] = matching.rebase(self._rows, self._ints, slot, k, parent, upto_ms)
        return taken

    def _widen_to(self, slot: int, price_scale: int, qty_scale: int) -> None:
        now_price, now_qty = self.scales(slot)
        price_scale, qty_scale = max(price_scale, now_price), max(qty_scale, now_qty)
        if (price_scale, qty_scale) == (now_price, now_qty):
            return
        by_price, by_qty = price_scale - now_price, qty_scale - now_qty
        rows = self._rows[:, slot]
        if (
            max(price_scale, qty_scale) > MAX_SCALE
            or int(rows["high"].max()) * 10**by_price >= MANTISSA_LIMIT
            or _sum_at_most(rows["volume_hi"], rows["volume_lo"]) * 10**by_qty > s.LONGER_HIGH_LIMIT * WORD
            or _sum_at_most(rows["quote_hi"], rows["quote_lo"]) * 10 ** (by_price + by_qty) > s.LONGER_HIGH_LIMIT * WORD
        ):
            raise NumberError(f"slot {slot}: its candles do not fit the scales {price_scale} and {qty_scale}")
        matching.widen(self._rows, self._ints, slot, price_scale, qty_scale)

    # What comes out

    def _flush_out(self) -> None:
        if self._used:
            self._ready.append(copied(self._out[: self._used]))
            self._used = 0

    def collect(self) -> Candles:
        """Every closed candle that is new or changed since the last call, once, in its newest state."""
        every = np.arange(self._slots)
        minutes = self._ints[s.MINUTE, self._live]
        one_close_each = len(minutes) > 0 and minutes.max() <= self._collected_ms + MINUTE_MS
        self._collected_ms = int(minutes.min()) if len(minutes) else 0
        only_changed = self._used == 0 and not self._ready
        any_changed = False
        start = 0
        while start < len(every):
            before = self._used
            self._used, done = matching.collect_dirty(self._rows, self._ints, every[start:], self._out, self._used)
            any_changed = any_changed or self._used > before
            start += done
            if start < len(every):
                self._flush_out()
        self._flush_out()
        if not self._ready:
            return no_candles()
        candles = self._ready[0] if len(self._ready) == 1 else joined(self._ready)
        self._ready = []
        return candles if only_changed or (one_close_each and not any_changed) else _newest_of_each(candles)

    def snapshots(self) -> Candles:
        """The open candles of every live series, longer ones folded to exactly the last boundary."""
        out = np.empty(len(self._live) * len(self.intervals), CANDLE)
        closing.snapshots(self._rows, self._ints, self._live, len(self.intervals), out, 0)
        return out

    def open_candles(self, slots: Sequence[int]) -> Candles:
        """The open candles of some slots as they stand now, running minutes included in the minute's own row only."""
        columns = [0, *(s.RING + 2 * k for k in range(len(self.intervals) - 1))]
        rows = self._rows[np.ix_(columns, slots)].T.copy()
        for index, slot in enumerate(slots):
            rows[index, 0] = self._rows[s.minute_column(self.minute_ms(slot)), slot]
        return rows.reshape(-1)

    def last_trades(self) -> npt.NDArray[np.void]:
        """The frontier of every live instrument that has traded: `LAST_TRADE`, one row each."""
        slots = self._live[self._ints[s.NEXT_ID, self._live] >= 0]
        last = np.zeros(len(slots), LAST_TRADE)
        ints = self._ints[:, slots]
        last["slot"] = slots
        last["price_scale"] = ints[s.PRICE_SCALE]
        last["agg_id"] = ints[s.NEXT_ID] - 1
        last["time_ms"] = ints[s.FRONTIER]
        last["price"] = ints[s.FRONTIER_PRICE]
        return last

    def take_requeries(self) -> list[tuple[int, int]]:
        """The (slot, open_ms) of minutes that a trade came too late for, each once: to be compared with the exchange."""
        found = []
        for slot in np.flatnonzero(self._ints[s.REQUERY, : self._slots]):
            bits = int(self._ints[s.REQUERY, slot]) % (1 << 64)
            found += [
                (int(slot), int(self._rows[column, slot]["open_ms"])) for column in range(s.RING) if bits >> column & 1
            ]
            self._ints[s.REQUERY, slot] = 0
        return found

    @property
    def tally(self) -> Tally:
        """What became of the trades so far."""
        return Tally(*(int(count) for count in self._tallies))


def _sum_at_most(hi: Ints, lo: Ints) -> int:
    """A bound, close above, of the largest of these two-word sums."""
    highest = int(hi.max())
    return (highest + 1) * WORD if highest else int(lo.max())


def _newest_of_each(candles: Candles) -> Candles:
    """Of candles with the same series and open, the last one, in the order of first appearance."""
    # One number says which candle it is: slots below 2^16, intervals below 2^4, minutes since 1970 below 2^40.
    keys = candles["open_ms"] // MINUTE_MS << 20 | candles["slot"].astype(np.int64) << 4 | candles["interval"]
    _, index = np.unique(keys[::-1], return_index=True)
    return picked(candles, np.sort(len(candles) - 1 - index))


def compile_kernels(intervals: Sequence[Interval] = INTERVALS) -> None:
    """Compile every kernel, or load it from the cache, so that nothing compiles while trades flow."""
    engine = Engine(intervals, capacity=1)
    slot = engine.add(2, 2, MINUTE_MS, 1)
    trades = np.zeros(1, TRADE)
    trades["slot"], trades["price"], trades["qty"], trades["time_ms"], trades["agg_id"] = slot, 1, 1, MINUTE_MS, 1
    trades["price_scale"] = 3
    engine.restore(slot, engine.snapshots())
    engine.apply(trades, MINUTE_MS)
    engine.advance(3 * MINUTE_MS)
    engine.sight([slot], MINUTE_MS)
    engine.blind([slot], MINUTE_MS)
    engine.expire_holes(MINUTE_MS)
    candles = engine.collect()
    minutes = candles[candles["interval"] == MINUTE.code]
    engine.compare(minutes)
    engine.replace(minutes)
    engine.collect()
