"""What an answer of the exchange means for the stored candles: written, found lacking, folded on.

Synchronous, in the store's thread, one transaction each.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from klagg import rules
from klagg.interval import INTERVALS, Interval, fold_source
from klagg.model import Candles, Flag, Instrument, Market, Origin, Status, no_candles
from klagg.refold import Refolded, Span, refold, whole
from klagg.repair.plan import Fetch, Wanted, Why
from klagg.repair.queue import LONGER_AGE_MS
from klagg.store import SqliteStore

REACH: Final = 400
"""So many candles before and after those that an answer lacked are looked through for ones that the exchange is known to have: the
next answer shall reach from one to the other, so that what lies between them is absent and not just unanswered."""

_FAR_MS: Final = 1 << 62


@dataclass(frozen=True, slots=True, eq=False)
class Settled:
    """What became of one answer in the store."""

    accepted: Candles
    equal: int
    changed: int
    differences: int
    unmatched: int
    lacked: list[int]
    """Opens that the answer should have had and that may still come."""
    refused: int
    """Candles that the store did not take: their owner has not closed their minutes yet, or they cannot be."""
    refolded: Refolded

    @property
    def ended(self) -> int:
        """How many candles were brought to an end."""
        return self.equal + self.changed + self.unmatched


def settle(
    store: SqliteStore,
    market: Market,
    intervals: Sequence[Interval],
    instrument: Instrument,
    fetch: Fetch,
    rows: Candles,
    *,
    held_ms: int,
    now_ms: int,
) -> Settled:
    """Write an answer, note and mark what it lacks, fold the parents; `held_ms` is as in `Span`.

    `rows` may reach beyond the range that is to be settled: they show what the answer spans.
    """
    inside = (rows["open_ms"] >= fetch.start_ms) & (rows["open_ms"] < fetch.end_ms)
    if fetch.opens:
        inside &= np.isin(rows["open_ms"], list(fetch.opens))
    wanted = rows[inside]
    with store.transaction(), store.knowing(now_ms):
        held = store.read(fetch.instrument_id, fetch.interval, fetch.start_ms, fetch.end_ms)
        result = store.write(np.full(len(wanted), fetch.instrument_id, np.int64), wanted)
        missing = _missing(fetch, instrument, rows, held)
        again = fetch.opens.intersection(held["open_ms"][held["origin"] == Origin.UNMATCHED].tolist())
        again = again.difference(rows["open_ms"].tolist())
        proven = _proven_absent(store, fetch, instrument, rows, held, sorted({*missing, *again}), now_ms) - again
        lacking = _made(store, fetch, held, proven, Origin.UNMATCHED)
        # What nobody has is made all the same, so that the series has no hole, and stays in the queue.
        filled = _made(store, fetch, held, sorted(set(missing) - proven - set(held["open_ms"].tolist())), Origin.FILLED)
        lacking, filled = (_put(store, fetch.instrument_id, made) for made in (lacking, filled))
        touched = [*wanted["open_ms"][result.accepted].tolist()]
        touched += [*lacking["open_ms"].tolist(), *filled["open_ms"].tolist()]
        spans = []
        if touched:
            end_ms = fetch.interval.next_open(max(touched))
            spans = [Span(fetch.instrument_id, min(touched), end_ms, instrument.listed_ms, held_ms)]
        refolded = refold(
            store,
            spans,
            intervals,
            store.closed_upto(market),
            numbers_changed=bool(result.changed.any()) or len(wanted) > len(held),
        )
        if touched and instrument.status is Status.RETIRED:
            _drop_overtaken(store, fetch.instrument_id, intervals)
    evident = held["open_ms"][rules.is_evident(held["origin"])]
    changed = result.accepted & (result.changed | ~np.isin(wanted["open_ms"], held["open_ms"]))
    return Settled(
        accepted=wanted[result.accepted],
        equal=int((result.accepted & ~changed).sum()),
        changed=int(changed.sum()),
        differences=int(np.isin(wanted["open_ms"][result.changed], evident).sum()),
        unmatched=len(lacking),
        lacked=sorted({*missing, *again}.difference(lacking["open_ms"].tolist())),
        refused=int((result.revisions < 0).sum()),
        refolded=refolded,
    )


def _drop_overtaken(store: SqliteStore, instrument_id: int, intervals: Sequence[Interval]) -> None:
    """Remove the open candles of a symbol that has left which its closed ones have overtaken: nobody closes them any more."""
    for interval in intervals:
        opened = store.open_candle(instrument_id, interval)
        if len(opened) and len(store.read(instrument_id, interval, int(opened["open_ms"][0]), _FAR_MS, 1)):
            store.mending.drop_snapshot(instrument_id, interval)


def _missing(fetch: Fetch, instrument: Instrument, rows: Candles, held: Candles) -> list[int]:
    """The opens that the answer should have had: of our unsettled candles, and of every minute of a span that others ask for."""
    wanted = set(held["open_ms"][~_is_settled(held)].tolist())
    if fetch.why is Why.ASKED:
        start_ms = max(fetch.start_ms, fetch.interval.open_at(instrument.listed_ms))
        wanted |= set(fetch.interval.opens(start_ms, fetch.end_ms)).difference(held["open_ms"].tolist())
    else:
        wanted &= fetch.opens
    return sorted(wanted.difference(rows["open_ms"].tolist()))


def _proven_absent(
    store: SqliteStore,
    fetch: Fetch,
    instrument: Instrument,
    rows: Candles,
    held: Candles,
    missing: Sequence[int],
    now_ms: int,
) -> set[int]:
    """Of the opens that an answer lacks, those of which that is proof by now: see `rules.Absence`.

    It is for opens between two rows of the answer, and for those after its last row where the symbol has left trading. Where klagg
    has seen trades no absence is believed.
    """
    if len(rows) == 0:
        return set()
    first_ms, last_ms = int(rows["open_ms"].min()), int(rows["open_ms"].max())
    if instrument.status is Status.RETIRED:
        last_ms = _FAR_MS
    seen = [
        open_ms
        for open_ms in missing
        if first_ms < open_ms < last_ms and fetch.interval.next_open(open_ms) <= now_ms - rules.ABSENCE_AGE_MS
    ]
    proven = store.note_absent(fetch.instrument_id, fetch.interval, seen, now_ms)
    return proven.difference(held["open_ms"][held["trades"] > 0].tolist())


def span_to_ask(store: SqliteStore, fetch: Fetch, now_ms: int) -> tuple[int, int]:
    """The range to ask for where an answer lacked some of a fetch before: from a candle that the exchange has to the next one.

    Where none is known within `REACH` candles, so far.
    """
    interval, start_ms, end_ms = fetch.interval, fetch.start_ms, fetch.end_ms
    before = store.read(fetch.instrument_id, interval, 0, start_ms, REACH, descending=True)
    before = before[before["flags"] & Flag.VERIFIED != 0]
    first_ms = int(before["open_ms"][0]) if len(before) else interval.open_at(max(start_ms - 1, 0))
    after = store.read(fetch.instrument_id, interval, end_ms, _FAR_MS, REACH)
    after = after[after["flags"] & Flag.VERIFIED != 0]
    if len(after):
        return first_ms, interval.next_open(int(after["open_ms"][0]))
    last_ms = end_ms
    for _ in range(REACH):
        if last_ms > now_ms:
            break
        last_ms = interval.next_open(last_ms)
    return first_ms, last_ms


def _put(store: SqliteStore, instrument_id: int, candles: Candles) -> Candles:
    """Write candles: those that were taken."""
    if len(candles) == 0:
        return candles
    taken: Candles = candles[store.write(np.full(len(candles), instrument_id, np.int64), candles).accepted]
    return taken


def _made(store: SqliteStore, fetch: Fetch, held: Candles, opens: Collection[int], origin: Origin) -> Candles:
    """Candles of klagg's own for opens that the exchange did not give: what is held, else one without trades at the close before."""
    marked = held[np.isin(held["open_ms"], list(opens))].copy()
    marked["origin"] = origin
    made = no_candles(len(opens))
    count = 0
    for open_ms in sorted(set(opens).difference(marked["open_ms"].tolist())):
        before = store.read(fetch.instrument_id, fetch.interval, 0, open_ms, 1, descending=True)
        if len(before) == 0:
            continue
        row = made[count]
        row["interval"], row["origin"], row["flags"] = fetch.interval.code, origin, Flag.CLOSED
        row["open_ms"], row["first_id"], row["last_id"] = open_ms, -1, -1
        row["price_scale"], row["qty_scale"] = before["price_scale"][0], before["qty_scale"][0]
        for name in ("open", "high", "low", "close"):
            row[name] = before["close"][0]
        count += 1
    return np.concatenate([marked, made[:count]])


