"""How a market's newest minutes were settled: the share that the exchange confirmed, and how soon."""

from enum import StrEnum
from typing import Final

from klagg.interval import MINUTE, MINUTE_MS
from klagg.model import Market, Origin
from klagg.store.database import Database
from klagg.store.schema import SERIES_INTERVALS

SOON_MS: Final = 5_000
"""So long after its end a minute that the exchange's closing push has confirmed is verified."""


class Settled(StrEnum):
    """How a closed minute stands."""

    SOON = "verified_in_5s"
    LATER = "verified_later"
    UNVERIFIED = "unverified"
    UNMATCHED = "unmatched"


def settled_minutes(database: Database, market: Market, start_ms: int, end_ms: int) -> dict[Settled, int]:
    """How many closed minutes of `[start_ms, end_ms)` stand how; one seek a symbol, and its minutes."""
    rows = database.rows(
        "SELECT CASE "  # noqa: S608 - names of this package
        f"WHEN c.verified <> 0 AND c.verified_ms <= c.open_ms + {MINUTE_MS + SOON_MS} THEN '{Settled.SOON}' "
        f"WHEN c.verified <> 0 THEN '{Settled.LATER}' "
        f"WHEN c.origin = {Origin.UNMATCHED.value} THEN '{Settled.UNMATCHED}' ELSE '{Settled.UNVERIFIED}' END, count(*) "
        f"FROM instrument i CROSS JOIN candle c ON c.series = i.id * {SERIES_INTERVALS} + {MINUTE.code} "
        "AND c.open_ms >= ? AND c.open_ms < ? WHERE i.market = ? GROUP BY 1",
        (start_ms, end_ms, market.value),
    )
    found = {Settled(state): count for state, count in rows}
    return {state: found.get(state, 0) for state in Settled}
