"""`klagg status`."""

import json

from klagg.cli.options import AsJson, CommonDb, Markets, host_now_ms, load_settings


def status(*, market: Markets = None, json_: AsJson = False, common: CommonDb | None = None) -> int:
    """Show what the service and the database hold: series, newest minute, unverified candles, gaps, lag, owner.

    Without --market every market of the database is shown.
    """
    settings = load_settings(common, usual_level="error", market=market)
    from klagg.model import Market
    from klagg.status import database_status, status_lines

    wanted = tuple(Market) if market is None else settings.markets
    found = database_status(settings.db, host_now_ms(), wanted)
    if json_:
        print(json.dumps(found.to_json(), indent=2))
    else:
        print("\n".join(status_lines(found)))
    return 0
