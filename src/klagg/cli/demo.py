"""`klagg demo`."""

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from klagg.cli.options import COMMON_GROUP, Common, Intervals, Market1, load_settings, market_flag
from klagg.errors import UsageError

DEMO_DB = "klagg-demo.db"


@Parameter(name="*", group=COMMON_GROUP)
@dataclass(frozen=True, kw_only=True)
class CommonDemo(Common):
    """The common options; the demo has a database of its own, whatever the settings say."""

    db: Annotated[str, Parameter(help="The database: a path, or sqlite:///relative.db; must be new.")] = DEMO_DB


def demo(
    *,
    seconds: Annotated[
        float | None, Parameter(env_var="DEMO_SECONDS", help="End after so many seconds. [default: at Ctrl-C]")
    ] = None,
    symbols: Annotated[int, Parameter(help="How many symbols the offline exchange has.")] = 40,
    seed: Annotated[int, Parameter(help="The seed of the synthetic market.")] = 1,
    market: Market1 = None,
    intervals: Intervals = None,
    common: CommonDemo | None = None,
) -> int:
    """Show the main job on this machine: an offline exchange, the service on a database, live candles, a comparison.

    Its own database, klagg-demo.db, is made anew at each start. It serves like klagg run, at a free address where another
    program has that one, and prints the page's. Exits 0 if every candle equals the exchange's.
    """
    if seconds is not None and not 0 < seconds < float("inf"):
        raise UsageError(f"--seconds {seconds:g}: write a number above 0")
    common = common or CommonDemo()
    settings = load_settings(
        common, usual_level="warning", db=common.db, market=market_flag(market), intervals=intervals
    )
    from klagg.service.demo import run_demo

    return run_demo(settings, own_database=DEMO_DB, seconds=seconds, symbols=symbols, seed=seed)
