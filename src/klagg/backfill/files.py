"""Archive files into the database, one transaction a file."""

from collections.abc import Callable, Iterable, Sequence
from os import PathLike

import numpy as np

from klagg.archive import read_klines
from klagg.backfill.gaps import find_gaps
from klagg.backfill.summary import FileSummary
from klagg.interval import MINUTE, Interval
from klagg.model import Instrument, Market, Status
from klagg.refold import Span, refold
from klagg.store import SqliteStore


def backfill_files(
    store: SqliteStore,
    files: Iterable[str | PathLike[str]],
    *,
    market: Market,
    intervals: Sequence[Interval],
    at_ms: int,
    symbol: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FileSummary:
    """Archive files of klines into the database, one transaction a file; their interval is kept from then on.

    Args:
        store: the database; synchronous.
        files: the files; where the name does not say the symbol, `symbol` does.
        market: what they are taken for.
        intervals: kept and folded, beside those that the market keeps.
        at_ms: now, for the instruments that are new.
        symbol: see `files`.
        progress: told (files done, files).

    Raises:
        FileFormatError | UsageError: a file cannot be read; nothing of it was written.
        StoreError: the database cannot be used.

    """
    readers = [read_klines(path, market=market, symbol=symbol) for path in files]
    rows = written = folded = off_grid = 0
    kept = {*store.intervals(market), *intervals, MINUTE, *(reader.interval for reader in readers)}
    chosen = tuple(sorted(kept, key=lambda interval: interval.code))
    for done, reader in enumerate(readers):
        chunks = list(reader)
        with store.transaction():
            store.set_intervals(market, chosen)
            instrument_id = known_instrument(store, market, reader.symbol, chunks, at_ms)
            for candles in chunks:
                written += int(store.write(np.full(len(candles), instrument_id, np.int64), candles).accepted.sum())
            if chunks:
                start_ms = int(min(candles["open_ms"].min() for candles in chunks))
                end_ms = reader.interval.next_open(int(max(candles["open_ms"].max() for candles in chunks)))
                span = Span(instrument_id, start_ms, end_ms)
                if reader.interval is MINUTE:
                    gaps = find_gaps(store, instrument_id, start_ms, end_ms)
                    store.write(np.full(len(gaps), instrument_id, np.int64), gaps)
                folded += len(refold(store, [span], chosen, store.closed_upto(market), numbers_changed=False).candles)
        rows += reader.rows
        off_grid += reader.off_grid
        if progress is not None:
            progress(done + 1, len(readers))
    return FileSummary(len(readers), rows, written, folded, off_grid)


def known_instrument(
    store: SqliteStore,
    market: Market,
    symbol: str,
    chunks: Sequence[np.ndarray[tuple[int], np.dtype[np.void]]],
    at_ms: int,
) -> int:
    """The identifier of a symbol, its scales widened to what the arrays (trades or candles) need; new where it is unknown."""
    price_scale = max((int(rows["price_scale"].max()) for rows in chunks if len(rows)), default=0)
    qty_scale = max((int(rows["qty_scale"].max()) for rows in chunks if len(rows)), default=0)
    for stored in store.instruments(market):
        if stored.instrument.symbol == symbol:
            store.widen_scales(stored.id, price_scale, qty_scale)
            return stored.id
    instrument = Instrument(market, symbol, Status.TRADING, price_scale, qty_scale)
    return store.put_instruments([instrument], at_ms)[symbol]
