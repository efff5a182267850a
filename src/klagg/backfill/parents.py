"""Longer candles of what a backfill brings, without reading back what it just wrote."""

from collections.abc import Sequence

import numpy as np

from klagg.engine.fold import fold
from klagg.interval import MINUTE, MINUTE_MS, Interval, fold_source
from klagg.model import Candles
from klagg.refold import Span, refold, whole
from klagg.store import SqliteStore


def fold_brought(
    store: SqliteStore, instrument_id: int, intervals: Sequence[Interval], minutes: Candles, closed_upto_ms: int | None
) -> int:
    """Fold the parents of minutes (ascending) that are all stored as they are here: how many were written.

    Those that lie within are folded from the minutes in hand, those at the two ends from the store.
    """
    children = {MINUTE: minutes}
    folded = 0
    for interval in intervals[1:]:
        made = fold(children[fold_source(interval, intervals)], interval)
        ends = np.array([interval.next_open(open_ms) for open_ms in made.candles["open_ms"].tolist()], np.int64)
        parents: Candles = made.candles[made.upto_ms == ends]
        children[interval] = parents
        if len(parents):
            folded += int(store.write(np.full(len(parents), instrument_id, np.int64), parents).accepted.sum())
    ends_of_it = [Span(instrument_id, at, at + MINUTE_MS) for at in minutes["open_ms"][[0, -1]].tolist()]
    return folded + len(refold(store, ends_of_it, intervals, closed_upto_ms, numbers_changed=False).candles)


def fold_missing(
    store: SqliteStore,
    instrument_id: int,
    intervals: Sequence[Interval],
    start_ms: int,
    end_ms: int,
    closed_upto_ms: int | None,
) -> int:
    """Fold the longer candles that reach into `[start_ms, end_ms)` and are not there though their children are: how many."""
    folded = 0
    for interval in intervals[1:]:
        first_ms = max(interval.open_at(start_ms), 0)
        last_ms = end_ms if closed_upto_ms is None else min(interval.open_at(closed_upto_ms), end_ms)
        opens = np.fromiter(interval.opens(first_ms, last_ms), np.int64)
        if len(opens) == len(store.revisions(instrument_id, interval, first_ms, last_ms)):
            continue
        missing = np.setdiff1d(opens, store.read(instrument_id, interval, first_ms, last_ms)["open_ms"])
        cuts = np.flatnonzero(np.diff(np.searchsorted(opens, missing)) > 1) + 1
        for run in np.split(missing, cuts):
            span = Span(instrument_id, int(run[0]), interval.next_open(int(run[-1])))
            candles = whole(store, span, interval, fold_source(interval, intervals), closed_upto_ms)
            if len(candles):
                accepted = store.write(np.full(len(candles), instrument_id, np.int64), candles).accepted
                folded += int(accepted.sum())
    return folded
