"""`klagg export`."""

import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from klagg.cli.options import CommonDb, End, Market1, Start, flag, host_now_ms, load_settings, market_flag
from klagg.errors import UsageError

FOREVER_MS = 253_402_300_799_000
"""The last second of the year 9999: the end of a range that has none."""


def export(
    *,
    symbol: Annotated[str, Parameter(name=("--symbol", "--symbols"), help="The symbol.")],
    interval: Annotated[str, Parameter(name=("--interval", "--intervals"), help="The interval.")],
    start: Start = None,
    end: End = None,
    format_: Annotated[
        Literal["csv", "jsonl", "parquet", "arrow"], Parameter(name="--format", help="The form of the output.")
    ] = "csv",
    full: Annotated[bool, flag(help="Add market, symbol, interval, trade ids, origin, verified and revision.")] = False,
    unmatched: Annotated[
        Literal["keep", "drop"], Parameter(help="What becomes of candles that the exchange does not have.")
    ] = "keep",
    as_of: Annotated[
        str | None,
        Parameter(help="Only what was known then, as it was known: a time as --start.", allow_leading_hyphen=True),
    ] = None,
    out: Annotated[Path | None, Parameter(help="The file to write; csv and jsonl go to stdout without it.")] = None,
    market: Market1 = None,
    common: CommonDb | None = None,
) -> int:
    """Write the closed candles of one series as CSV, JSON lines, Parquet or Arrow.

    Without --start and --end all of them.
    """
    settings = load_settings(common, usual_level="error", market=market_flag(market))
    from klagg.config import parse_range_ms, parse_symbol, parse_time_ms
    from klagg.export import export as export_series
    from klagg.interval import parse_interval
    from klagg.store import open_store

    now_ms = host_now_ms()
    start_ms, end_ms = parse_range_ms(start, end, now_ms)
    chosen = settings.one_market
    named = parse_symbol(symbol, chosen)
    if named is None:
        raise UsageError(f"{symbol!r} is a perpetual: it is on --market usdm, not on {chosen.value}")
    with closing(open_store(settings.db, mode="read")) as store:
        done = export_series(
            store,
            chosen,
            named,
            parse_interval(interval),
            0 if start_ms is None else start_ms,
            FOREVER_MS if end_ms is None else end_ms,
            format=format_,
            full=full,
            out=out,
            unmatched=unmatched,
            as_of_ms=None if as_of is None else parse_time_ms(as_of, now_ms),
        )
    if out is not None:
        print(f"klagg: {done.rows:,} candles in {out}, {done.unverified:,} of them not verified", file=sys.stderr)
    return 0
