"""Gaps on record: spans of minutes that could not be kept or that the exchange does not have, and what became of them.

A gap is open from when it is recorded until every minute of it is settled by the exchange, verified or `unmatched`: then it is
repaired. Where the exchange has no candle the minutes are `unmatched`, and the span is a gap of its own, final, with that reason;
neighbouring spans of it are one. Should the exchange come to have them after all, it is repaired too.
"""
# ruff: noqa: S608  # statements are built from names that stand in this package; values are bound

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import Final

import numpy as np
import structlog

from klagg.interval import MINUTE, MINUTE_MS
from klagg.model import Candles, Gap, Ints, Market, Origin
from klagg.rules import FINAL
from klagg.store.database import Database
from klagg.store.schema import SERIES_INTERVALS

log = structlog.get_logger()

NONE_THERE: Final = "the exchange has none"
"""The reason of a final gap."""
CHECKED_AT_ONCE: Final = 200
"""Gaps that one `settle` looks at, the longest unlooked-at first: the others come with the next."""
MINUTES_AT_ONCE: Final = 200_000
"""Minutes that one `settle` looks at: some ten milliseconds. A longer gap is looked at alone."""
NAMED: Final = 10
"""Symbols named in one line of the log."""
_SETTLED: Final = f"(verified <> 0 OR origin = {FINAL.value})"


class GapState(StrEnum):
    """What has become of a gap."""

    OPEN = "open"
    FINAL = "final"
    REPAIRED = "repaired"


@dataclass(frozen=True, slots=True)
class GapRecord:
    """A gap and its life: recorded at `at_ms`, repaired at `closed_ms` (None while it is open or final)."""

    gap: Gap
    state: GapState
    at_ms: int
    closed_ms: int | None


_STATE: Final = "CASE WHEN closed_ms IS NOT NULL THEN 'repaired' WHEN final <> 0 THEN 'final' ELSE 'open' END"


def record(database: Database, gaps: Iterable[Gap], at_ms: int) -> list[Gap]:
    """Put spans that could not be kept on record, in the caller's transaction: those that were not open already."""
    new = [
        gap
        for gap in gaps
        if database.execute(
            "INSERT INTO gap (market, symbol, start_ms, end_ms, reason, at_ms) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET at_ms = excluded.at_ms, closed_ms = NULL, final = 0 "
            "WHERE closed_ms IS NOT NULL OR final <> 0",
            (gap.market.value, gap.symbol, gap.start_ms, gap.end_ms, gap.reason, at_ms),
        ).rowcount
    ]
    _tell_recorded(new, GapState.OPEN)
    return new


def record_unmatched(database: Database, instrument_ids: Ints, candles: Candles, at_ms: int) -> list[Gap]:
    """Put minutes that were just stored as `unmatched` on record, in the caller's transaction: the spans that are new or longer.

    Other candles among these are passed over.
    """
    unmatched = (candles["origin"] == Origin.UNMATCHED) & (candles["interval"] == MINUTE.code)
    grown: list[Gap] = []
    for instrument_id in np.unique(instrument_ids[unmatched]).tolist():
        row = database.one("SELECT market, symbol FROM instrument WHERE id = ?", (instrument_id,))
        assert row is not None
        opens = np.unique(candles["open_ms"][unmatched & (instrument_ids == instrument_id)])
        for run in np.split(opens, np.flatnonzero(np.diff(opens) != MINUTE_MS) + 1):
            gap = Gap(Market(row[0]), row[1], int(run[0]), int(run[-1]) + MINUTE_MS, NONE_THERE)
            if (merged := _merge(database, gap, at_ms)) is not None:
                grown.append(merged)
    _tell_recorded(grown, GapState.FINAL)
    return grown


def _merge(database: Database, gap: Gap, at_ms: int) -> Gap | None:
    """Record a final gap as one with those that it touches; None where it lies within one."""
    key = gap.market.value, gap.symbol, gap.reason
    touching = database.all(
        "SELECT start_ms, end_ms FROM gap WHERE market = ? AND symbol = ? AND reason = ? AND final <> 0 "
        "AND closed_ms IS NULL AND start_ms <= ? AND end_ms >= ?",
        (*key, gap.end_ms, gap.start_ms),
    )
    start_ms = min([gap.start_ms, *(start for start, _ in touching)])
    end_ms = max([gap.end_ms, *(end for _, end in touching)])
    if touching == [(start_ms, end_ms)]:
        return None
    for start, end in touching:
        database.execute(
            "DELETE FROM gap WHERE market = ? AND symbol = ? AND reason = ? AND start_ms = ? AND end_ms = ?",
            (*key, start, end),
        )
    database.execute(
        "INSERT OR REPLACE INTO gap (market, symbol, reason, start_ms, end_ms, at_ms, final) VALUES (?, ?, ?, ?, ?, ?, 1)",
        (*key, start_ms, end_ms, at_ms),
    )
    return Gap(gap.market, gap.symbol, start_ms, end_ms, gap.reason)


