"""One piece judged: the database's candles against the exchange's, and what is done about the difference.

Synchronous: `judge` is pure, `mend` one transaction in the store's thread.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from klagg.audit.comparing import Mask, differences, differing
from klagg.audit.planning import Piece
from klagg.audit.report import Kind
from klagg.interval import Interval
from klagg.model import Candles, Flag, Ints, Market, Origin
from klagg.refold import Refolded, Span, refold
from klagg.store import Life, SqliteStore

LATE_MS: Final = 600_000
"""A kline that the exchange still does not have this long after the close will not come."""
OFF_GRID: Final = "no candle of the interval opens there"
UNLISTED: Final = "the symbol was not listed"


@dataclass(frozen=True, slots=True)
class Flaw:
    """One candle that is wrong: what, and the values of both."""

    kind: Kind
    open_ms: int
    fields: dict[str, tuple[str, str]] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a piece came to."""

    equal_verified: int
    equal_unverified: int
    unmatched: int
    undecided: int
    flaws: list[Flaw]

    def suspects(self) -> list[int]:
        """Opens of flaws that a second answer of the exchange must confirm: they accuse what was taken for certain."""
        grave = (Kind.VERIFIED_DIFFERS, Kind.EXTRA)
        return [flaw.open_ms for flaw in self.flaws if flaw.kind in grave and flaw.note != OFF_GRID]


def is_verified(candles: Candles) -> Mask:
    """Which candles are marked verified."""
    mask: Mask = (candles["flags"] & Flag.VERIFIED) != 0
    return mask


def judge(interval: Interval, ours: Candles, theirs: Candles, lives: Sequence[Life], now_ms: int) -> Verdict:
    """Compare one piece.

    Args:
        interval: of both.
        ours: the database's candles, ascending, whatever they hold.
        theirs: the exchange's settled candles, ascending; they may reach beyond the piece, as evidence that it has answered.
        lives: when the symbol was listed.
        now_ms: the exchange's time.

    """
    flaws: list[Flaw] = []
    unmatched = undecided = 0
    _, mine, its = np.intersect1d(ours["open_ms"], theirs["open_ms"], assume_unique=True, return_indices=True)
    both, kline = ours[mine], theirs[its]
    differ, verified = differing(both, kline), is_verified(both)
    was_unmatched = both["origin"] == Origin.UNMATCHED
    for at in np.flatnonzero(differ | was_unmatched).tolist():
        kind = Kind.VERIFIED_DIFFERS if verified[at] else Kind.UNMATCHED_THERE if was_unmatched[at] else Kind.DIFFERS
        flaws.append(Flaw(kind, int(both["open_ms"][at]), differences(both[at], kline[at])))
    newest_ms = int(theirs["open_ms"].max()) if len(theirs) else -1
    alone = ours[~np.isin(ours["open_ms"], theirs["open_ms"])]
    for candle in alone:
        open_ms = int(candle["open_ms"])
        if not interval.is_open(open_ms):
            flaws.append(Flaw(Kind.EXTRA, open_ms, note=OFF_GRID))
        elif candle["origin"] == Origin.UNMATCHED and not candle["flags"] & Flag.VERIFIED:
            unmatched += 1
        elif open_ms < newest_ms or interval.next_open(open_ms) <= now_ms - LATE_MS:
            flaws.append(Flaw(Kind.EXTRA, open_ms, note="" if _is_listed(interval, open_ms, lives) else UNLISTED))
        else:
            undecided += 1
    equal = ~(differ | was_unmatched)
    return Verdict(int((equal & verified).sum()), int((equal & ~verified).sum()), unmatched, undecided, flaws)


def missing(piece: Piece, ours: Candles, theirs: Candles) -> list[Flaw]:
    """The exchange's candles of a piece that the database lacks."""
    opens, start_ms, end_ms = theirs["open_ms"], piece.start_ms, piece.end_ms
    if not piece.whole:
        start_ms, end_ms = (int(ours["open_ms"][0]), int(ours["open_ms"][-1])) if len(ours) else (0, 0)
    lacking = (opens >= start_ms) & (opens < end_ms) & ~np.isin(opens, ours["open_ms"])
    return [Flaw(Kind.MISSING, int(open_ms)) for open_ms in opens[lacking]]


