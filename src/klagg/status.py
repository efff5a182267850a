"""What a database holds and who keeps it: the facts of `klagg status`."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

from klagg import rules
from klagg.interval import MINUTE_MS
from klagg.model import Market, Status
from klagg.store import GapState, SqliteStore, open_store

GAPS_SHOWN: Final = 10
"""So many of the newest gaps are named; the others are counted."""


@dataclass(frozen=True, slots=True)
class GapStatus:
    """One span on record as not kept, and what has become of it: see `klagg.store.gaps`."""

    symbol: str
    start_ms: int
    end_ms: int
    reason: str
    state: str
    at_ms: int
    closed_ms: int | None


@dataclass(frozen=True, slots=True)
class ThenStatus:
    """One symbol of a past minute's list; `since_ms` is from when on it was so, `told_ms` when klagg was told."""

    symbol: str
    status: str
    native_status: str
    price_scale: int
    qty_scale: int
    since_ms: int
    told_ms: int


@dataclass(frozen=True, slots=True)
class MarketStatus:
    """One market of a database.

    `lag_ms` is how far the end of the newest closed minute lies behind the host's time; `unverified` are closed candles
    that are in the repair queue, `urgent` those of them that are filled, seeds or partial. `owner` is None where no lease
    is fresh. `gaps` counts those on record by what has become of them; `instrument_changes` the listings, statuses and scales
    kept with their times.
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
    instrument_changes: int
    renames: int
    gaps: dict[str, int]
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
    queue = [count for count in counts if not rules.is_final(count.origin, count.verified)]
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
        urgent=sum(count.candles for count in queue if rules.is_urgent(count.origin, count.verified)),
        newest_minute_ms=newest_ms,
        closed_upto_ms=store.closed_upto(market),
        lag_ms=None if newest_ms is None else now_ms - newest_ms - MINUTE_MS,
        instrument_changes=store.instrument_changes(market),
        renames=len(store.renames(market)),
        gaps={state.value: count for state, count in store.gap_counts(market).items()},
        newest_gaps=_newest_gaps(store, market),
        owner=ownership.owner if ownership is not None and fresh else None,
        last_owner=(ownership.owner or None) if ownership is not None else None,
        epoch=0 if ownership is None else ownership.epoch,
    )


def _newest_gaps(store: SqliteStore, market: Market) -> list[GapStatus]:
    """Those that are not repaired before those that are; each newest first."""
    found = [
        record
        for state in (GapState.OPEN, GapState.FINAL, GapState.REPAIRED)
        for record in store.gap_records(market, GAPS_SHOWN, state)
    ]
    found.sort(key=lambda record: (record.state is GapState.REPAIRED, -record.gap.end_ms))
    return [
        GapStatus(
            record.gap.symbol or "all",
            record.gap.start_ms,
            record.gap.end_ms,
            record.gap.reason,
            record.state.value,
            record.at_ms,
            record.closed_ms,
        )
        for record in found[:GAPS_SHOWN]
    ]


def symbols_then(url: str, at_ms: int, markets: Sequence[Market] = tuple(Market)) -> dict[str, list[ThenStatus]]:
    """The symbol list of each of these markets at a past instant, with the statuses and scales of then.

    Raises:
        KlaggError: an unknown URL, or a file that is no klagg database.

    """
    with closing(open_store(url, mode="read")) as store:
        return {
            market.value: [
                ThenStatus(
                    past.instrument.symbol,
                    past.instrument.status.value,
                    past.instrument.native_status,
                    past.instrument.price_scale,
                    past.instrument.qty_scale,
                    past.since_ms,
                    past.told_ms,
                )
                for past in store.instruments_at(market, at_ms)
            ]
            for market in markets
        }


def then_lines(listed: Mapping[str, Sequence[ThenStatus]], at_ms: int) -> Iterator[str]:
    """The symbol lists of a past instant for people to read."""
    yield f"symbols at      {_time(at_ms)}"
    for market, symbols in listed.items():
        if symbols:
            yield ""
            yield f"market          {market} ({len(symbols):,} symbols)"
        for one in symbols:
            since = f"since {_time(one.since_ms)}" if one.since_ms else "since its listing"
            later = f", told {_time(one.told_ms)}" if one.told_ms > at_ms else ""
            digits = f"{one.price_scale} and {one.qty_scale} digits"
            yield f"{one.symbol:15} {one.status} ({one.native_status or 'not told'}), {digits}, {since}{later}"
    if not any(listed.values()):
        yield "                no symbol is known to have been listed then"


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
        yield f"gaps            {', '.join(f'{count:,} {state}' for state, count in market.gaps.items())}"
        for gap in market.newest_gaps:
            yield f"                {gap.symbol} {_time(gap.start_ms)} to {_time(gap.end_ms)}: {gap.reason} ({gap.state})"


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
