"""What a backfill does with the database; every function here runs in the store's thread."""

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import numpy as np

from klagg import rules
from klagg.backfill.differences import matched
from klagg.backfill.parents import fold_missing
from klagg.backfill.plan import Day
from klagg.backfill.summary import BackfillSummary
from klagg.gaps import find_gaps
from klagg.interval import INTERVALS, MINUTE, MINUTE_MS, Interval
from klagg.model import Candles, Flag, Instrument, Market, Origin
from klagg.refold import Refolded, Span, refold
from klagg.store import SqliteStore, WriteResult

Returned = TypeVar("Returned")

SPANS_AT_ONCE: Final = 200
"""Spans of absent minutes that one backfill of a symbol asks for once more, the newest first; the others come with the next."""


class Stored:
    """The minutes of one market that a backfill brings, and the longer candles folded from them."""

    def __init__(
        self,
        store: SqliteStore,
        market: Market,
        intervals: Sequence[Interval],
        start_ms: int,
        end_ms: int,
        summary: BackfillSummary,
    ) -> None:
        self._store = store
        self._market = market
        self._intervals = intervals
        self._start_ms = start_ms
        self._end_ms = end_ms
        self._summary = summary

    def known(self, at_ms: int, fn: Callable[..., Returned], *args: object) -> Returned:
        """Call a function of this; what it writes became known at an instant, and new candles are history and no news."""
        with self._store.knowing(at_ms, publish_new=False):
            return fn(*args)

    def closed_upto_ms(self) -> int | None:
        """Up to where a service has closed the market's minutes; None where none ever ran."""
        return self._store.closed_upto(self._market)

    def first_minute(self, instrument_id: int) -> int:
        """Where an instrument's minutes begin: at the start, or at its listing."""
        first = self._store.read(instrument_id, MINUTE, self._start_ms, self._end_ms, 1)
        return int(first["open_ms"][0]) if len(first) else self._start_ms

    def missing(self, day: Day) -> tuple[int, int] | None:
        """From the first to the end of the last minute of a day that is neither verified nor final; None for none."""
        rows = self._store.read(day.instrument_id, MINUTE, day.start_ms, day.end_ms)
        final = rules.is_final(rows["origin"], rows["flags"] & Flag.VERIFIED != 0)
        missing = np.setdiff1d(np.arange(day.start_ms, day.end_ms, MINUTE_MS), rows["open_ms"][final])
        return (int(missing[0]), int(missing[-1]) + MINUTE_MS) if len(missing) else None

    def lacks(self, instrument_id: int, interval: Interval, open_ms: int) -> bool:
        """Whether this candle is not there, or not verified."""
        rows = self._store.read(instrument_id, interval, open_ms, open_ms + 1)
        return len(rows) == 0 or not rows["flags"][0] & Flag.VERIFIED

    def bring(self, instrument: Instrument, instrument_id: int, rows: Candles, start_ms: int, end_ms: int) -> None:
        """Write the minutes (or longer candles) that the exchange has in `[start_ms, end_ms)`, and fold their parents."""
        if len(rows) == 0:
            return
        interval = INTERVALS[int(rows["interval"][0])]
        with self._store.transaction():
            stored = self._store.read(instrument_id, interval, start_ms, end_ms)
            ours, theirs = matched(stored, rows)
            self._summary.differences.note(self._market, instrument.symbol, stored[ours], rows[theirs], "rest")
            self.write(instrument_id, rows)
            span = Span(instrument_id, start_ms, end_ms)
            refolded = refold(self._store, [span], self._intervals, self.closed_upto_ms(), numbers_changed=False)
        self._summary.folded += len(refolded.candles)

    def _put(self, instrument_id: int, rows: Candles) -> WriteResult:
        return self._store.write(np.full(len(rows), instrument_id, np.int64), rows)

    def fold_lacking(self, day: Day) -> None:
        """Fold the longer candles of a day whose minutes are all there, where some are not (an interval kept since)."""
        closed_upto_ms = self.closed_upto_ms()
        with self._store.transaction():
            self._summary.folded += fold_missing(
                self._store, day.instrument_id, self._intervals, day.start_ms, day.end_ms, closed_upto_ms
            )

    def write(self, instrument_id: int, rows: Candles) -> None:
        """Write candles of the exchange, under the store's guard."""
        if len(rows):
            with self._store.transaction():
                result = self._put(instrument_id, rows)
            self._summary.written += int(result.accepted.sum())
            self._summary.changed += int(result.changed.sum())

    def fill_gaps(self, instrument_id: int) -> None:
        """Put candles where there are none between others, so that the series has no hole: `filled`, and so in the queue."""
        store = self._store
        gaps = find_gaps(store, instrument_id, self._start_ms, self._end_ms).filled
        if len(gaps) == 0:
            return
        with self._store.transaction():
            self._summary.filled += int(self._put(instrument_id, gaps).accepted.sum())
            span = Span(instrument_id, int(gaps["open_ms"][0]), int(gaps["open_ms"][-1]) + MINUTE_MS)
            refold(store, [span], self._intervals, self.closed_upto_ms(), numbers_changed=False)

    def fill_longer(self, instrument_id: int, from_ms: int) -> None:
        """Put longer candles where there are none between others, as `fill_gaps` does minutes."""
        limit_ms = self.closed_upto_ms() or self._end_ms
        for interval in self._intervals[1:]:
            gaps = find_gaps(self._store, instrument_id, from_ms, limit_ms, interval).filled
            if len(gaps):
                with self._store.transaction():
                    self._summary.filled += int(self._put(instrument_id, gaps).accepted.sum())

    def unsettled_spans(self, instrument_id: int) -> list[tuple[int, int]]:
        """The minutes between others that the exchange did not give, newest first: from the minute before to the end of the one after.

        One answer that spans them shows whether it has none for them.
        """
        spans: list[tuple[int, int]] = []
        settled_ms = begun_ms = None
        for rows in self._store.iter_read(instrument_id, MINUTE, self._start_ms, self._end_ms):
            settled = rules.is_final(rows["origin"], rows["flags"] & Flag.VERIFIED != 0)
            if settled.all() and begun_ms is None:
                settled_ms = int(rows["open_ms"][-1])
                continue
            for open_ms, is_settled in zip(rows["open_ms"].tolist(), settled.tolist(), strict=True):
                if not is_settled:
                    begun_ms = settled_ms if begun_ms is None else begun_ms
                    continue
                if begun_ms is not None:
                    spans.append((begun_ms, open_ms + MINUTE_MS))
                settled_ms, begun_ms = open_ms, None
        return spans[: -SPANS_AT_ONCE - 1 : -1]

    def judge(self, instrument_id: int, rows: Candles, start_ms: int, end_ms: int, now_ms: int) -> None:
        """Note what an answer lacks between two of its rows; what it lacked at another time too is `unmatched`."""
        if len(rows) < 2:
            return
        with self._store.transaction():
            stored = self._store.read(instrument_id, MINUTE, int(rows["open_ms"][0]), int(rows["open_ms"][-1]))
            lacking = ~np.isin(stored["open_ms"], rows["open_ms"]) & (stored["trades"] == 0)
            lacking &= ~rules.is_final(stored["origin"], stored["flags"] & Flag.VERIFIED != 0)
            lacking &= stored["open_ms"] <= now_ms - rules.ABSENCE_AGE_MS - MINUTE_MS
            proven = self._store.note_absent(instrument_id, MINUTE, stored["open_ms"][lacking].tolist(), now_ms)
            final = stored[np.isin(stored["open_ms"], list(proven))]
            if len(final) == 0:
                return
            final["origin"] = Origin.UNMATCHED
            self._summary.unmatched += int(self._put(instrument_id, final).accepted.sum())
            span = Span(instrument_id, start_ms, end_ms)
            refold(self._store, [span], self._intervals, self.closed_upto_ms(), numbers_changed=False)

    def fold_open(self, instrument: Instrument, instrument_id: int, pieces: Candles, held_ms: int) -> Refolded:
        """Fold the running candles, from these closed `pieces` where the history begins within one; `held_ms` as in `Span`."""
        listed_ms = instrument.listed_ms
        if listed_ms == 0 and len(pieces):
            listed_ms = int(pieces["open_ms"][0])
        elif listed_ms == 0:
            first_ms = self.first_minute(instrument_id)
            listed_ms = first_ms if first_ms > self._start_ms else 0
        span = Span(instrument_id, max(self._end_ms - MINUTE_MS, self._start_ms), self._end_ms, listed_ms, held_ms)
        return refold(self._store, [span], self._intervals, self.closed_upto_ms(), extra_pieces={instrument_id: pieces})
