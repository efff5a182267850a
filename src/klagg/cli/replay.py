"""`klagg replay`."""

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from klagg.cli.options import INTERVALS_HELP, AsJson, CommonDb, Market1, list_option, load_settings, market_flag
from klagg.cli.progress import progress_bar
from klagg.errors import UsageError


def replay(
    *files: Annotated[Path, Parameter(name="FILE", help="Recordings and archive files of trades.")],
    market: Market1 = None,
    symbol: Annotated[str | None, Parameter(help="The symbol, where a file does not say.")] = None,
    intervals: Annotated[
        list[str] | None, list_option("--intervals", "--interval", help=INTERVALS_HELP, consume=False)
    ] = None,
    json_: AsJson = False,
    common: CommonDb | None = None,
) -> int:
    """Make candles from recorded trades, by the same engine and store, with time taken from the trades.

    Prints rates and counts.
    """
    if not files:
        raise UsageError("no file is given: klagg replay FILE… reads recordings and archive files of trades")
    settings = load_settings(common, usual_level="error", market=market_flag(market), intervals=intervals)
    from klagg.archive import open_trades
    from klagg.config import parse_symbol
    from klagg.replay import replay as replay_files
    from klagg.store import filling

    chosen = settings.one_market
    named = None if symbol is None else parse_symbol(symbol, chosen)
    for file in files:
        open_trades(
            file, market=chosen, symbol=named, insists=market is not None
        )  # what is no recording is said before a database is made
    with filling(settings.db) as store, progress_bar("files") as tell:

        def progress(done: int, total: int, trades: int) -> None:
            if tell is not None:
                tell(done, total, f"{trades:,} trades")

        done = replay_files(
            files, market=chosen, intervals=settings.interval_set, store=store, symbol=named, progress=progress
        )
    tally = {name: count for name, count in done.tally.items() if count}
    if json_:
        counts = {name: getattr(done, name) for name in ("files", "symbols", "trades", "candles", "refused", "seconds")}
        rates = {"trades_per_s": round(done.trades_per_s)}
        print(json.dumps({**counts, **rates, "tally": tally, "passed_over": dict(done.passed_over)}))
        return 0
    print(f"files         {done.files:,}")
    print(f"symbols       {done.symbols:,}")
    print(f"trades        {done.trades:,} in {done.seconds:.2f} s ({done.trades_per_s:,.0f} a second)")
    print(f"candles       {done.candles:,} ({done.refused:,} left as they were: the database knew better)")
    for name, count in tally.items():
        print(f"  {name:<12}{count:,}")
    for name, count in done.passed_over.items():
        print(f"  passed over {count:,} {name}")
    return 0
