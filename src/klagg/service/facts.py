"""What the database says of a running market: read at a low rate, for those who are shown it at any time."""

from dataclasses import dataclass, field

from klagg.interval import HOUR_MS
from klagg.model import Market
from klagg.store import CandleCount, GapState, SqliteStore
from klagg.store.shares import Settled


@dataclass(frozen=True, slots=True)
class StoredFacts:
    """Candles by origin and whether they are verified, gaps by what became of them, the minutes of the last hour."""

    candles: tuple[CandleCount, ...] = ()
    gaps: dict[GapState, int] = field(default_factory=dict)
    last_hour: dict[Settled, int] = field(default_factory=dict)
    read_ms: int = 0


def stored_facts(store: SqliteStore, market: Market, boundary_ms: int, now_ms: int) -> StoredFacts:
    """Read them, in the store's thread; the hour is the one before the boundary's last minute, which may still be settling."""
    return StoredFacts(
        tuple(store.candle_counts(market)),
        store.gap_counts(market),
        store.settled_minutes(market, boundary_ms - HOUR_MS, boundary_ms),
        now_ms,
    )
