"""The store on SQLite: one object, one connection, used by one thread at a time (see `klagg.store.thread`)."""
# ruff: noqa: S608  # statements are built from names that stand in this package; values are bound

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np

from klagg.errors import MalformedRow
from klagg.interval import MINUTE, Interval
from klagg.model import Candles, Gap, Instrument, Ints, Market, Origin
from klagg.rules import Leave
from klagg.store import (
    absence,
    barrier,
    budget,
    changes,
    claims,
    events,
    gaps,
    instruments,
    newest,
    quarantine,
    shares,
    states,
    strays,
)
from klagg.store import candles as candle_rows
from klagg.store.batches import Commit, CommitResult, WriteResult, no_ids
from klagg.store.changes import PastInstrument, Rename
from klagg.store.claims import LEASE_MS, Claim, OwnerLock, Ownership
from klagg.store.database import Database
from klagg.store.events import Event, Kind
from klagg.store.gaps import GapRecord, GapState
from klagg.store.guard import Recorder
from klagg.store.instruments import MARKETS, Directory, Life, StoredInstrument
from klagg.store.looks import Looks
from klagg.store.mending import Mending
from klagg.store.newest import Newest
from klagg.store.quarantine import Quarantined
from klagg.store.rows import Mask, end_ms, is_amended, is_closed, series_of
from klagg.store.schema import SERIES_INTERVALS
from klagg.store.shares import Settled
from klagg.store.states import States

READ_CHUNK: Final = 50_000
"""Candles held at a time by `iter_read`: about 7 MB."""


@dataclass(frozen=True, slots=True)
class _Knowing:
    """See `SqliteStore.knowing`."""

    at_ms: int | None
    publish_new: bool


@dataclass(frozen=True, slots=True)
class CandleCount:
    """How many closed candles of an origin are stored."""

    origin: Origin
    verified: bool
    candles: int


