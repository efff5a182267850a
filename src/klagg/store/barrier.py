"""How far a market is verified: the barrier that follows `closed_upto`, minute by minute.

The boundary after the last one is looked at whenever `closed_upto` moves or a candle is settled. The two indexes of what is
unverified answer whether any candle that ends there still is, so the cost grows with what is open at that boundary and not
with history. A boundary where something stays open is passed after `PATIENCE_MS`, with its number: one symbol that the
exchange refuses must not hold up the barrier for ever.
"""
# ruff: noqa: S608  # statements are built from names that stand in this package; values are bound

from typing import Final

import numpy as np

from klagg.interval import INTERVALS, MINUTE_MS
from klagg.model import Market
from klagg.store import events
from klagg.store.database import Database
from klagg.store.events import Kind
from klagg.store.schema import LEISURE_WHERE, SERIES_INTERVALS, URGENT_WHERE

PATIENCE_MS: Final = 5 * MINUTE_MS
"""The closing push comes within seconds, a request for what it missed within three minutes; what takes longer is in trouble."""
PASSED_AT_ONCE: Final = 8
"""Boundaries passed in one transaction: catching up with a long absence must not be felt in a commit."""

_OPEN_AT: Final = "FROM instrument i WHERE i.market = ? AND EXISTS (SELECT 1 FROM open_candle WHERE series = i.id * {} AND open_ms >= ?)"


def durable_ms(database: Database, market: Market) -> int:
    """The boundary up to which every shard is closed; 0 where there is none."""
    row = database.one("SELECT min(closed_upto_ms) FROM shard WHERE market = ?", (market.value,))
    return int(row[0] or 0) if row else 0


def verified_ms(database: Database, market: Market) -> int:
    """The boundary that the barrier has passed; 0 where there is none."""
    row = database.one("SELECT verified_ms FROM barrier WHERE market = ?", (market.value,))
    return int(row[0]) if row else 0


def moved(database: Database, market: Market, before_ms: int, now_ms: int, at_ms: int) -> None:
    """Tell that `closed_upto` of the whole market went from one boundary to another, inside its transaction."""
    row = database.one(f"SELECT count(*) {_OPEN_AT.format(SERIES_INTERVALS)}", (market.value, now_ms))
    events.append(database, market, at_ms, Kind.DURABLE, np.array([[now_ms, row[0] if row else 0]], np.int64))
    # Several minutes at once are an absence made up for, perhaps in several commits: the wait is from the first of them.
    database.execute(
        "INSERT INTO barrier (market, verified_ms, caught_up_ms, caught_up_at_ms) VALUES (?1, ?2, ?3, ?4) "
        "ON CONFLICT DO UPDATE SET caught_up_ms = ?3, "
        "caught_up_at_ms = CASE WHEN verified_ms < caught_up_ms THEN caught_up_at_ms ELSE ?4 END WHERE ?3 - ?5 > ?6",
        (market.value, before_ms or now_ms - MINUTE_MS, now_ms, at_ms, before_ms, MINUTE_MS),
    )


def settle(database: Database, market: Market, at_ms: int) -> None:
    """Pass the boundaries whose candles are all settled, or have been waited for long enough, inside a transaction."""
    row = database.one(
        "SELECT verified_ms, caught_up_ms, caught_up_at_ms FROM barrier WHERE market = ?", (market.value,)
    )
    if row is None:
        return
    passed_ms, caught_up_ms, caught_up_at_ms = row
    durable = durable_ms(database, market)
    passed: list[tuple[int, int]] = []
    while passed_ms < durable and len(passed) < PASSED_AT_ONCE:
        boundary_ms = passed_ms + MINUTE_MS
        # Minutes that became durable together, after an absence, are waited for from then on.
        since_ms = caught_up_at_ms if boundary_ms <= caught_up_ms else boundary_ms
        is_late = at_ms >= since_ms + PATIENCE_MS
        unsettled = _unsettled(database, market, boundary_ms, at_most=-1 if is_late else 1)
        if unsettled and not is_late:
            break
        passed.append((boundary_ms, unsettled))
        passed_ms = boundary_ms
    if passed:
        database.execute("UPDATE barrier SET verified_ms = ? WHERE market = ?", (passed_ms, market.value))
        events.append(database, market, at_ms, Kind.VERIFIED, np.array(passed, np.int64))


def _unsettled(database: Database, market: Market, boundary_ms: int, at_most: int) -> int:
    """How many candles that end at a boundary are neither verified nor final, counted up to `at_most` (-1: all)."""
    found = 0
    for interval in INTERVALS:
        open_ms = interval.open_at(boundary_ms - 1)
        if interval.next_open(open_ms) != boundary_ms:
            continue
        for index, where in (("candle_urgent", URGENT_WHERE), ("candle_leisure", LEISURE_WHERE)):
            row = database.one(
                f"SELECT count(*) FROM (SELECT 1 FROM candle c INDEXED BY {index} CROSS JOIN instrument i "
                f"ON i.id = c.series / {SERIES_INTERVALS} WHERE {where} AND c.open_ms = ? "
                f"AND c.series % {SERIES_INTERVALS} = ? AND i.market = ? LIMIT ?)",
                (open_ms, interval.code, market.value, at_most),
            )
            found += row[0] if row else 0
            if 0 < at_most <= found:
                return found
    return found
