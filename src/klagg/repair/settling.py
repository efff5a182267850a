"""What an answer of the exchange means for the stored candles: written, found lacking, folded on.

Synchronous, in the store's thread, one transaction each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from klagg.interval import INTERVALS, Interval, fold_source
from klagg.model import Candles, Flag, Market, Origin
from klagg.refold import Refolded, Span, refold, whole
from klagg.repair.plan import Fetch, Queue
from klagg.repair.queue import LONGER_AGE_MS
from klagg.store import SqliteStore

UNMATCHED_AGE_MS: Final = 600_000
"""A kline that the exchange still does not have this long after the close will not come."""


@dataclass(frozen=True, slots=True, eq=False)
class Settled:
    """What became of one answer in the store."""

    accepted: Candles
    equal: int
    changed: int
    differences: int
    unmatched: int
    refused: int
    refolded: Refolded

    @property
    def ended(self) -> int:
        """How many candles were brought to an end."""
        return self.equal + self.changed + self.unmatched


def settle(
    store: SqliteStore,
    market: Market,
    intervals: Sequence[Interval],
    fetch: Fetch,
    rows: Candles,
    *,
    listed_ms: int,
    now_ms: int,
) -> Settled:
    """Write an answer, mark what it lacks, fold the parents."""
    inside = (rows["open_ms"] >= fetch.start_ms) & (rows["open_ms"] < fetch.end_ms)
    if fetch.opens:
        inside &= np.isin(rows["open_ms"], list(fetch.opens))
    wanted = rows[inside]
    with store.transaction():
        held = store.read(fetch.instrument_id, fetch.interval, fetch.start_ms, fetch.end_ms)
        result = store.write(np.full(len(wanted), fetch.instrument_id, np.int64), wanted)
        lacking = _lacking(fetch, rows, held, now_ms)
        if len(lacking):
            store.write(np.full(len(lacking), fetch.instrument_id, np.int64), lacking)
        touched = [*wanted["open_ms"][result.accepted].tolist(), *lacking["open_ms"].tolist()]
        spans = []
        if touched:
            end_ms = fetch.interval.next_open(max(touched))
            spans = [Span(fetch.instrument_id, min(touched), end_ms, listed_ms)]
        refolded = refold(
            store,
            spans,
            intervals,
            store.closed_upto(market),
            numbers_changed=bool(result.changed.any()) or len(wanted) > len(held),
        )
    evident = held["open_ms"][(held["origin"] >= Origin.FLAT) & (held["origin"] <= Origin.TRADES)]
    changed = result.accepted & (result.changed | ~np.isin(wanted["open_ms"], held["open_ms"]))
    return Settled(
        accepted=wanted[result.accepted],
        equal=int((result.accepted & ~changed).sum()),
        changed=int(changed.sum()),
        differences=int(np.isin(wanted["open_ms"][result.changed], evident).sum()),
        unmatched=len(lacking),
        refused=int((result.revisions < 0).sum()),
        refolded=refolded,
    )


def _lacking(fetch: Fetch, rows: Candles, held: Candles, now_ms: int) -> Candles:
    """Our candles for which the exchange has none: it answered with later rows, or had its time."""
    newest_ms = int(rows["open_ms"].max()) if len(rows) else -1
    old_ms = now_ms - UNMATCHED_AGE_MS
    ends_ms = np.array([fetch.interval.next_open(open_ms) for open_ms in held["open_ms"].tolist()], np.int64)
    final = (held["open_ms"] < newest_ms) | (ends_ms <= old_ms)
    unsettled = (held["flags"] & Flag.VERIFIED == 0) & (held["origin"] != Origin.UNMATCHED)
    lacking: Candles = held[final & unsettled & ~np.isin(held["open_ms"], rows["open_ms"])].copy()
    if fetch.opens:
        lacking = lacking[np.isin(lacking["open_ms"], list(fetch.opens))]
    lacking["origin"] = Origin.UNMATCHED
    return lacking


def unsettled_longer(
    store: SqliteStore, market: Market, intervals: Sequence[Interval], queue: Queue, now_ms: int
) -> dict[tuple[int, int], list[int]]:
    """Fold longer candles from what is there now; those whose own kline must be fetched."""
    wanted: dict[tuple[int, int], list[int]] = {}
    with store.transaction():
        closed_upto_ms = store.closed_upto(market)
        # Shorter ones first: they are what the next longer ones are folded from.
        for (instrument_id, code), opens in sorted(queue.items(), key=lambda item: item[0][1]):
            interval = INTERVALS[code]
            source = fold_source(interval, intervals)
            for open_ms in opens:
                end_ms = interval.next_open(open_ms)
                folded = whole(store, Span(instrument_id, open_ms, end_ms), interval, source, closed_upto_ms)
                if len(folded):
                    store.write(np.full(len(folded), instrument_id, np.int64), folded)
                row = store.read(instrument_id, interval, open_ms, open_ms + 1)
                if len(row) == 0 or row["flags"][0] & Flag.VERIFIED or row["origin"][0] == Origin.UNMATCHED:
                    continue
                if end_ms <= now_ms - (UNMATCHED_AGE_MS if len(folded) else LONGER_AGE_MS):
                    wanted.setdefault((instrument_id, code), []).append(open_ms)
    return wanted
