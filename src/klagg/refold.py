"""Longer candles folded again from the stored shorter ones, after some of those changed or became verified.

Synchronous, on a store: whoever writes candles folds their parents in the same transaction. It works series by series
with one read, one fold and one write for each interval, never candle by candle.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from klagg.engine.fold import fold, restated
from klagg.interval import INTERVALS, MINUTE, MINUTE_MS, Interval, fold_source, tiles
from klagg.model import CANDLE, Candles, Flag, Ints, Origin, no_candles
from klagg.store import SqliteStore

RECENT_MS: Final = 5 * MINUTE_MS
"""An open candle is folded up to this long before what the owner has closed: the newest minutes come from the engine's
memory, which may know more of them than has been committed (trades may be up to three minutes late). But never up to before
that memory begins: what is between would be in neither."""
RUN_CHUNK: Final = 64
"""Minutes read at a time where a changed close runs on past the span."""
_FAR_MS: Final = 1 << 62
_SETTLED: Final = int(Origin.EXCHANGE)
_VERIFIED: Final = int(Flag.VERIFIED)


HeldFrom = Callable[[int], int]
"""By instrument: where the memory of the engine that runs it begins; 0 where none runs."""


def nothing_runs(_instrument_id: int) -> int:
    """A `HeldFrom` where no engine runs."""
    return 0


@dataclass(frozen=True, slots=True)
class Span:
    """Minutes `[start_ms, end_ms)` of one instrument.

    Nothing of it exists before `listed_ms` (0: not known); the engine's memory of it begins at `held_ms` (0: none runs).
    """

    instrument_id: int
    start_ms: int
    end_ms: int
    listed_ms: int = 0
    held_ms: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Refolded:
    """What folding gave.

    `candles[n]` (of `instrument_ids[n]`) were brought to the store: minutes whose price ran on, and whole parents.
    `bases[m]` (of `base_ids[m]`, `slot` 0) are the open candles folded from their open up to `upto_ms[m]`, their `origin` the
    lowest of what they were folded from: they are for `Engine.rebase`.
    """

    instrument_ids: Ints
    candles: Candles
    base_ids: Ints
    bases: Candles
    upto_ms: Ints

    def by_upto(self) -> Iterator[tuple[int, Ints, Candles]]:
        """The bases grouped by `upto_ms`, as the engine takes them: the instant, instrument ids, candles."""
        for upto_ms in np.unique(self.upto_ms):
            chosen = self.upto_ms == upto_ms
            yield int(upto_ms), self.base_ids[chosen], self.bases[chosen]


class _Pile:
    """Candles with their instruments, gathered array by array."""

    def __init__(self) -> None:
        self._ids: list[Ints] = []
        self._candles: list[Candles] = []

    def add(self, instrument_id: int, candles: Candles) -> None:
        if len(candles):
            self._ids.append(np.full(len(candles), instrument_id, np.int64))
            self._candles.append(candles)

    def arrays(self) -> tuple[Ints, Candles]:
        if not self._candles:
            return np.zeros(0, np.int64), no_candles()
        return np.concatenate(self._ids), np.concatenate(self._candles)


def merged(spans: Iterable[Span]) -> list[Span]:
    """The same minutes with overlapping and touching spans of an instrument joined, by instrument and time."""
    found: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.instrument_id, span.start_ms)):
        last = found[-1] if found else None
        if last is not None and last.instrument_id == span.instrument_id and span.start_ms <= last.end_ms:
            found[-1] = replace(last, end_ms=max(last.end_ms, span.end_ms))
        else:
            found.append(span)
    return found


def refold(
    store: SqliteStore,
    spans: Iterable[Span],
    intervals: Sequence[Interval],
    closed_upto_ms: int | None,
    *,
    numbers_changed: bool = True,
    extra_pieces: Mapping[int, Candles] | None = None,
) -> Refolded:
    """Fold the parents of changed or newly verified minutes, one transaction.

    Whole parents that end by `closed_upto_ms` (None: nobody owns the shards, everything may be written) are written under the
    store's guard, verified where all their children are. A parent that its children do not tile is left alone. Where numbers
    changed, the closes run on through the candles without trades that follow, and the open parents come back as bases.

    Args:
        store: where the minutes already stand.
        spans: what changed.
        intervals: the kept ones, `1m` first.
        closed_upto_ms: `store.closed_upto(market)`.
        numbers_changed: whether minutes may have new numbers, rather than only proof that theirs are right.
        extra_pieces: by instrument, closed candles that open bases may be folded from though they are not stored.

    """
    written, bases, uptos = _Pile(), _Pile(), list[int]()
    with store.transaction():
        changed = merged(spans)
        if numbers_changed:
            changed = merged([_run_on(store, span, written) for span in changed])
        for interval in intervals[1:]:
            source = fold_source(interval, intervals)
            parents = _Pile()
            for span in changed:
                parents.add(span.instrument_id, whole(store, span, interval, source, closed_upto_ms))
            ids, candles = parents.arrays()
            if len(candles):
                accepted = store.write(ids, candles).accepted
                for instrument_id in np.unique(ids[accepted]):
                    written.add(int(instrument_id), candles[accepted & (ids == instrument_id)])
        if numbers_changed and closed_upto_ms is not None:
            for span in changed:
                pieces = (extra_pieces or {}).get(span.instrument_id, no_candles())
                for base, upto_ms in _open_bases(store, span, intervals, closed_upto_ms, pieces):
                    bases.add(span.instrument_id, base)
                    uptos.append(upto_ms)
    return Refolded(*written.arrays(), *bases.arrays(), np.array(uptos, np.int64))


def whole(store: SqliteStore, span: Span, interval: Interval, source: Interval, closed_upto_ms: int | None) -> Candles:
    """The closed parents of a span that their stored children tile."""
    start_ms = interval.open_at(span.start_ms)
    end_ms = interval.next_open(interval.open_at(span.end_ms - 1))
    if closed_upto_ms is not None:
        end_ms = min(end_ms, interval.open_at(closed_upto_ms))
    if end_ms <= start_ms:
        return no_candles()
    folded = fold(store.read(span.instrument_id, source, start_ms, end_ms), interval)
    ends = [interval.next_open(open_ms) for open_ms in folded.candles["open_ms"].tolist()]
    whole: Candles = folded.candles[folded.upto_ms == np.array(ends, np.int64)]
    return whole


# Closes that run on


def _run_on(store: SqliteStore, span: Span, written: _Pile) -> Span:
    """Carry closes through the minutes without trades of a span and after it; returns the span of what changed."""
    start_ms, end_ms = span.start_ms, span.end_ms
    read_to_ms = end_ms + MINUTE_MS
    while True:
        minutes = store.read(span.instrument_id, MINUTE, start_ms, read_to_ms)
        if len(minutes) == 0:
            return span
        changed, runs = _carried(minutes)
        if len(changed):
            result = store.write(np.full(len(changed), span.instrument_id, np.int64), changed)
            written.add(span.instrument_id, changed[result.accepted])
            end_ms = max(end_ms, int(changed["open_ms"][-1]) + MINUTE_MS)
        # The last minute read stays as it was, or no more follow: nothing runs on from here.
        last_ms = int(minutes["open_ms"][-1])
        if not runs or last_ms + MINUTE_MS < read_to_ms:
            return replace(span, end_ms=end_ms)
        start_ms, read_to_ms = last_ms, last_ms + (RUN_CHUNK + 1) * MINUTE_MS


def _carried(minutes: Candles) -> tuple[Candles, bool]:
    """The minutes without trades that must take over the close before them, and whether the last is among them."""
    settled = (minutes["flags"] & _VERIFIED != 0) | (minutes["origin"] >= _SETTLED)
    anchors = (minutes["trades"] > 0) | settled
    anchors[0] = True
    anchors[1:] |= np.diff(minutes["open_ms"]) != MINUTE_MS
    if anchors.all():
        return no_candles(), False
    rows = restated(minutes, int(minutes["price_scale"].max()), int(minutes["qty_scale"].max()))
    anchor = np.maximum.accumulate(np.where(anchors, np.arange(len(rows)), 0))
    prices = rows["close"][anchor]
    differs = ~anchors & (rows["close"] != prices)
    for name in ("open", "high", "low", "close"):
        rows[name] = np.where(differs, prices, rows[name])
    return rows[differs], bool(differs[-1])


# Open candles


def _open_bases(
    store: SqliteStore, span: Span, intervals: Sequence[Interval], closed_upto_ms: int, extra: Candles
) -> Iterator[tuple[Candles, int]]:
    """The open parents that a span reaches into, each folded up to an instant it comes with."""
    for interval in intervals[1:]:
        open_ms = interval.open_at(closed_upto_ms)
        if span.end_ms <= open_ms or open_ms == closed_upto_ms:
            continue
        upto_ms = max(open_ms, closed_upto_ms - RECENT_MS, min(span.held_ms, closed_upto_ms))
        if open_ms == upto_ms or MINUTE.open_at(span.listed_ms) >= upto_ms:
            base = _empty_base(store, span.instrument_id, interval, open_ms)
        else:
            base = no_candles()
            # Before a listing there is nothing: the first piece is the one that contains it.
            starts = {max(open_ms, piece.open_at(span.listed_ms)) for piece in INTERVALS if tiles(piece, interval)}
            for start_ms in sorted(starts, reverse=True):
                base = _tiled_base(store, span.instrument_id, intervals, interval, start_ms, upto_ms, extra)
                if len(base):
                    break
        if len(base):
            base["open_ms"] = open_ms
            yield base, upto_ms


def _empty_base(store: SqliteStore, instrument_id: int, interval: Interval, open_ms: int) -> Candles:
    """An open candle without trades, at the close before it (or the first open in it)."""
    before = store.read(instrument_id, MINUTE, 0, open_ms, 1, descending=True)
    if len(before) == 0:
        before = store.read(instrument_id, MINUTE, open_ms, _FAR_MS, 1)
        if len(before) == 0:
            return before
        before["close"] = before["open"]
    base = np.zeros(1, CANDLE)
    base["interval"] = interval.code
    base["origin"] = Origin.UNMATCHED  # nothing in it yet: the lowest origin of nothing
    base["price_scale"], base["qty_scale"] = before["price_scale"], before["qty_scale"]
    for name in ("open", "high", "low", "close"):
        base[name] = before["close"]
    base["first_id"] = base["last_id"] = -1
    return base


def _tiled_base(
    store: SqliteStore,
    instrument_id: int,
    intervals: Sequence[Interval],
    parent: Interval,
    start_ms: int,
    upto_ms: int,
    extra: Candles,
) -> Candles:
    """What the closed candles in `[start_ms, upto_ms)` make, the longest that fit first; none where they leave a break."""
    kept = [child for child in reversed(intervals) if tiles(child, parent)]
    pieces: list[Candles] = []
    cursor_ms = start_ms
    while cursor_ms < upto_ms:
        piece = _extra_at(extra, cursor_ms, upto_ms, parent)
        for at, child in enumerate(kept):
            if len(piece):
                break
            if child.is_open(cursor_ms):
                end_ms = child.open_at(upto_ms) if at == 0 else min(upto_ms, _next_aligned(kept[at - 1], cursor_ms))
                piece = _unbroken(store.read(instrument_id, child, cursor_ms, end_ms), child, cursor_ms, upto_ms)
        if len(piece) == 0:
            return no_candles()
        pieces.append(piece)
        cursor_ms = INTERVALS[int(piece["interval"][-1])].next_open(int(piece["open_ms"][-1]))
    folded = fold(np.concatenate(pieces), parent)
    base = folded.candles[:1].copy()
    base["origin"] = folded.lowest[0]
    assert len(folded.candles) == 1
    return base


def _next_aligned(interval: Interval, t_ms: int) -> int:
    """The first open of the interval after `t_ms`."""
    return interval.next_open(interval.open_at(t_ms))


def _extra_at(extra: Candles, cursor_ms: int, upto_ms: int, parent: Interval) -> Candles:
    """The longest of the pieces handed in that opens at the cursor and ends in time: one, or none."""
    found = extra[extra["open_ms"] == cursor_ms]
    fits = [
        (INTERVALS[code].next_open(cursor_ms), index)
        for index, code in enumerate(found["interval"].tolist())
        if tiles(INTERVALS[code], parent) and INTERVALS[code].next_open(cursor_ms) <= upto_ms
    ]
    return found[max(fits)[1] :][:1] if fits else no_candles()


def _unbroken(candles: Candles, interval: Interval, cursor_ms: int, upto_ms: int) -> Candles:
    """The leading candles that follow one another from the cursor and end by `upto_ms`."""
    count = 0
    for open_ms in candles["open_ms"].tolist():
        end_ms = interval.next_open(open_ms)
        if open_ms != cursor_ms or end_ms > upto_ms:
            break
        cursor_ms = end_ms
        count += 1
    return candles[:count]
