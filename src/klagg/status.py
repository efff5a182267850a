"""What a database holds and who keeps it: the facts of `klagg status`."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

from klagg.interval import MINUTE_MS
from klagg.model import Market, Origin, Status
from klagg.store import SqliteStore, open_store
from klagg.store.schema import URGENT_ORIGINS

GAPS_SHOWN: Final = 10
"""So many of the newest gaps are named; the others are counted."""


@dataclass(frozen=True, slots=True)
class GapStatus:
    """One span on record as not kept."""

    symbol: str
    start_ms: int
    end_ms: int
    reason: str


@dataclass(frozen=True, slots=True)
class MarketStatus:
    """One market of a database.

    `lag_ms` is how far the end of the newest closed minute lies behind the host's time; `unverified` are closed candles
    that are in the repair queue, `urgent` those of them that are filled, seeds or partial. `owner` is None where no lease
    is fresh.
    """

    market: str
    symbols: int
    retired: int
    intervals: list[str]
    series: int
    candles: int
    origins: dict[str, int]
    verified: int
    unverified: int
    urgent: int
    newest_minute_ms: int | None
    closed_upto_ms: int | None
    lag_ms: int | None
    gaps: int
    newest_gaps: list[GapStatus]
    owner: str | None
    last_owner: str | None
    epoch: int


@dataclass(frozen=True, slots=True)
class DatabaseStatus:
    """A database and its markets (those it has anything of)."""

    db: str
    size_bytes: int
    now_ms: int
    markets: list[MarketStatus]

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)


def database_status(url: str, now_ms: int, markets: Sequence[Market] = tuple(Market)) -> DatabaseStatus:
    """Read what a database holds of these markets, changing nothing; `now_ms` is the host's time.

    Raises:
        KlaggError: an unknown URL, or a file that is no klagg database.

    """
    with closing(open_store(url, mode="read")) as store:
        found = [_market(store, market, now_ms) for market in markets]
        return DatabaseStatus(str(store.path), store.size_bytes(), now_ms, [one for one in found if one is not None])


def _market(store: SqliteStore, market: Market, now_ms: int) -> MarketStatus | None:
    instruments = store.instruments(market)
    ownership = store.ownership(market)
    if not instruments and ownership is None:
        return None
    retired = sum(stored.instrument.status is Status.RETIRED for stored in instruments)
    counts = store.candle_counts(market)
    newest_ms = store.newest_minute_ms(market)
    queue = [count for count in counts if not count.verified and count.origin is not Origin.UNMATCHED]
    gaps = store.gaps(market)
    fresh = ownership is not None and bool(ownership.owner) and ownership.lease_until_ms > now_ms
    origins: dict[str, int] = {}
    for count in counts:
        origins[count.origin.label] = origins.get(count.origin.label, 0) + count.candles
    return MarketStatus(
        market=market.value,
        symbols=len(instruments) - retired,
        retired=retired,
        intervals=[interval.name for interval in store.intervals(market)],
        series=store.series_count(market),
        candles=sum(count.candles for count in counts),
        origins=origins,
        verified=sum(count.candles for count in counts if count.verified),
        unverified=sum(count.candles for count in queue),
        urgent=sum(count.candles for count in queue if count.origin in URGENT_ORIGINS),
        newest_minute_ms=newest_ms,
        closed_upto_ms=store.closed_upto(market),
        lag_ms=None if newest_ms is None else now_ms - newest_ms - MINUTE_MS,
        gaps=len(gaps),
        newest_gaps=[
            GapStatus(gap.symbol or "all", gap.start_ms, gap.end_ms, gap.reason) for gap in gaps[-GAPS_SHOWN:]
        ],
        owner=ownership.owner if ownership is not None and fresh else None,
        last_owner=(ownership.owner or None) if ownership is not None else None,
        epoch=0 if ownership is None else ownership.epoch,
    )


def status_lines(status: DatabaseStatus) -> Iterator[str]:
    """The status for people to read."""
    yield f"database        {status.db} ({status.size_bytes / 1e6:.1f} MB)"
    if not status.markets:
        yield "                it holds nothing yet: fill it with klagg run, backfill or replay"
    for market in status.markets:
        origins = ", ".join(f"{count:,} {origin}" for origin, count in market.origins.items())
        yield ""
        yield f"market          {market.market}"
        yield f"owner           {_owner(market)}"
        yield f"symbols         {market.symbols:,}" + (f" and {market.retired:,} retired" if market.retired else "")
        yield f"series          {market.series:,} ({' '.join(market.intervals) or 'intervals not set'})"
        yield f"candles         {market.candles:,}" + (f" ({origins})" if origins else "")
        yield f"verified        {market.verified:,}"
        yield f"unverified      {market.unverified:,} ({market.urgent:,} urgent)"
        yield f"newest minute   {_time(market.newest_minute_ms)}"
        yield f"closed up to    {_time(market.closed_upto_ms)}"
        yield f"lag             {_lag(market.lag_ms)}"
        yield f"gaps            {market.gaps:,}"
        for gap in market.newest_gaps:
            yield f"                {gap.symbol} {_time(gap.start_ms)} to {_time(gap.end_ms)}: {gap.reason}"


def _owner(market: MarketStatus) -> str:
    if market.owner is not None:
        return f"{market.owner} (epoch {market.epoch})"
    return f"none (last: {market.last_owner})" if market.last_owner else "none"


def _time(t_ms: int | None) -> str:
    if t_ms is None:
        return "none"
    try:
        return datetime.fromtimestamp(t_ms / 1_000, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError):
        return f"{t_ms} ms, which is no time: klagg check tells more"


def _lag(lag_ms: int | None) -> str:
    if lag_ms is None:
        return "none"
    seconds = max(lag_ms, 0) // 1_000
    days, rest = divmod(seconds, 86_400)
    hours, minutes = rest // 3_600, rest % 3_600 // 60
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds % 60} s"
