"""`klagg demo`."""

from typing import Annotated

from cyclopts import Parameter

from klagg.cli.options import CommonDb, Intervals, Market1, load_settings, market_flag
from klagg.errors import UsageError

DEMO_DB = "klagg-demo.db"


def demo(
    *,
    seconds: Annotated[
        float | None, Parameter(env_var="DEMO_SECONDS", help="End after so many seconds. [default: at Ctrl-C]")
    ] = None,
    symbols: Annotated[int, Parameter(help="How many symbols the offline exchange has.")] = 40,
    seed: Annotated[int, Parameter(help="The seed of the synthetic market.")] = 1,
    market: Market1 = None,
    intervals: Intervals = None,
    common: CommonDb | None = None,
) -> int:
    """Show the main job on this machine: an offline exchange, the service on a database, live candles, a comparison.

    The database is klagg-demo.db unless --db names another. Exits 0 if every candle equals the exchange's.
    """
    if seconds is not None and not 0 < seconds < float("inf"):
        raise UsageError(f"--seconds {seconds:g}: write a number above 0")
    common = common or CommonDb()
    db = DEMO_DB if common.db is None else common.db
    settings = load_settings(common, db=db, market=market_flag(market), intervals=intervals)
    from klagg.service.demo import run_demo

    return run_demo(settings, seconds=seconds, symbols=symbols, seed=seed)
