"""A reader over a database: what the service would answer, read by this process."""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from klagg import __version__
from klagg.client.asked import Asked, expanded, market_of
from klagg.client.events import BarrierEvent
from klagg.client.facts import Gap, MarketStatus, Missing, Status, Symbol
from klagg.client.feed import FeedSource
from klagg.client.frame import Candles, known_missing
from klagg.client.log import LoggedFeed, barrier_event
from klagg.client.reader import Reader
from klagg.errors import UsageError
from klagg.export.arrow import arrow_schema, record_batch
from klagg.export.columns import Piece, Series
from klagg.interval import MINUTE_MS
from klagg.model import Instrument, Market
from klagg.model import Status as Trading
from klagg.serve.native.asking import Named, symbols_of
from klagg.serve.native.candles import holes
from klagg.serve.native.problem import Problem
from klagg.serve.native.source import How, Known
from klagg.serve.source import Listing, TooMuch
from klagg.service.lookup import known
from klagg.store import GapState, SqliteStore, open_store

PIECE: Final = 50_000
"""Candles of a series that are read at a time."""


class DatabaseReader(Reader):
    """Reads a database that a service may be writing."""

    def __init__(self, url: str, market: str | None) -> None:
        self._url = url
        self._store = open_store(url, mode="read")
        try:
            there = [one for one in Market if self._store.instruments(one)]
            self._market = market_of(market, there or tuple(Market))
        except BaseException:
            self._store.close()
            raise

    @property
    def market(self) -> Market:
        """The market that is read."""
        return self._market

    def close(self) -> None:
        """Close the database."""
        self._store.close()

    # Candles

    def _candles(self, question: Asked) -> Candles:
        listings = {
            one.instrument.symbol: Listing(one.id, one.instrument, one.retired_ms)
            for one in self._store.instruments(self._market)
        }
        try:
            chosen = symbols_of(
                listings, ",".join(expanded(question.symbols, self._market, lambda: listings)), self._market
            )
        except Problem as problem:
            raise UsageError(problem.message) from None
        durable_ms = durable_of(self._store, self._market)
        batches: list[pa.RecordBatch] = []
        missing: list[Missing] = []
        for named in question.intervals:
            for one in chosen:
                series = Series(self._market, one.instrument.symbol, named.frame.interval, named.frame.shift_ms)
                found = list(self._pieces(question, one, named, durable_ms))
                for piece in found:
                    each = Piece(piece.candles, piece.revisions, piece.known_ms)
                    batches.append(record_batch(each, series, numbers=question.numbers))
                missing += _missing(question, one, named, durable_ms, found)
        table = pa.Table.from_batches(batches, arrow_schema(numbers=question.numbers))
        told = known_missing(missing, table, has_start=question.has_start)
        return Candles(table, durable_ms, self._store.verified_upto(self._market) or 0, told)

    def _pieces(self, question: Asked, one: Listing, named: Named, durable_ms: int) -> Iterator[Known]:
        """The candles of one series, in pieces."""
        frame = named.frame
        how = How(question.as_of_ms, question.verified == "only", question.unmatched == "keep")
        start_ms, end_ms = span_of(question, named, durable_ms)
        limit = PIECE if question.limit is None else question.limit
        while start_ms < end_ms:
            try:
                found = known(self._store, one, frame, start_ms, end_ms, limit, how, newest=question.limit is not None)
            except TooMuch:
                if limit == 1:
                    raise UsageError(
                        f"{named.name} candles of {one.instrument.symbol} are folded from too many shorter ones: keep a longer interval"
                    ) from None
                if question.limit is not None:
                    raise UsageError(
                        "these candles are folded from too many shorter ones: ask for a lower limit"
                    ) from None
                limit = limit // 4 or 1
                continue
            if len(found.candles):
                yield found
            if len(found.candles) < limit or question.limit is not None:
                return
            start_ms = int(found.candles["open_ms"][-1]) + 1

    # Facts

    def _symbols(self, at_ms: int | None) -> list[Symbol]:
        if at_ms is None:
            listed = [(one.instrument, one.retired_ms) for one in self._store.instruments(self._market)]
        else:
            listed = [(past.instrument, None) for past in self._store.instruments_at(self._market, at_ms)]
        return [_symbol(instrument, retired_ms) for instrument, retired_ms in listed]

    def status(self) -> Status:
        """How the markets stand."""
        markets = []
        for market in Market:
            instruments = self._store.instruments(market)
            if not instruments:
                continue
            counts = self._store.gap_counts(market)
            markets.append(
                MarketStatus(
                    market.value,
                    sum(one.instrument.status is not Trading.RETIRED for one in instruments),
                    durable_of(self._store, market),
                    self._store.verified_upto(market) or 0,
                    counts[GapState.OPEN],
                    counts[GapState.FINAL],
                )
            )
        return Status(__version__, tuple(markets))

    def gaps(self, state: str = "open", limit: int = 100) -> list[Gap]:
        """The newest gaps on record, newest first."""
        known_states = (*(one.value for one in GapState), "all")
        if state not in known_states:
            raise UsageError(f"state is {state!r}: use one of {' '.join(known_states)}")
        records = self._store.gap_records(self._market, limit, None if state == "all" else GapState(state))
        return [
            Gap(
                self._market.value,
                record.gap.symbol,
                record.gap.start_ms,
                record.gap.end_ms,
                record.gap.reason,
                record.state.value,
                record.at_ms,
                record.closed_ms,
            )
            for record in records
        ]

    def barriers(self, limit: int = 100) -> list[BarrierEvent]:
        """The newest barriers, newest first."""
        return [
            barrier_event(one.kind, one.seq, one.at_ms, self._market.value, one.boundary_ms, one.count)
            for one in self._store.looks.barriers(self._market, limit)
        ]

    def _newest_seq(self) -> int:
        return self._store.newest_seq()

    def _feed_source(self) -> FeedSource:
        return LoggedFeed(self._url, self._market)