def unsettled_longer(
    store: SqliteStore, market: Market, intervals: Sequence[Interval], candles: Wanted, now_ms: int
) -> dict[tuple[int, int], list[int]]:
    """Fold longer candles from what is there now; those whose own kline must be fetched.

    That is where their children cannot settle them: some are not there, or all are settled and yet do not make it verified (the
    exchange lacks one of them). Children that are not settled wait to be, themselves.
    """
    wanted: dict[tuple[int, int], list[int]] = {}
    with store.transaction(), store.knowing(now_ms):
        closed_upto_ms = store.closed_upto(market)
        # Shorter ones first: they are what the next longer ones are folded from.
        for (instrument_id, code), opens in sorted(candles.items(), key=lambda item: item[0][1]):
            interval = INTERVALS[code]
            source = fold_source(interval, intervals)
            for open_ms in opens:
                end_ms = interval.next_open(open_ms)
                folded = whole(store, Span(instrument_id, open_ms, end_ms), interval, source, closed_upto_ms)
                if len(folded):
                    store.write(np.full(len(folded), instrument_id, np.int64), folded)
                row = store.read(instrument_id, interval, open_ms, open_ms + 1)
                if len(row) == 0 or _is_settled(row).all():
                    continue
                if len(folded) and not _is_settled(store.read(instrument_id, source, open_ms, end_ms)).all():
                    continue
                if end_ms <= now_ms - LONGER_AGE_MS:
                    wanted.setdefault((instrument_id, code), []).append(open_ms)
    return wanted


def _is_settled(candles: Candles) -> rules.Mask:
    return rules.is_final(candles["origin"], candles["flags"] & Flag.VERIFIED != 0)
