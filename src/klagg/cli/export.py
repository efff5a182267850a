"""`klagg export`."""

import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from klagg.cli.options import (
    CommonDb,
    End,
    Market1,
    Start,
    flag,
    host_now_ms,
    list_option,
    load_settings,
    market_flag,
)
from klagg.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from klagg.export import Numbers, Unmatched
    from klagg.interval import Interval
    from klagg.model import Market
    from klagg.store import SqliteStore, StoredInstrument

FOREVER_MS = 253_402_300_799_000
"""The last second of the year 9999: the end of a range that has none."""


def export(
    *,
    symbols: Annotated[
        list[str],
        list_option("--symbol", "--symbols", help="The symbol; into a folder several, globs such as '*USDT', or all."),
    ],
    intervals: Annotated[
        list[str] | None,
        list_option(
            "--interval", "--intervals", help="The interval; into a folder several. [default: all that are kept]"
        ),
    ] = None,
    start: Start = None,
    end: End = None,
    format_: Annotated[
        Literal["csv", "jsonl", "parquet", "arrow"], Parameter(name="--format", help="The form of the output.")
    ] = "csv",
    full: Annotated[
        bool, flag(help="Add market, symbol, interval, trade ids, origin, verified, revision and source.")
    ] = False,
    numbers: Annotated[
        Literal["decimal", "float64", "string"],
        Parameter(help="How parquet and arrow have prices and volumes: decimal128(38, 18), floating point, or text."),
    ] = "decimal",
    unmatched: Annotated[
        Literal["keep", "drop"], Parameter(help="What becomes of candles that the exchange does not have.")
    ] = "keep",
    as_of: Annotated[
        str | None,
        Parameter(help="Only what was known then, as it was known: a time as --start.", allow_leading_hyphen=True),
    ] = None,
    preset: Annotated[
        Literal["freqtrade"] | None,
        Parameter(help="Write the files that freqtrade reads, under --out. [its folder: user_data/data/binance]"),
    ] = None,
    out: Annotated[
        Path | None,
        Parameter(help="The file, or with parquet a folder, to write; csv and jsonl go to stdout without it."),
    ] = None,
    market: Market1 = None,
    common: CommonDb | None = None,
) -> int:
    """Write closed candles: of one series as CSV, JSON lines, Parquet or Arrow, of many as Parquet files in a folder.

    Without --start and --end all of them. The files of a folder are whole months; a second run writes only those that changed.
    """
    settings = load_settings(common, usual_level="error", market=market_flag(market))
    from klagg.config import parse_range_ms, parse_symbol, parse_time_ms, split_list
    from klagg.export import export as export_series
    from klagg.interval import parse_interval
    from klagg.store import open_store

    now_ms = host_now_ms()
    start_ms, end_ms = parse_range_ms(start, end, now_ms)
    span = (0 if start_ms is None else start_ms, FOREVER_MS if end_ms is None else end_ms)
    as_of_ms = None if as_of is None else parse_time_ms(as_of, now_ms)
    chosen = settings.one_market
    names, frames = split_list(symbols), split_list(intervals or ())
    single = names[0] if len(names) == 1 and not (set(names[0]) & set("*?[") or names[0].lower() == "all") else None
    with closing(open_store(settings.db, mode="read")) as store:
        if preset is not None or single is None or len(frames) != 1 or (out is not None and out.is_dir()):
            many = Many(store, chosen, names, frames, span, numbers, unmatched, as_of_ms)
            _into_folder(many, format_, preset, out)
            return 0
        symbol = parse_symbol(single, chosen)
        if symbol is None:
            raise UsageError(f"{single!r} is a perpetual: it is on --market usdm, not on {chosen.value}")
        done = export_series(
            store,
            chosen,
            symbol,
            parse_interval(frames[0]),
            *span,
            format=format_,
            full=full,
            out=out,
            unmatched=unmatched,
            as_of_ms=as_of_ms,
            numbers=numbers,
        )
    if out is not None:
        print(f"klagg: {done.rows:,} candles in {out}, {done.unverified:,} of them not verified", file=sys.stderr)
    return 0


@dataclass(frozen=True, slots=True)
class Many:
    """What is asked for where it is more than one series."""

    store: "SqliteStore"
    market: "Market"
    symbols: "Sequence[str]"
    intervals: "Sequence[str]"
    span: tuple[int, int]
    numbers: "Numbers"
    unmatched: "Unmatched"
    as_of_ms: int | None

    def instruments(self) -> "list[StoredInstrument]":
        """The instruments that the database holds of them."""
        from klagg.config import SymbolFilter

        stored = self.store.instruments(self.market)
        wanted = set(SymbolFilter.parse(self.symbols, self.market).resolve(one.instrument.symbol for one in stored))
        return [one for one in stored if one.instrument.symbol in wanted]

    def kept_intervals(self) -> "tuple[Interval, ...]":
        """The intervals named, or all that the market keeps."""
        from klagg.interval import MINUTE, parse_interval

        if not self.intervals:
            return self.store.intervals(self.market) or (MINUTE,)
        return tuple(sorted({parse_interval(name) for name in self.intervals}, key=lambda interval: interval.code))


def _into_folder(many: Many, format_: str, preset: str | None, out: Path | None) -> None:
    from klagg.cli.progress import progress_bar
    from klagg.errors import NoCandles
    from klagg.export import check_range, iso
    from klagg.export.dataset import export_dataset
    from klagg.export.freqtrade import FOLDER, export_freqtrade

    check_range(*many.span)
    if preset is None and (format_ != "parquet" or out is None):
        raise UsageError(
            "name one --symbol, one --interval and a file, or for several series give --format parquet and a folder as --out"
        )
    folder = out or FOLDER
    asked = (many.store, many.market, many.instruments(), many.kept_intervals(), *many.span)
    with progress_bar("series") as tell:
        if preset is None:
            done = export_dataset(
                *asked, out=folder, numbers=many.numbers, unmatched=many.unmatched, as_of_ms=many.as_of_ms, tell=tell
            )
        else:
            done = export_freqtrade(*asked, out=folder, unmatched=many.unmatched, as_of_ms=many.as_of_ms, tell=tell)
    if not (done.written or done.unchanged):
        raise NoCandles(
            f"no candles of these symbols and intervals from {iso(many.span[0])} to {iso(many.span[1])}: see klagg status"
        )
    print(
        f"klagg: {done.rows:,} candles written to {done.written:,} files in {folder}, {done.unverified:,} of them not verified; "
        f"{done.unchanged:,} files are as they were" + (f", {done.removed:,} removed" if done.removed else ""),
        file=sys.stderr,
    )