def durable_of(store: SqliteStore, market: Market) -> int:
    """The boundary up to which the owner has closed, or the end of the newest minute where there never was one."""
    closed_upto_ms = store.closed_upto(market)
    if closed_upto_ms is not None:
        return closed_upto_ms
    newest_ms = store.newest_minute_ms(market)
    return 0 if newest_ms is None else newest_ms + MINUTE_MS


def span_of(question: Asked, named: Named, durable_ms: int) -> tuple[int, int]:
    """The opens that are asked for, as far as their candles have ended."""
    frame = named.frame
    if question.at_ms is not None:
        open_ms = frame.open_at(question.at_ms)
        return open_ms, open_ms + 1 if frame.next_open(open_ms) <= durable_ms else open_ms
    return question.start_ms, min(question.end_ms, frame.open_at(durable_ms) if durable_ms else 0)


def _missing(question: Asked, one: Listing, named: Named, durable_ms: int, found: Sequence[Known]) -> Iterator[Missing]:
    """What of the symbol's life was asked for and is not there."""
    frame = named.frame
    opens = np.concatenate([np.zeros(0, np.int64), *(piece.candles["open_ms"] for piece in found)])
    start_ms, end_ms = span_of(question, named, durable_ms)
    start_ms = max(start_ms, frame.open_at(one.instrument.listed_ms))
    if one.retired_ms is not None:
        end_ms = min(end_ms, frame.open_at(one.retired_ms))
    if start_ms < end_ms:
        for first_ms, last_ms, _ in holes(frame, opens, start_ms, end_ms):
            yield Missing(one.instrument.symbol, named.name, first_ms, last_ms)


def _symbol(instrument: Instrument, retired_ms: int | None) -> Symbol:
    return Symbol(
        instrument.market.value,
        instrument.symbol,
        "retired" if retired_ms is not None else instrument.status.value,
        instrument.native_status,
        instrument.base,
        instrument.quote,
        instrument.price_scale,
        instrument.qty_scale,
        instrument.listed_ms,
        retired_ms,
    )