def _is_listed(interval: Interval, open_ms: int, lives: Sequence[Life]) -> bool:
    """Whether a candle touches a time in which the symbol was listed, as far as the database knows."""
    end_ms = interval.next_open(open_ms)
    return not lives or any(
        end_ms > life.listed_ms and (life.retired_ms is None or open_ms <= life.retired_ms) for life in lives
    )


@dataclass(frozen=True, slots=True, eq=False)
class Mended:
    """What mending a piece did: the exchange's candles now stored, how many flaws are left, what was folded anew."""

    accepted: Candles
    repaired: int
    verified: int
    refolded: Refolded


def mend(
    store: SqliteStore,
    market: Market,
    intervals: Sequence[Interval],
    piece: Piece,
    theirs: Candles,
    flaws: Sequence[Flaw],
    *,
    listed_ms: int,
    held_ms: int = 0,
    now_ms: int,
) -> Mended:
    """Bring the exchange's candles through the store's guard, put on record or remove what it lacks, fold the parents.

    `listed_ms` and `held_ms` are as in `Span`.

    A candle marked verified that differs gives way to the exchange's settled one, with the next revision.
    """
    by_kind: dict[Kind, list[Flaw]] = {kind: [flaw for flaw in flaws if flaw.kind is kind] for kind in Kind}
    number, interval = piece.instrument_id, piece.interval
    with store.knowing(now_ms), store.transaction():
        held = store.read_raw(number, interval, piece.start_ms, piece.end_ms)
        # A mark that only a hand can have made would keep the exchange's own candle out.
        false_marks = held["open_ms"][is_verified(held) & (held["origin"] > Origin.EXCHANGE)]
        gone = [flaw.open_ms for flaw in by_kind[Kind.EXTRA] if flaw.note]
        lacking = [flaw.open_ms for flaw in by_kind[Kind.EXTRA] if not flaw.note]
        store.mending.remove(number, interval, gone)
        store.mending.distrust(number, interval, sorted({*false_marks.tolist(), *lacking}))
        inside = (theirs["open_ms"] >= piece.start_ms) & (theirs["open_ms"] < piece.end_ms)
        unproven = held["open_ms"][~is_verified(held)]
        wanted = theirs[inside & np.isin(theirs["open_ms"], [*unproven, *(flaw.open_ms for flaw in flaws)])]
        result = store.write(_ids(number, wanted), wanted)
        _put_unmatched(store, piece, lacking)
        touched = [*wanted["open_ms"][result.accepted].tolist(), *gone, *lacking]
        spans = []
        if touched:
            spans = [Span(number, min(touched), interval.next_open(interval.open_at(max(touched))), listed_ms, held_ms)]
        refolded = refold(store, spans, intervals, store.closed_upto(market), numbers_changed=bool(flaws))
    done = set(wanted["open_ms"][result.accepted].tolist()) | set(gone) | set(lacking)
    repaired = sum(flaw.open_ms in done for flaw in flaws)
    return Mended(wanted[result.accepted], repaired, int(result.accepted.sum()) - _brought(flaws, done), refolded)


def _brought(flaws: Sequence[Flaw], done: set[int]) -> int:
    return sum(flaw.kind is not Kind.EXTRA and flaw.open_ms in done for flaw in flaws)


def _ids(number: int, candles: Candles) -> Ints:
    return np.full(len(candles), number, np.int64)


def _put_unmatched(store: SqliteStore, piece: Piece, opens: Sequence[int]) -> None:
    held = store.read_raw(piece.instrument_id, piece.interval, piece.start_ms, piece.end_ms)
    lacking: Candles = held[np.isin(held["open_ms"], opens)].copy()
    lacking["origin"] = Origin.UNMATCHED
    store.write(_ids(piece.instrument_id, lacking), lacking)
