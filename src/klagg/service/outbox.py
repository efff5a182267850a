"""What a shard has produced and the database has not yet committed: kept, coalesced, bounded, given up only on record."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from klagg.interval import MINUTE_MS
from klagg.model import CANDLE, Candles, Flag, Ints, no_candles
from klagg.store.rows import end_ms

DEFAULT_BOUND_BYTES: Final = 64 * 1024 * 1024
"""Hours of a whole market's minutes: past it the oldest whole minutes are given up on record and fetched again later."""

ROW_BYTES: Final = CANDLE.itemsize + 8
"""A candle and its instrument's identifier."""
CLOSED: Final = int(Flag.CLOSED)
AMENDED: Final = int(Flag.AMENDED)


@dataclass(frozen=True, slots=True)
class Batch:
    """Candles on their way to the database: `instrument_ids[n]` goes with `candles[n]`."""

    instrument_ids: Ints
    candles: Candles

    @property
    def nbytes(self) -> int:
        """What it takes in memory."""
        return self.instrument_ids.nbytes + self.candles.nbytes


EMPTY: Final = Batch(np.zeros(0, np.int64), no_candles())


class Outbox:
    """Pending candles of one shard; a candle changed several times before a commit goes out once, in its newest state."""

    def __init__(self, bound_bytes: int = DEFAULT_BOUND_BYTES) -> None:
        self._bound_bytes = bound_bytes
        self._pending: list[Batch] = []
        self._in_flight = EMPTY

    def add(self, instrument_ids: Ints, candles: Candles) -> None:
        """Keep candles until they are committed."""
        if len(candles):
            self._pending.append(Batch(instrument_ids, candles))

    @property
    def nbytes(self) -> int:
        """What waits in memory, the batch on its way included."""
        return self._in_flight.nbytes + sum(batch.nbytes for batch in self._pending)

    @property
    def candles(self) -> int:
        """How many candles wait, before coalescing."""
        return len(self._in_flight.candles) + sum(len(batch.candles) for batch in self._pending)

    def take(self) -> Batch:
        """Everything that waits, coalesced; it stays in memory until `committed` or `failed` is called."""
        assert len(self._in_flight.candles) == 0, "one batch at a time"
        self._in_flight = coalesce(self._pending)
        self._pending = []
        return self._in_flight

    def committed(self) -> None:
        """The batch that was taken is durable."""
        self._in_flight = EMPTY

    def failed(self) -> None:
        """The batch that was taken is not durable: it waits again, older than what came meanwhile."""
        self._pending.insert(0, self._in_flight)
        self._in_flight = EMPTY

    def shed(self) -> list[tuple[int, int, int]]:
        """Give up the oldest whole minutes where more waits than the bound allows: whatever closed at their ends.

        Returns the minutes at whose ends something was given up: (instrument_id, start_ms, end_ms) each, for the record.
        """
        if self.nbytes <= self._bound_bytes:
            return []
        batch = coalesce(self._pending)
        closed = (batch.candles["flags"] & CLOSED) != 0
        excess = self.nbytes - self._bound_bytes
        # By the end, not by the open: a longer candle opened long ago and closed with its last minute.
        ends_ms = end_ms(batch.candles)
        given_up = np.zeros(len(batch.candles), np.bool_)
        for at_ms in np.unique(ends_ms[closed]):
            if given_up.sum() * ROW_BYTES >= excess:
                break
            given_up |= closed & (ends_ms == at_ms)
        ids, lost_ms = batch.instrument_ids[given_up], ends_ms[given_up]
        self._pending = [Batch(batch.instrument_ids[~given_up], batch.candles[~given_up])]
        return [
            (int(instrument_id), int(of_ms.min()) - MINUTE_MS, int(of_ms.max()))
            for instrument_id in np.unique(ids)
            if len(of_ms := lost_ms[ids == instrument_id])
        ]


def coalesce(batches: list[Batch]) -> Batch:
    """The newest state of each candle, in the order of first appearance; of open snapshots only the newest of a series.

    That the owner amended a candle is kept if any of its states said so.
    """
    if not batches:
        return EMPTY
    if len(batches) == 1:
        ids, candles = batches[0].instrument_ids, batches[0].candles
    else:
        ids = np.concatenate([batch.instrument_ids for batch in batches])
        candles = np.concatenate([batch.candles for batch in batches])
    closed = (candles["flags"] & CLOSED) != 0
    series = ids * 16 + candles["interval"]
    opens = np.where(closed, candles["open_ms"], -1)
    order = np.lexsort((np.arange(len(candles)), opens, series))
    last = np.ones(len(order), np.bool_)
    last[:-1] = (series[order][1:] != series[order][:-1]) | (opens[order][1:] != opens[order][:-1])
    if last.all():
        return Batch(ids, candles)
    groups: Ints = np.cumsum(last) - last
    amended = np.zeros(int(last.sum()), np.uint8)
    np.bitwise_or.at(amended, groups, candles["flags"][order] & AMENDED)
    kept = order[last]
    newest = candles[kept]
    newest["flags"] |= amended
    back = np.argsort(kept)
    return Batch(ids[kept][back], newest[back])
