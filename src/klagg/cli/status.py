"""`klagg status`."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from klagg.cli.options import AsJson, CommonDb, Markets, host_now_ms, load_settings

if TYPE_CHECKING:
    from klagg.model import Market


def status(
    *,
    market: Markets = None,
    at: Annotated[
        str | None,
        Parameter(
            help="A past time instead: the symbols that were listed then, with their status and digits.",
            allow_leading_hyphen=True,
        ),
    ] = None,
    json_: AsJson = False,
    common: CommonDb | None = None,
) -> int:
    """Show what the service and the database hold: series, newest minute, unverified candles, gaps, lag, owner.

    Without --market every market of the database is shown.
    """
    settings = load_settings(common, usual_level="error", market=market)
    from klagg.model import Market
    from klagg.status import database_status, status_lines

    wanted = tuple(Market) if market is None else settings.markets
    if at is not None:
        return _then(settings.db, at, wanted, as_json=json_)
    found = database_status(settings.db, host_now_ms(), wanted)
    if json_:
        print(json.dumps(found.to_json(), indent=2))
    else:
        print("\n".join(status_lines(found)))
    return 0


def _then(url: str, at: str, markets: "tuple[Market, ...]", *, as_json: bool) -> int:
    from klagg.config import parse_time_ms
    from klagg.status import symbols_then, then_lines

    at_ms = parse_time_ms(at, host_now_ms())
    listed = symbols_then(url, at_ms, markets)
    if as_json:
        found = {market: [asdict(one) for one in symbols] for market, symbols in listed.items()}
        print(json.dumps({"at_ms": at_ms, "symbols": found}, indent=2))
    else:
        print("\n".join(then_lines(listed, at_ms)))
    return 0
