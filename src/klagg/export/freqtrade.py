"""What freqtrade reads: one Feather file a pair and timeframe, as its own `download-data` writes them.

`BTC_USDT-5m.feather` on spot, `futures/BTC_USDT_USDT-5m-futures.feather` on futures, under `user_data/data/binance`; the columns
are date, open, high, low, close, volume. Source: freqtrade's documentation of data handlers, "feather", and its data downloading.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from klagg.errors import UsageError
from klagg.export.arrow import record_batch
from klagg.export.changed import KEY, carried, fingerprint
from klagg.export.columns import Series
from klagg.export.dataset import DataSet, Told
from klagg.export.source import CandleSource, Source, Tally, Unmatched
from klagg.export.whole import whole_file
from klagg.interval import Interval
from klagg.model import Instrument, Market

if TYPE_CHECKING:
    from klagg.store import StoredInstrument

FOLDER: Final = Path("user_data/data/binance")
"""Where freqtrade looks, from its own working directory."""
_COLUMNS: Final = ("open_time", "open", "high", "low", "close", "volume")
_SCHEMA: Final = pa.schema(
    [pa.field("date", pa.timestamp("ms", tz="UTC")), *(pa.field(name, pa.float64()) for name in _COLUMNS[1:])]
)
_QUOTES: Final = ("USDT", "USDC", "FDUSD", "TUSD", "BUSD", "BTC", "ETH", "BNB", "EUR", "TRY")
"""Taken for the quote asset where the database does not know it (it was filled from files)."""


def file_of(folder: Path, instrument: Instrument, interval: Interval) -> Path:
    """The file of a pair and timeframe.

    Raises:
        UsageError: the pair's assets are not known.

    """
    base, quote, delivery = _assets(instrument)
    # A file system may not tell 1m from 1M.
    timeframe = interval.name.replace("M", "Mo")
    pair = re.sub(r"[/ .@$+:]", "_", f"{base}/{quote}")
    if instrument.market is Market.SPOT:
        return folder / f"{pair}-{timeframe}.feather"
    settle = str(instrument.extra.get("margin_asset") or quote)
    return folder / "futures" / f"{pair}_{settle}{delivery}-{timeframe}-futures.feather"


def _assets(instrument: Instrument) -> tuple[str, str, str]:
    """Base, quote and, of a delivery, `-YYMMDD`."""
    name, _, date = instrument.symbol.partition("_")
    delivery = f"-{date}" if date else ""
    if instrument.base and instrument.quote:
        return instrument.base, instrument.quote, delivery
    for quote in _QUOTES:
        if name.endswith(quote) and name != quote:
            return name.removesuffix(quote), quote, delivery
    raise UsageError(
        f"{instrument.symbol}: its base and quote assets are not known: run klagg backfill from the exchange, whose list tells"
    )


def export_freqtrade(
    store: CandleSource,
    market: Market,
    instruments: "Sequence[StoredInstrument]",
    intervals: Sequence[Interval],
    start_ms: int,
    end_ms: int,
    *,
    out: Path = FOLDER,
    unmatched: Unmatched = "keep",
    as_of_ms: int | None = None,
    tell: Told | None = None,
) -> DataSet:
    """Write the closed candles of these series in `[start_ms, end_ms)`, one file each, where they are not there already.

    Raises:
        UsageError: a file that cannot be written, a pair whose assets are not known.

    """
    done = DataSet()
    every = [(one, interval) for interval in intervals for one in instruments]
    for number, (one, interval) in enumerate(every, 1):
        source = Source(store, one.id, Series(market, one.instrument.symbol, interval), as_of_ms, unmatched)
        mark = fingerprint(source, start_ms, end_ms, {"preset": "freqtrade"})
        path = file_of(out, one.instrument, interval)
        if mark is not None and carried(path, "arrow") == mark:
            done.unchanged += 1
        elif mark is not None:
            _write(source, start_ms, end_ms, path, mark, done)
        if tell is not None:
            tell(number, len(every))
    return done


def _write(source: Source, start_ms: int, end_ms: int, path: Path, mark: str, done: DataSet) -> None:
    tally = Tally()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{path.parent}: cannot be made: {error.strerror or error}") from error
    schema = _SCHEMA.with_metadata({KEY: mark})
    # Feather, version 2, is an Arrow file compressed with lz4.
    options = pa.ipc.IpcWriteOptions(compression=pa.Codec("lz4", compression_level=9))
    with whole_file(path) as file, pa.ipc.new_file(file, schema, options=options) as writer:
        for piece in source.pieces(start_ms, end_ms, tally):
            batch = record_batch(piece, source.series, _COLUMNS, "float64")
            writer.write_batch(pa.record_batch(batch.columns, schema=schema))
    done.rows += tally.rows
    done.unverified += tally.unverified
    done.written += 1
