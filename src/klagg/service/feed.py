"""The event log as the feed reads it: rows of the database made to pages, in the threads that read."""

from collections.abc import Iterator, Sequence

from klagg.interval import INTERVALS
from klagg.model import Market
from klagg.serve.events import quoted
from klagg.serve.feed.page import Entry, Page, Told, candle_fields, opening
from klagg.serve.native.source import Known
from klagg.serve.native.table import SeriesName, Table, objects
from klagg.serve.source import Frame
from klagg.service.reading import Reader
from klagg.store import Event, Kind, SqliteStore
from klagg.store.looks import Looked
from klagg.store.schema import SERIES_INTERVALS

_FRAMES = [Frame(interval) for interval in INTERVALS]


class StoredLog:
    """`serve.feed.source.Log` over a database."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._symbols: dict[int, str] = {}

    async def newest_seq(self) -> int:
        """As `Log` says."""
        return await self._reader.call(lambda store: store.newest_seq())

    async def page(self, after_seq: int, limit: int, market: Market | None, *, full: bool) -> Page:
        """As `Log` says."""
        return await self._reader.call(lambda store: self._page(store, after_seq, limit, market, full=full))

    def _page(self, store: SqliteStore, after_seq: int, limit: int, market: Market | None, *, full: bool) -> Page:
        # The end first: what comes while the events are read belongs to the next page.
        newest = store.newest_seq()
        if newest <= after_seq:
            return Page(after_seq, newest, store.oldest_seq(), newest, (), full)
        events = store.events(after_seq, limit, market)
        # The beginning last: what went while they were read must not look as if it had never been asked for.
        oldest = store.oldest_seq()
        entries = [entry for event in events for entry in self._entries(store, event, full=full)]
        upto = entries[-1].seq if len(entries) >= limit else max(newest, entries[-1].seq if entries else 0)
        return Page(after_seq, upto, oldest, max(newest, upto), entries, full)

    def _entries(self, store: SqliteStore, event: Event, *, full: bool) -> Iterator[Entry]:
        match event.kind:
            case Kind.CANDLES:
                yield from self._candles(store, event, full=full)
            case Kind.DURABLE | Kind.VERIFIED:
                durable = event.kind is Kind.DURABLE
                told = Told.BARRIER_DURABLE if durable else Told.BARRIER_VERIFIED
                count = "symbols" if durable else "unverified"
                for seq, (boundary_ms, number) in enumerate(event.values.tolist(), event.seq):
                    text = f'{opening(seq, event.at_ms, event.market, told)},"boundary_ms":{boundary_ms},"{count}":{number}'
                    yield Entry(seq, event.market, told, "", "", text)
            case Kind.ADDED | Kind.RETIRED:
                told = Told.SYMBOL_ADDED if event.kind is Kind.ADDED else Told.SYMBOL_RETIRED
                for seq, (number,) in enumerate(event.values.tolist(), event.seq):
                    symbol = self._symbol(store, number)
                    text = f'{opening(seq, event.at_ms, event.market, told)},"symbol":{quoted(symbol)}'
                    yield Entry(seq, event.market, told, symbol, "", text)
            case Kind.GAP:
                for seq, (number, start_ms, end_ms) in enumerate(event.values.tolist(), event.seq):
                    symbol = self._symbol(store, number) if number else ""
                    reason = store.looks.gap_reason(event.market, symbol, start_ms, end_ms)
                    text = (
                        f'{opening(seq, event.at_ms, event.market, Told.GAP)},"symbol":{quoted(symbol)},'
                        f'"start_ms":{start_ms},"end_ms":{end_ms},"reason":{quoted(reason)}'
                    )
                    yield Entry(seq, event.market, Told.GAP, symbol, "", text)

    def _candles(self, store: SqliteStore, event: Event, *, full: bool) -> Iterator[Entry]:
        rows = event.values.tolist()
        candles: Sequence[str | None] = [None] * len(rows)
        if full:
            candles = self._full(store, event, [(series, open_ms, revision) for series, open_ms, _, revision in rows])
        for place, (series, open_ms, what, revision) in enumerate(rows):
            symbol, interval = self._symbol(store, series // SERIES_INTERVALS), INTERVALS[series % SERIES_INTERVALS]
            told, seq = Told(what), event.seq + place
            text = opening(seq, event.at_ms, event.market, told)
            text += candle_fields(symbol, interval.name, open_ms, revision, told)
            yield Entry(seq, event.market, told, symbol, interval.name, text, candles[place])

    def _full(self, store: SqliteStore, event: Event, keys: list[tuple[int, int, int]]) -> list[str | None]:
        """The candles of events as JSON; None for one that is no longer there."""
        looked = store.looks.at_revisions(keys)
        owners = looked.instrument_ids * SERIES_INTERVALS + looked.candles["interval"]
        found = dict(
            zip(
                zip(owners.tolist(), looked.candles["open_ms"].tolist(), strict=True),
                self._texts(store, event, looked),
                strict=True,
            )
        )
        return [found.get(key[:2]) for key in keys]

    def _texts(self, store: SqliteStore, event: Event, looked: Looked) -> list[str]:
        parts = []
        known = Known(looked.candles, looked.revisions, looked.known_ms)
        for place, number in enumerate(looked.instrument_ids.tolist()):
            frame = _FRAMES[int(looked.candles["interval"][place])]
            name = SeriesName(self._symbol(store, number), frame.interval.name, frame)
            rows = slice(place, place + 1)
            parts.append((name, Known(known.candles[rows], known.revisions[rows], known.known_ms[rows])))
        return objects(Table.of(event.market, parts))

    def _symbol(self, store: SqliteStore, instrument_id: int) -> str:
        """The symbol of an instrument: the same for ever."""
        if instrument_id not in self._symbols:
            self._symbols.update({one.id: one.instrument.symbol for one in store.instruments()})
        return self._symbols.get(instrument_id, "")
