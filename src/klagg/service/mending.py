"""`klagg check --repair`: what can be mended without the exchange is, and the rest is handed over to those who ask it.

A candle that cannot be true is removed, one that may be false is taken back to unverified, what is missing is filled or put on
record as a gap: all of it then stands in the repair's own queue, so that `klagg run` or `klagg audit --repair` settles it.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from klagg.check import Finding, Kind, Report, sound_snapshot
from klagg.interval import INTERVALS, MINUTE, MINUTE_MS, Interval, tiles
from klagg.model import Candles, Flag, Gap, Market, Origin, no_candles
from klagg.refold import Span, refold
from klagg.store import SqliteStore

ROUNDS: Final = 6
"""Mending one thing may show another (a row removed is a hole); so often the database is looked at again."""
FINDINGS: Final = 20_000
"""Findings that one round acts on; what is beyond comes with the next."""
FILLED_AT_ONCE: Final = 10_000
"""A hole of more minutes than this (a week) is put on record as a gap, rather than filled with candles without evidence."""
REASON: Final = "missing: found by check"
_FAR_MS: Final = 1 << 62
_UNTRUE: Final = (Kind.MISALIGNED, Kind.PRICES, Kind.VOLUMES, Kind.SCALE)
_DOUBTFUL: Final = (Kind.VALUE, Kind.ORIGIN, Kind.MARKS)

Done = Counter[str]
Key = tuple[Market, str]


@dataclass(slots=True)
class Mended:
    """What was found at first, what is still wrong, and what was done, by name; notes are what rows without a series had."""

    found: Report
    left: Report
    done: Done = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    @property
    def handed_over(self) -> int:
        """Candles and gaps that the exchange has to tell."""
        return self.done["taken back to unverified"] + self.done["missing minutes filled"] + self.done["gaps recorded"]

    def as_dict(self) -> dict[str, Any]:
        """The report with plain values, as `klagg check --repair --json` prints it."""
        return {
            **self.left.as_dict(),
            "found": self.found.as_dict(),
            "mended": {name.replace(" ", "_"): count for name, count in sorted(self.done.items()) if count},
            "notes": self.notes,
            "handed_over": self.handed_over,
        }


def mend(store: SqliteStore, recheck: Callable[[int], Report], now_ms: int) -> Mended:
    """Check by `recheck` (told how many findings to keep), mend what it finds, and check again until nothing more can be done.

    Args:
        store: the database, open for writing.
        recheck: the check, as narrow as its user wants it.
        now_ms: the host's time: when this became known, and against which a lease is fresh.

    """
    report = recheck(FINDINGS)
    mended = Mended(report, report)
    for _ in range(ROUNDS):
        if mended.left.ok and not _bad_snapshots(store):
            break
        before = mended.done.total() + len(mended.notes)
        with store.knowing(now_ms):
            _Round(store, mended, now_ms).run()
        if mended.done.total() + len(mended.notes) == before:
            break
        mended.left = recheck(FINDINGS)
    return mended


def _bad_snapshots(store: SqliteStore) -> list[tuple[int, Interval]]:
    """Open snapshots that a start would refuse."""
    return [
        (stored.id, interval)
        for stored in store.instruments()
        for interval in INTERVALS
        if not sound_snapshot(store.open_candle(stored.id, interval), interval)
    ]


class _Round:
    """One pass over the findings of a check."""

    def __init__(self, store: SqliteStore, mended: Mended, now_ms: int) -> None:
        self._store = store
        self._mended = mended
        self._done = mended.done
        self._now_ms = now_ms
        self._ids = {(one.instrument.market, one.instrument.symbol): one for one in store.instruments()}
        self._findings: dict[Kind, list[Finding]] = defaultdict(list)
        for finding in mended.left.findings:
            self._findings[finding.kind].append(finding)

    def run(self) -> None:
        """Tables first, then each symbol's candles, each in a transaction of its own."""
        store = self._store
        if self._mended.left.malformed:
            with store.transaction():
                self._mended.notes += list(store.mending.sweep())
        for number, interval in _bad_snapshots(store):
            store.mending.drop_snapshot(number, interval)
            self._done["open snapshots removed"] += 1
        self._boundaries()
        by_symbol: dict[Key, list[Finding]] = defaultdict(list)
        for finding in self._mended.left.findings:
            if (finding.market, finding.symbol) in self._ids:
                by_symbol[finding.market, finding.symbol].append(finding)
        for key, findings in by_symbol.items():
            with store.transaction():
                self._symbol(key, findings)
        if self._findings[Kind.TALLY]:
            store.mending.recount()
            self._done["tallies counted again"] += len(self._findings[Kind.TALLY])

    def _boundaries(self) -> None:
        for market in {finding.market for finding in self._findings[Kind.CLOSED_UPTO]}:
            ownership = self._store.ownership(market)
            if ownership is not None and ownership.owner and ownership.lease_until_ms > self._now_ms:
                self._mended.notes.append(
                    f"market {market.value}: its owner {ownership.owner} runs: end it, then check again"
                )
                continue
            for wrong in self._store.mending.boundaries(market):
                self._store.mending.put_boundary(market, wrong.shards, wrong.snapshots_ms)
                self._done["shards' closed_upto put right"] += len(wrong.shards)

    def _symbol(self, key: Key, findings: Sequence[Finding]) -> None:
        stored = self._ids[key]
        number, mending = stored.id, self._store.mending
        unsure_boundary = any(one.market is key[0] for one in self._findings[Kind.CLOSED_UPTO])
        is_ahead = {one.interval for one in findings if one.kind is Kind.AHEAD}
        for finding in findings:
            if finding.kind is Kind.AHEAD and not unsure_boundary:
                self._done["candles removed"] += mending.remove_from(number, finding.interval, finding.open_ms)
            elif finding.kind is Kind.SNAPSHOT and finding.interval not in is_ahead and not unsure_boundary:
                mending.drop_snapshot(number, finding.interval)
                self._done["open snapshots removed"] += 1
            elif finding.kind is Kind.IDS:
                self._done["trade ids cleared"] += mending.clear_ids(number, finding.interval, [finding.open_ms])
        removed, doubted = self._sorted(number, findings)
        for interval, opens in self._blamed(number, [one for one in findings if one.kind is Kind.PARENT]).items():
            doubted[interval] |= opens
        spans = [
            (open_ms, interval) for pile in (removed, doubted) for interval, opens in pile.items() for open_ms in opens
        ]
        for interval, opens in removed.items():
            self._done["candles removed"] += mending.remove(number, interval, sorted(opens))
        for interval, opens in doubted.items():
            self._done["taken back to unverified"] += mending.distrust(
                number, interval, sorted(opens - removed[interval])
            )
        if not is_ahead:
            spans += self._fill(key, [one for one in findings if one.kind is Kind.HOLE])
        self._refold(key, spans)

    def _sorted(
        self, number: int, findings: Sequence[Finding]
    ) -> tuple[dict[Interval, set[int]], dict[Interval, set[int]]]:
        """Opens of candles that cannot be true, and of those that may be false."""
        removed: dict[Interval, set[int]] = defaultdict(set)
        doubted: dict[Interval, set[int]] = defaultdict(set)
        for finding in findings:
            interval, open_ms = finding.interval, finding.open_ms
            match finding.kind:
                case Kind.SCALE if "until_ms" in finding.values:
                    doubted[interval].update(self._opens(number, interval, open_ms, int(finding.values["until_ms"])))
                case Kind.FLAT:
                    doubted[interval].update({open_ms, interval.open_at(open_ms - 1)})
                case kind if kind in _UNTRUE:
                    removed[interval].add(open_ms)
                case kind if kind in _DOUBTFUL:
                    doubted[interval].add(open_ms)
        return removed, doubted

    def _opens(self, number: int, interval: Interval, open_ms: int, until_ms: int) -> list[int]:
        rows = self._store.read_raw(number, interval, open_ms, until_ms or _FAR_MS)
        opens: list[int] = rows["open_ms"].tolist()
        return opens

    # Who is wrong: a longer candle, or its minutes

    def _blamed(self, number: int, findings: Sequence[Finding]) -> dict[Interval, set[int]]:
        """What to doubt where longer candles are not the fold of their minutes.

        A longer candle that is alone with it, while a shorter one within it or a longer one around it agrees with the minutes, is
        wrong itself. Else the minutes of the shortest one that disagrees are doubted with it: the exchange tells.
        """
        wrong = {(one.interval, one.open_ms) for one in findings}
        doubted: dict[Interval, set[int]] = defaultdict(set)
        for interval, open_ms in sorted(wrong, key=lambda item: item[0].code):
            end_ms = interval.next_open(open_ms)
            if any(other.code < interval.code and open_ms <= start_ms < end_ms for other, start_ms in wrong):
                continue  # what is wrong within it is mended first
            doubted[interval].add(open_ms)
            if not self._minutes_are_right(number, interval, open_ms, wrong):
                doubted[MINUTE].update(range(open_ms, end_ms, MINUTE_MS))
        return doubted

    def _minutes_are_right(
        self, number: int, interval: Interval, open_ms: int, wrong: set[tuple[Interval, int]]
    ) -> bool:
        for other in INTERVALS[1:]:
            if other.code < interval.code and tiles(other, interval):
                rows = self._store.read_raw(number, other, open_ms, interval.next_open(open_ms))
                if len(rows):
                    return True  # none of these is among the wrong ones
            elif other.code > interval.code and tiles(interval, other):
                around_ms = other.open_at(open_ms)
                if (other, around_ms) not in wrong and self._is_whole(number, other, around_ms):
                    return True
        return False

    def _is_whole(self, number: int, interval: Interval, open_ms: int) -> bool:
        """Whether a longer candle is there and could be compared with all of its minutes."""
        end_ms = interval.next_open(open_ms)
        if not len(self._store.read_raw(number, interval, open_ms, open_ms + 1)):
            return False
        return len(self._store.read_raw(number, MINUTE, open_ms, end_ms)) * MINUTE_MS == end_ms - open_ms

    # What is missing

    def _fill(self, key: Key, holes: Iterable[Finding]) -> list[tuple[int, Interval]]:
        """Missing minutes go on at the close before them, without evidence; what longer candles lack is folded after."""
        number = self._ids[key].id
        touched: list[tuple[int, Interval]] = []
        for hole in holes:
            start_ms, end_ms = hole.open_ms, int(hole.values["until_ms"])
            if hole.interval is not MINUTE:
                touched += [(start_ms, hole.interval), (end_ms - 1, hole.interval)]
                continue
            before = self._store.read_raw(number, MINUTE, start_ms - MINUTE_MS, start_ms)
            if (end_ms - start_ms) // MINUTE_MS > FILLED_AT_ONCE or not len(before):
                gap = Gap(*key, start_ms, end_ms, REASON)
                if gap not in self._store.gaps(key[0]):
                    self._store.record_gap(gap, self._now_ms)
                    self._done["gaps recorded"] += 1
                continue
            filled = fillers(before, start_ms, end_ms)
            written = self._store.write(np.full(len(filled), number, np.int64), filled).accepted
            self._done["missing minutes filled"] += int(written.sum())
            touched += [(start_ms, MINUTE), (end_ms - MINUTE_MS, MINUTE)]
        return touched

    def _refold(self, key: Key, touched: Sequence[tuple[int, Interval]]) -> None:
        """Fold the longer candles around what was touched, from minutes that are there now."""
        stored = self._ids[key]
        kept = self._store.intervals(key[0])
        held = {one for one in INTERVALS if len(self._store.read_raw(stored.id, one, -_FAR_MS, _FAR_MS, 1))}
        intervals = [one for one in INTERVALS if one is MINUTE or one in held or one in kept]
        spans = []
        for open_ms, interval in touched:
            start_ms = interval.open_at(open_ms)
            spans.append(Span(stored.id, start_ms, interval.next_open(start_ms), stored.instrument.listed_ms))
        if spans:
            closed_upto_ms = self._store.closed_upto(key[0])
            refolded = refold(self._store, spans, intervals, closed_upto_ms, numbers_changed=True)
            self._done["longer candles folded"] += int((refolded.candles["interval"] != MINUTE.code).sum())


def fillers(before: Candles, start_ms: int, end_ms: int) -> Candles:
    """Minutes `[start_ms, end_ms)` at the close of the one before, as the clock makes them where nothing is known."""
    opens = np.arange(start_ms, end_ms, MINUTE_MS)
    filled = no_candles(len(opens))
    filled["open_ms"] = opens
    filled["price_scale"], filled["qty_scale"] = before["price_scale"][0], before["qty_scale"][0]
    for name in ("open", "high", "low", "close"):
        filled[name] = before["close"][0]
    filled["origin"], filled["flags"] = Origin.FILLED, Flag.CLOSED
    filled["first_id"] = filled["last_id"] = -1
    return filled