class SqliteStore:
    """Instruments, candles and ownership in one SQLite file in WAL mode.

    Everything raises `StoreUnavailable` where the same call may succeed later (locked, full, input or output error) and
    another `StoreError` where it will not. A write is one transaction, or part of the one that `transaction` holds. What
    was committed survives the end of the process; with `synchronous="FULL"` also the end of the power.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._recorder = Recorder(database.connection)
        self._directory = Directory(database)
        self._locks: dict[Market, OwnerLock] = {}
        self._knowing = _Knowing(None, publish_new=True)
        self.path = database.path

    # Instruments

    def put_instruments(self, listed: Iterable[Instrument], at_ms: int) -> dict[str, int]:
        """Insert or update instruments of one market as listed at `at_ms`: the id of each symbol, the same for ever.

        Scales only widen. A status that becomes retired ends the symbol's life at `at_ms`; one that trades again begins
        another. Symbols that are not listed are left as they are.
        """
        listed = list(listed)
        with self._database.transaction():
            before = {instrument.market: self._trading(instrument.market) for instrument in listed}
            ids = instruments.put(self._database, listed, at_ms)
            for market, known in before.items():
                now = self._trading(market)
                for kind, numbers in ((Kind.ADDED, now - known), (Kind.RETIRED, known - now)):
                    events.append(self._database, market, at_ms, kind, np.array([sorted(numbers)], np.int64).T)
        return ids

    def _trading(self, market: Market) -> set[int]:
        """The instruments of a market that have not retired."""
        rows = self._database.rows("SELECT id FROM instrument WHERE market = ? AND retired_ms IS NULL", (market.value,))
        return {row[0] for row in rows}

    def instruments(self, market: Market | None = None) -> list[StoredInstrument]:
        """The instruments of a market, or all, by id."""
        return instruments.read(self._database, market)

    def widen_scales(self, instrument_id: int, price_scale: int, qty_scale: int) -> None:
        """Make room for the digits of candles from elsewhere; what the exchange's list said is untouched."""
        instruments.widen(self._database, instrument_id, price_scale, qty_scale)

    def instruments_at(self, market: Market, t_ms: int) -> list[PastInstrument]:
        """The instruments that the market's list had at an instant, with the status and the scales of then, by id."""
        return changes.at(self._database, market, t_ms)

    def instrument_changes(self, market: Market) -> int:
        """How many changes of a market's instruments are kept, their first appearances included."""
        return changes.count(self._database, market)

    def put_rename(self, instrument_id: int, successor_id: int, at_ms: int) -> None:
        """Say that an instrument goes on as another from `at_ms` on; both keep their identifiers."""
        changes.put_rename(self._database, instrument_id, successor_id, at_ms)

    def renames(self, market: Market) -> list[Rename]:
        """The renames of a market on record, oldest first."""
        return changes.renames(self._database, market)

    def lives(self, instrument_id: int) -> list[Life]:
        """The listings of an instrument, oldest first."""
        return instruments.lives(self._database, instrument_id)

    def begin_life(self, instrument_id: int, ended_ms: int, begun_ms: int) -> None:
        """Say that trades before `ended_ms` and from `begun_ms` on, whose ids are of two numberings, are of two lives."""
        instruments.begin_life(self._database, instrument_id, ended_ms, begun_ms)

    def set_intervals(self, market: Market, intervals: Iterable[Interval]) -> None:
        """Say which intervals a market keeps."""
        instruments.put_intervals(self._database, market, intervals)

    def intervals(self, market: Market) -> tuple[Interval, ...]:
        """The intervals a market keeps, shortest first; none where nothing was said."""
        return instruments.read_intervals(self._database, market)

    # Ownership

    def claim(
        self, market: Market, *, owner: str, now_ms: int, lease_ms: int = LEASE_MS, take_over: bool = False
    ) -> Claim:
        """Become the owner of a market's shards.

        Raises:
            ClaimRefused: another's lease is fresh, its process is not known to be gone, and `take_over` is not given.

        """
        return claims.claim(
            self._database,
            self._lock(market),
            market,
            owner=owner,
            now_ms=now_ms,
            lease_ms=lease_ms,
            take_over=take_over,
        )

    def renew(self, claim: Claim, now_ms: int) -> None:
        """Extend the lease.

        Raises:
            ClaimLost: another owner has taken over.

        """
        claims.renew(self._database, self._lock(claim.market), claim, now_ms)

    def release(self, claim: Claim) -> None:
        """End the lease at once."""
        claims.release(self._database, self._lock(claim.market), claim)

    def ownership(self, market: Market) -> Ownership | None:
        """Who owns a market; None where nobody ever did."""
        return claims.ownership(self._database, market)

    def closed_upto(self, market: Market) -> int | None:
        """The boundary up to which every shard is closed; None where there never was an owner or it closed nothing."""
        return barrier.durable_ms(self._database, market) or None

    def verified_upto(self, market: Market) -> int | None:
        """The boundary that the barrier of verification has passed (see `klagg.store.barrier`); None before the first."""
        return barrier.verified_ms(self._database, market) or None

    def _lock(self, market: Market) -> OwnerLock:
        if market not in self._locks:
            self._locks[market] = OwnerLock(self.path.with_name(f"{self.path.name}-lock-{market.value}"))
        return self._locks[market]

    # Writing

    def commit(self, batch: Commit) -> CommitResult:
        """Commit what the owner produced, and `closed_upto` with it, or nothing.

        Raises:
            ClaimLost: another owner has taken over; nothing was written.

        """
        return self.commit_all((batch,))

    def commit_all(self, batches: Sequence[Commit]) -> CommitResult:
        """Commit several in one transaction, in order.

        Raises:
            ClaimLost: another owner has taken over; nothing of any was written.

        """
        started = time.perf_counter()
        with self._database.transaction():
            outcomes = [self._put(batch) for batch in batches]
        accepted = np.concatenate([np.zeros(0, np.bool_), *(outcome[0] for outcome in outcomes)])
        revisions = np.concatenate([no_ids(), *(outcome[1] for outcome in outcomes)])
        written = int(accepted.sum())
        return CommitResult(
            written,
            len(accepted) - written,
            sum(outcome[2] for outcome in outcomes),
            time.perf_counter() - started,
            accepted,
            revisions,
        )

    def _put(self, batch: Commit) -> tuple[Mask, Ints, int]:
        """One commit's rows, inside the transaction: which were accepted, their revisions, how many were revised."""
        ids = np.asarray(batch.instrument_ids, np.int64)
        self._directory.cover(ids)
        assert np.isin(self._directory.shards[ids], list(batch.shards)).all(), (
            "a candle of a shard that is not committed"
        )
        market = batch.claim.market
        durable_ms = barrier.durable_ms(self._database, market)
        claims.fence(self._database, batch.claim, batch.shards, batch.closed_upto_ms, batch.now_ms)
        accepted, revisions = np.ones(len(ids), np.bool_), np.zeros(len(ids), np.int64)
        closed = is_closed(batch.candles)
        closing = batch.candles[closed]
        leave = np.where(is_amended(closing), Leave.OWNER_AMENDS.value, Leave.OWNER.value).astype(np.int64)
        at_ms = max(batch.closed_upto_ms, int(end_ms(closing).max(initial=0))) if batch.now_ms is None else batch.now_ms
        outcome = candle_rows.put_closed(
            self._database,
            self._recorder,
            self._directory,
            ids[closed],
            closing,
            leave,
            np.full(len(closing), at_ms, np.int64),
            publish_new=True,
        )
        accepted[closed], revisions[closed] = outcome.accepted, outcome.revisions
        series = series_of(ids, batch.candles)
        opened = series[~closed]
        last = ~np.isin(series[closed], opened)
        if last.any():
            candle_rows.drop_open(self._database, series[closed][last], closing["open_ms"][last])
        if len(opened):
            candle_rows.put_open(self._database, opened, batch.candles[~closed])
        if len(batch.last_trades):
            candle_rows.put_last_trades(self._database, batch.last_trade_instrument_ids, batch.last_trades)
        self._record(batch.gaps, at_ms)
        quarantine.put(self._database, batch.quarantined, at_ms)
        now_durable_ms = barrier.durable_ms(self._database, market) if batch.closed_upto_ms > durable_ms else durable_ms
        if now_durable_ms > durable_ms:
            barrier.moved(self._database, market, durable_ms, now_durable_ms, at_ms)
        if now_durable_ms > durable_ms or outcome.settled.any():
            barrier.settle(self._database, market, at_ms)
        return accepted, revisions, int(outcome.changed.sum())

    @contextmanager
    def knowing(self, at_ms: int | None, *, publish_new: bool = True) -> Iterator["SqliteStore"]:
        """Say when what `write` brings in this block became known; `None`: each candle at its own end, as of a recording.

        Outside of such a block it is `None`. Where not `publish_new`, candles never stored before are history and no news:
        they make no events.
        """
        before, self._knowing = self._knowing, _Knowing(at_ms, publish_new)
        try:
            yield self
        finally:
            self._knowing = before

    def write(self, instrument_ids: Ints, candles: Candles) -> WriteResult:
        """Write closed candles without a claim (backfill, repair, replay), known as `knowing` says.

        Only what is better or newer than what is stored is taken, and only minutes the owner has closed.
        """
        at_ms, publish_new = self._knowing.at_ms, self._knowing.publish_new
        ids = np.asarray(instrument_ids, np.int64)
        assert len(ids) == len(candles)
        assert is_closed(candles).all(), "open snapshots are their owner's"
        self._directory.cover(ids)
        accepted, changed = np.zeros(len(ids), np.bool_), np.zeros(len(ids), np.bool_)
        revisions = np.full(len(ids), -1, np.int64)
        with self._database.transaction():
            past = candle_rows.within_closed_upto(self._database, self._directory, ids, candles)
            leave = np.full(len(past), Leave.UNFENCED.value, np.int64)
            known_ms = end_ms(candles[past]) if at_ms is None else np.full(len(past), at_ms, np.int64)
            outcome = candle_rows.put_closed(
                self._database,
                self._recorder,
                self._directory,
                ids[past],
                candles[past],
                leave,
                known_ms,
                publish_new=publish_new,
            )
            taken = past[outcome.accepted]
            if len(taken):
                known = int(known_ms.max())
                missing = gaps.record_unmatched(self._database, ids[taken], candles[taken], known)
                self._tell_gaps(missing if self._knowing.publish_new else (), known)
            for position in np.unique(self._directory.markets[ids[past][outcome.settled]]).tolist():
                barrier.settle(self._database, MARKETS[position], int(known_ms.max()))
        accepted[past], changed[past], revisions[past] = outcome.accepted, outcome.changed, outcome.revisions
        return WriteResult(accepted, changed, revisions)

    @contextmanager
    def transaction(self) -> Iterator["SqliteStore"]:
        """Reads and writes that see one state and are committed together, or not at all (a refold and what it read)."""
        try:
            with self._database.transaction():
                yield self
        except BaseException:
            self._directory.forget()
            raise

    def record_gap(self, gap: Gap, at_ms: int | None = None) -> None:
        """Put a span that could not be kept on record, as known at `at_ms`, else as `knowing` says, else at the span's end."""
        known = [known_ms for known_ms in (at_ms, self._knowing.at_ms, gap.end_ms) if known_ms is not None]
        with self._database.transaction():
            self._record((gap,), known[0])

    def _record(self, spans: Sequence[Gap], at_ms: int) -> None:
        self._tell_gaps(gaps.record(self._database, spans, at_ms), at_ms)

    def _tell_gaps(self, new: Sequence[Gap], at_ms: int) -> None:
        for gap in new:
            owner = self._database.one(
                "SELECT id FROM instrument WHERE market = ? AND symbol = ?", (gap.market.value, gap.symbol)
            )
            values = np.array([[owner[0] if owner else 0, gap.start_ms, gap.end_ms]], np.int64)
            events.append(self._database, gap.market, at_ms, Kind.GAP, values)

    def settle_gaps(self, market: Market, now_ms: int) -> list[Gap]:
        """Close the gaps whose minutes the exchange has settled since; those that were closed.

        Bounded and cheap: call it as often as minutes are repaired. What one call leaves, the next ones look at.
        """
        return gaps.settle(self._database, market, now_ms)

    def put_aside(self, entries: Iterable[Quarantined], at_ms: int) -> None:
        """Put on record what was not believed or could not be handled; see `klagg.store.quarantine`."""
        with self._database.transaction():
            quarantine.put(self._database, entries, at_ms)

    def quarantined(self, market: Market, limit: int) -> list[Quarantined]:
        """The newest things of a market that were put aside, newest first."""
        return quarantine.newest(self._database, market, limit)

    def quarantine_count(self, market: Market) -> int:
        """How many of a market are on record as put aside."""
        return quarantine.count(self._database, market)

    # What the exchange was seen not to have

    def note_absent(self, instrument_id: int, interval: Interval, opens: Iterable[int], now_ms: int) -> set[int]:
        """Note candles that an answer lacked between two of its rows; those that may be called `unmatched` by now."""
        with self._database.transaction():
            return absence.note(self._database, instrument_id, interval, opens, now_ms)

    def absent_due(self, market: Market, now_ms: int, limit: int) -> np.ndarray[tuple[int], np.dtype[np.void]]:
        """The `unmatched` candles that are to be looked at again by now (`UNVERIFIED`)."""
        return absence.due(self._database, market, now_ms, limit)

    def forget_settled_absences(self) -> int:
        """Forget the absences of candles that have come after all: how many there were."""
        return absence.forget_settled(self._database)

    # Request weight

    def claim_weight(
        self,
        market: Market,
        address: str,
        *,
        process: str,
        minute: int,
        used: int,
        wanted: int,
        ceiling: int,
        in_flight: int,
    ) -> tuple[int, int, int]:
        """Claim request weight, see `klagg.store.budget.claim`; with it the ban of the address."""
        ask = {"minute": minute, "used": used, "wanted": wanted, "ceiling": ceiling, "in_flight": in_flight}
        claimed = budget.claim(self._database, market, address, process=process, **ask)
        return claimed, *budget.ban(self._database, market, address)

    def put_ban(self, market: Market, address: str, until_ms: int, wait_ms: int) -> None:
        """Say that an address is banned until an instant, so much after the ban was met."""
        budget.put_ban(self._database, market, address, until_ms, wait_ms)

    def ban(self, market: Market, address: str) -> tuple[int, int]:
        """Until when an address is or was banned, and how long that ban was to be waited for; zeros for never."""
        return budget.ban(self._database, market, address)

    # Events

    def events(self, after_seq: int, limit: int, market: Market | None = None) -> list[Event]:
        """The first `limit` events after a sequence number, of one market or all, grouped as `Event` says.

        They are in the order in which their changes became durable; where `after_seq + 1` is older than `oldest_seq`, what
        lies between is gone.

        Raises:
            MalformedRow: a row that cannot be read; named by its sequence number.

        """
        return list(events.read(self._database, after_seq, limit, market))

    def newest_seq(self) -> int:
        """The sequence number of the newest event, 0 before the first."""
        return events.newest_seq(self._database)

    def oldest_seq(self) -> int:
        """The sequence number of the oldest event still kept; one more than the newest where there is none."""
        return events.oldest_seq(self._database)

    # Reading

    def newest(self, market: Market, intervals: Iterable[Interval]) -> Newest:
        """The open snapshot of every series, in one query, and each instrument's last trade: the load at the start.

        Raises:
            MalformedRow: a row contradicts itself; names symbol, interval, field and value.

        """
        return newest.newest_open(self._database, self._directory, market, intervals)

    def newest_closed(self, market: Market, intervals: Iterable[Interval]) -> Newest:
        """The newest closed candle of every series (and each instrument's last trade), by one index seek per series.

        Raises:
            MalformedRow: a row contradicts itself; names symbol, interval, field and value.

        """
        return newest.newest_closed(self._database, self._directory, market, intervals)

    def read(
        self,
        instrument_id: int,
        interval: Interval,
        start_ms: int,
        end_ms: int,
        limit: int | None = None,
        *,
        descending: bool = False,
        as_of_ms: int | None = None,
    ) -> Candles:
        """The closed candles of a series that open in `[start_ms, end_ms)`, `slot` 0.

        With `as_of_ms` what was known at that instant: no candle that became known later, each with the numbers and the
        revision it had, `VERIFIED` where that was known by then. (An origin that rose without a change of the numbers is the
        one it rose to.)

        Raises:
            MalformedRow: a scale or an origin that cannot be.

        """
        return candle_rows.read(
            self._database, instrument_id, interval, start_ms, end_ms, limit, as_of_ms, descending=descending
        )

    def read_raw(
        self,
        instrument_id: int,
        interval: Interval,
        start_ms: int,
        end_ms: int,
        limit: int | None = None,
        *,
        descending: bool = False,
    ) -> Candles:
        """The same candles, whatever they hold: for those who look for faults."""
        return candle_rows.read_raw(
            self._database, instrument_id, interval, start_ms, end_ms, limit, descending=descending
        )

    def malformed_rows(self, market: Market) -> Iterator[str]:
        """One line for each series of no instrument or interval, and for what a start of this market would refuse."""
        return strays.malformed_rows(self._database, self._directory, market)

    def iter_read(
        self,
        instrument_id: int,
        interval: Interval,
        start_ms: int,
        end_ms: int,
        *,
        chunk: int = READ_CHUNK,
        as_of_ms: int | None = None,
    ) -> Iterator[Candles]:
        """The candles that `read` gives, ascending, in pieces of at most `chunk`."""
        return candle_rows.iter_read(self._database, instrument_id, interval, start_ms, end_ms, chunk, as_of_ms)

    def revisions(
        self, instrument_id: int, interval: Interval, start_ms: int, end_ms: int, *, as_of_ms: int | None = None
    ) -> Ints:
        """The revisions of the candles that `read` gives for the same span and instant."""
        return candle_rows.revisions(self._database, instrument_id, interval, start_ms, end_ms, as_of_ms)

    def read_states(
        self,
        instrument_id: int,
        interval: Interval,
        start_ms: int,
        end_ms: int,
        limit: int | None = None,
        *,
        as_of_ms: int | None = None,
    ) -> States:
        """The candles that `read` gives, each with its revision and since when it is known, of one state."""
        return states.read(self._database, instrument_id, interval, start_ms, end_ms, limit, as_of_ms)

    def digest(
        self, instrument_id: int, interval: Interval, start_ms: int, end_ms: int, *, as_of_ms: int | None = None
    ) -> tuple[int | float, ...]:
        """Numbers that are other ones where any of these candles is another: see `klagg.store.states`."""
        return states.digest(self._database, instrument_id, interval, start_ms, end_ms, as_of_ms)

    def span(self, instrument_id: int, interval: Interval, start_ms: int, end_ms: int) -> tuple[int, int] | None:
        """The opens of the first and the last closed candle of a range; None where there is none."""
        return states.span(self._database, instrument_id, interval, start_ms, end_ms)

    @property
    def looks(self) -> Looks:
        """What the read side looks up besides."""
        return Looks(self._database)

    def open_candle(self, instrument_id: int, interval: Interval) -> Candles:
        """The open snapshot of a series: one candle, or none."""
        return candle_rows.open_candle(self._database, instrument_id, interval)

    def unverified(
        self, market: Market, *, before_ms: int, urgent: bool | None = None, limit: int = 10_000
    ) -> np.ndarray[tuple[int], np.dtype[np.void]]:
        """The newest `limit` candles of the repair queue (`UNVERIFIED`), newest first.

        They open before `before_ms`, are not verified and not `unmatched`: the urgent ones, the others, or (None) both.
        """
        return candle_rows.unverified(self._database, market, before_ms, urgent, limit)

    @property
    def mending(self) -> Mending:
        """Rows as a check sees them, and how they are mended."""
        return Mending(self._database)

    # What it holds

    def settled_minutes(self, market: Market, start_ms: int, end_ms: int) -> dict[Settled, int]:
        """How many closed minutes of `[start_ms, end_ms)` stand how: see `klagg.store.shares`."""
        return shares.settled_minutes(self._database, market, start_ms, end_ms)

    def series_count(self, market: Market) -> int:
        """How many series have an open snapshot or a closed candle (one seek for each possible one)."""
        row = self._database.one(
            f"SELECT count(*) FROM instrument i CROSS JOIN interval n WHERE i.market = ? AND ("
            f"EXISTS (SELECT 1 FROM open_candle WHERE series = i.id * {SERIES_INTERVALS} + n.code) OR "
            f"EXISTS (SELECT 1 FROM candle WHERE series = i.id * {SERIES_INTERVALS} + n.code))",
            (market.value,),
        )
        return int(row[0]) if row else 0

    def candle_counts(self, market: Market) -> list[CandleCount]:
        """Closed candles by origin and by whether they are verified, from the tally kept at each write."""
        rows = self._database.rows(
            "SELECT origin, verified, candles FROM tally WHERE market = ? AND candles <> 0 ORDER BY origin, verified",
            (market.value,),
        )
        known = {origin.value for origin in Origin}
        counts = []
        for origin, verified, count in rows:
            if origin not in known:
                raise MalformedRow(
                    f"{self.path}: table tally, market {market.value}: unknown origin {origin}: delete the row"
                )
            counts.append(CandleCount(Origin(origin), bool(verified), count))
        return counts

    def newest_minute_ms(self, market: Market) -> int | None:
        """The open of the newest closed minute of any symbol (one seek a symbol)."""
        row = self._database.one(
            f"SELECT max((SELECT max(open_ms) FROM candle WHERE series = i.id * {SERIES_INTERVALS} + {MINUTE.code})) "
            "FROM instrument i WHERE i.market = ?",
            (market.value,),
        )
        return row[0] if row else None

    def first_minutes(self, market: Market) -> dict[int, int]:
        """The open of the oldest closed minute of each instrument that has one (one seek an instrument)."""
        rows = self._database.rows(
            f"SELECT i.id, (SELECT min(open_ms) FROM candle WHERE series = i.id * {SERIES_INTERVALS} + {MINUTE.code}) AS first "
            "FROM instrument i WHERE i.market = ? AND first IS NOT NULL",
            (market.value,),
        )
        return dict(rows)

    def count_minutes(self, instrument_id: int, start_ms: int, end_ms: int) -> tuple[int, int, int]:
        """How many closed minutes of an instrument open in `[start_ms, end_ms)`, and the first and last of them (0 where none does)."""
        series = instrument_id * SERIES_INTERVALS + MINUTE.code
        row = self._database.one(
            "SELECT count(*), coalesce(min(open_ms), 0), coalesce(max(open_ms), 0) FROM candle "
            "WHERE series = ? AND open_ms >= ? AND open_ms < ?",
            (series, start_ms, end_ms),
        )
        assert row is not None
        return int(row[0]), int(row[1]), int(row[2])

    def gaps(self, market: Market) -> list[Gap]:
        """The spans that could not be kept and are not settled yet, oldest first."""
        return gaps.open_gaps(self._database, market)

    def gap_records(self, market: Market, limit: int, state: GapState | None = None) -> list[GapRecord]:
        """The newest gaps on record, of a state or of all, newest first."""
        return gaps.records(self._database, market, limit, state)

    def gap_counts(self, market: Market) -> dict[GapState, int]:
        """How many gaps of each state are on record."""
        return gaps.counts(self._database, market)

    def size_bytes(self) -> int:
        """Bytes on disk: the database and its log."""
        paths = (self.path, self.path.with_name(f"{self.path.name}-wal"))
        return sum(path.stat().st_size for path in paths if path.exists())

    # The file

    def checkpoint(self) -> None:
        """Move what the log holds into the database, as far as nobody is hindered.

        Call it from a connection of its own, off the commits' path: it is the tail of their latency otherwise.
        """
        self._database.all("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        """Close the file and give back the locks; claims not released stay fresh until their lease ends."""
        for lock in self._locks.values():
            lock.release()
        self._database.close()
