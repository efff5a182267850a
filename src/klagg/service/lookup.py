"""What the native API looks up, from the database: `serve.native.source.Lookup` over the reading connections."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from klagg.interval import MINUTE, Interval
from klagg.model import Candles, Flag, Ints, Market, Origin, no_candles
from klagg.serve.folding import fold, fold_source
from klagg.serve.native.source import How, Known, OfMarket, Then, Through
from klagg.serve.source import Frame, Listing
from klagg.service.reading import Reader, in_stretches
from klagg.store import GapState, Kind, SqliteStore
from klagg.store.looks import Looked


class StoredLookup:
    """`Lookup` over a database."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def known(
        self,
        symbols: Sequence[Listing],
        frame: Frame,
        start_ms: int,
        end_ms: int,
        limit: int,
        how: How,
        *,
        newest: bool,
    ) -> Sequence[Known]:
        """As `Lookup` says."""
        if start_ms >= end_ms:
            return [_known(Looked.none())] * len(symbols)
        return await self._reader.call(
            lambda store: [known(store, one, frame, start_ms, end_ms, limit, how, newest=newest) for one in symbols]
        )

    async def whole_market(self, market: Market, interval: Interval, open_ms: int, how: How) -> OfMarket:
        """As `Lookup` says."""
        found = await self._reader.call(lambda store: store.looks.market(market, interval, open_ms, how.as_of_ms))
        wanted = _wanted(found.candles["flags"], found.candles["origin"], how)
        chosen = _known(found)
        return OfMarket(
            found.instrument_ids[wanted],
            Known(chosen.candles[wanted], chosen.revisions[wanted], chosen.known_ms[wanted]),
        )

    async def through(self, one: Listing, interval: Interval, open_ms: int) -> Through:
        """As `Lookup` says."""
        found = await self._reader.call(lambda store: store.looks.history(one.id, interval, open_ms))
        return Through(_known(found), found.verified_ms)

    async def listed_at(self, market: Market, at_ms: int) -> Sequence[Then]:
        """As `Lookup` says."""
        return await self._reader.call(
            lambda store: [Then(past.instrument, None) for past in store.instruments_at(market, at_ms)]
        )

    async def verified_ms(self, market: Market) -> int:
        """As `Lookup` says."""
        return await self._reader.call(lambda store: store.verified_upto(market) or 0)

    async def gaps(self, market: Market, state: str | None, limit: int) -> Sequence[Mapping[str, Any]]:
        """As `Lookup` says."""
        wanted = None if state is None else GapState(state)
        records = await self._reader.call(lambda store: store.gap_records(market, limit, wanted))
        return [
            {
                "symbol": record.gap.symbol,
                "start_ms": record.gap.start_ms,
                "end_ms": record.gap.end_ms,
                "reason": record.gap.reason,
                "state": record.state.value,
                "at_ms": record.at_ms,
                "closed_ms": record.closed_ms,
            }
            for record in records
        ]

    async def barriers(self, market: Market, limit: int) -> Sequence[Mapping[str, Any]]:
        """As `Lookup` says."""
        found = await self._reader.call(lambda store: store.looks.barriers(market, limit))
        return [
            {
                "seq": barrier.seq,
                "at_ms": barrier.at_ms,
                "kind": f"barrier_{barrier.kind.value}",
                "boundary_ms": barrier.boundary_ms,
                "symbols" if barrier.kind is Kind.DURABLE else "unverified": barrier.count,
            }
            for barrier in found
        ]


def known(
    store: SqliteStore, one: Listing, frame: Frame, start_ms: int, end_ms: int, limit: int, how: How, *, newest: bool
) -> Known:
    """The closed candles of a frame, as `Lookup.known` gives them."""
    child = fold_source(frame, store.intervals(one.instrument.market) or (MINUTE,))
    if child is frame.interval:
        return _known(
            store.looks.series(
                one.id,
                child,
                start_ms,
                end_ms,
                limit,
                newest=newest,
                as_of_ms=how.as_of_ms,
                only_verified=how.only_verified,
                unmatched=how.unmatched,
            )
        )
    return _folded(store, one, frame, child, start_ms, end_ms, limit, how, newest=newest)


def _folded(
    store: SqliteStore,
    one: Listing,
    frame: Frame,
    child: Interval,
    start_ms: int,
    end_ms: int,
    limit: int,
    how: How,
    *,
    newest: bool,
) -> Known:
    """The candles of a frame folded from shorter ones."""

    def edge(low_ms: int, high_ms: int) -> Candles:
        return store.read(one.id, child, low_ms, high_ms, 1, descending=newest, as_of_ms=how.as_of_ms)

    def read(first_ms: int, last_ms: int, most: int) -> tuple[int, Known]:
        looked = store.looks.series(one.id, child, first_ms, last_ms, most, newest=False, as_of_ms=how.as_of_ms)
        return len(looked.candles), _fold(looked, one, frame, how)

    found = in_stretches(
        frame, child, start_ms, end_ms, limit, edge, read, lambda piece: len(piece.candles), newest=newest
    )
    none = np.zeros(0, np.int64)
    chosen = slice(-limit, None) if newest else slice(0, limit)
    return Known(
        np.concatenate([no_candles(), *(piece.candles for piece in found)])[chosen],
        np.concatenate([none, *(piece.revisions for piece in found)])[chosen],
        np.concatenate([none, *(piece.known_ms for piece in found)])[chosen],
    )


def _fold(looked: Looked, one: Listing, frame: Frame, how: How) -> Known:
    if len(looked.candles) == 0:
        return _known(looked)
    folded = fold(looked.candles, frame, one.instrument.listed_ms)
    starts = np.searchsorted(looked.candles["open_ms"], folded.candles["open_ms"])
    wanted = folded.whole & _wanted(folded.candles["flags"], folded.candles["origin"], how)
    return Known(
        folded.candles[wanted],
        np.add.reduceat(looked.revisions, starts)[wanted],
        np.maximum.reduceat(looked.known_ms, starts)[wanted],
    )


def _wanted(flags: Ints, origins: Ints, how: How) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    wanted: np.ndarray[tuple[int], np.dtype[np.bool_]] = np.ones(len(flags), np.bool_)
    if how.only_verified:
        wanted &= (flags & Flag.VERIFIED.value) != 0
    if not how.unmatched:
        wanted &= origins != Origin.UNMATCHED.value
    return wanted


def _known(looked: Looked) -> Known:
    return Known(looked.candles, looked.revisions, looked.known_ms)