def settle(database: Database, market: Market, now_ms: int) -> list[Gap]:
    """Close the gaps that have been repaired by now; those that were closed.

    Bounded: what is left is looked at by the next calls, in turn. Cheap where no gap is open.
    """
    if (
        database.one("SELECT 1 FROM gap WHERE market = ? AND closed_ms IS NULL AND end_ms <= ?", (market.value, now_ms))
        is None
    ):
        return []
    closed: list[Gap] = []
    with database.transaction():
        left = MINUTES_AT_ONCE
        for symbol, start_ms, end_ms, reason, final in database.all(
            "SELECT symbol, start_ms, end_ms, reason, final FROM gap WHERE market = ? AND closed_ms IS NULL AND end_ms <= ? "
            "ORDER BY checked_ms, end_ms DESC LIMIT ?",
            (market.value, now_ms, CHECKED_AT_ONCE),
        ):
            gap = Gap(market, symbol, start_ms, end_ms, reason)
            spans = list(_spans(database, gap))
            minutes = sum(end - start for _, start, end in spans) // MINUTE_MS
            if minutes > left < MINUTES_AT_ONCE:
                break
            left -= minutes
            over = _has_none_unmatched(database, spans) if final else _is_settled(database, spans)
            database.execute(
                "UPDATE gap SET checked_ms = ?, closed_ms = ? "
                "WHERE market = ? AND symbol = ? AND start_ms = ? AND end_ms = ? AND reason = ?",
                (now_ms, now_ms if over else None, market.value, symbol, start_ms, end_ms, reason),
            )
            if over:
                closed.append(gap)
    for of in _alike(closed):
        log.info(
            "gap.settled",
            market=market.value,
            symbols=[gap.symbol or "all" for gap in of[:NAMED]],
            count=len(of),
            start_ms=of[0].start_ms,
            end_ms=of[0].end_ms,
            reason=of[0].reason,
        )
    return closed


def _spans(database: Database, gap: Gap) -> Iterator[tuple[int, int, int]]:
    """The parts of a gap in which its instruments were listed: (instrument id, start_ms, end_ms)."""
    # Of a gap of all symbols those are meant that had candles before its end.
    for instrument_id, listed_ms, retired_ms in database.all(
        "SELECT i.id, l.listed_ms, coalesce(l.retired_ms, ?2) FROM instrument i JOIN life l ON l.instrument = i.id "
        "WHERE i.market = ?1 AND (i.symbol = ?3 OR (?3 = '' AND EXISTS (SELECT 1 FROM candle "
        f"WHERE series = i.id * {SERIES_INTERVALS} + {MINUTE.code} AND open_ms < ?2)))",
        (gap.market.value, gap.end_ms, gap.symbol),
    ):
        start_ms, end_ms = max(gap.start_ms, MINUTE.open_at(listed_ms)), min(gap.end_ms, retired_ms)
        if start_ms < end_ms:
            yield instrument_id, start_ms, end_ms


def _is_settled(database: Database, spans: Sequence[tuple[int, int, int]]) -> bool:
    """Whether every minute is verified, or final as one that the exchange does not have. Nothing to be settled is no answer."""
    return bool(spans) and all(
        _count(database, _SETTLED, *span) >= -(-(span[2] - span[1]) // MINUTE_MS) for span in spans
    )


def _has_none_unmatched(database: Database, spans: Sequence[tuple[int, int, int]]) -> bool:
    return not any(_count(database, f"origin = {Origin.UNMATCHED.value}", *span) for span in spans)


def _count(database: Database, which: str, instrument_id: int, start_ms: int, end_ms: int) -> int:
    row = database.one(
        f"SELECT count(*) FROM candle WHERE series = ? AND open_ms >= ? AND open_ms < ? AND {which}",
        (instrument_id * SERIES_INTERVALS + MINUTE.code, start_ms, end_ms),
    )
    assert row is not None
    return int(row[0])


def open_gaps(database: Database, market: Market) -> list[Gap]:
    """The spans that could not be kept and are not settled yet, oldest first."""
    rows = database.rows(
        "SELECT symbol, start_ms, end_ms, reason FROM gap WHERE market = ? AND closed_ms IS NULL AND final = 0 "
        "ORDER BY start_ms, end_ms, symbol",
        (market.value,),
    )
    return [Gap(market, *row) for row in rows]


def records(database: Database, market: Market, limit: int, state: GapState | None = None) -> list[GapRecord]:
    """The newest gaps of a market, of a state or of all, by when they end, newest first."""
    rows = database.rows(
        f"SELECT symbol, start_ms, end_ms, reason, {_STATE} AS state, at_ms, closed_ms FROM gap "
        "WHERE market = ?1 AND (?2 IS NULL OR state = ?2) ORDER BY end_ms DESC, start_ms DESC, symbol, reason LIMIT ?3",
        (market.value, None if state is None else state.value, limit),
    )
    return [
        GapRecord(Gap(market, symbol, start_ms, end_ms, reason), GapState(named), at_ms, closed_ms)
        for symbol, start_ms, end_ms, reason, named, at_ms, closed_ms in rows
    ]


def counts(database: Database, market: Market) -> dict[GapState, int]:
    """How many gaps of each state are on record."""
    found = dict(
        database.rows(
            f"SELECT {_STATE} AS state, count(*) FROM gap WHERE market = ? GROUP BY state",
            (market.value,),
        )
    )
    return {state: int(found.get(state.value, 0)) for state in GapState}


def _tell_recorded(gaps: Sequence[Gap], state: GapState) -> None:
    for of in _alike(gaps):
        log.warning(
            "gap.recorded",
            market=of[0].market.value,
            symbols=[gap.symbol or "all" for gap in of[:NAMED]],
            count=len(of),
            start_ms=of[0].start_ms,
            end_ms=of[0].end_ms,
            reason=of[0].reason,
            state=state.value,
        )


def _alike(gaps: Sequence[Gap]) -> list[list[Gap]]:
    """One line of the log for the symbols of one span and reason."""

    def line(gap: Gap) -> tuple[int, int, str]:
        return gap.start_ms, gap.end_ms, gap.reason

    return [list(group) for _, group in groupby(sorted(gaps, key=line), key=line)]
