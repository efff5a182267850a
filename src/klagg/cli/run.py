"""`klagg run`."""

from dataclasses import replace
from typing import Annotated

import structlog
from cyclopts import Parameter

from klagg.cli.options import CommonDb, Intervals, Markets, RestUrl, Symbols, WsUrl, flag, load_settings
from klagg.errors import UsageError

log = structlog.get_logger()


def run(
    *,
    market: Markets = None,
    symbols: Symbols = None,
    intervals: Intervals = None,
    rest_url: RestUrl = None,
    ws_url: WsUrl = None,
    serve: Annotated[
        str | None, Parameter(help="HOST:PORT of the read side, which comes with a later version: no effect yet.")
    ] = None,
    no_serve: Annotated[bool, flag(help="Do not serve; the only mode of this version.")] = False,
    margin_ms: Annotated[
        str | None,
        Parameter(
            help="How many ms a tick waits after its minute, or auto. [default: 10 on spot, auto on usdm]",
            allow_leading_hyphen=True,
        ),
    ] = None,
    history: Annotated[
        str | None, Parameter(help="How far back the history of an empty database is filled. [default: 2d]")
    ] = None,
    take_over: Annotated[bool, flag(help="Take the database over from an owner whose lease is still fresh.")] = False,
    workers: Annotated[int | None, Parameter(help="Shards of symbols in this process. [default: 1]")] = None,
    memory_mib: Annotated[
        int | None, Parameter(help="MiB of candles that may wait for a database that is away. [default: 64]")
    ] = None,
    clock_speed: Annotated[
        float | None, Parameter(help="Time runs this much faster, as that of klagg exchange --speed. [default: 1]")
    ] = None,
    common: CommonDb | None = None,
) -> int:
    """Keep candles of the live market: the service.

    Ends in order at Ctrl-C or SIGTERM.
    """
    if no_serve and serve is not None:
        raise UsageError("--serve and --no-serve contradict each other: give one of them")
    settings = load_settings(
        common,
        market=market,
        symbols=symbols,
        intervals=intervals,
        rest_url=rest_url,
        ws_url=ws_url,
        serve=serve,
        margin_ms=margin_ms,
        history=history,
        take_over=take_over or None,
        workers=workers,
        memory_mib=memory_mib,
        clock_speed=clock_speed,
    )
    if no_serve:
        settings = replace(settings, serve=None)
    from klagg.service.run import run_service

    if settings.serve is not None:
        log.warning("serve.not_yet", address=settings.serve, detail="serving comes with a later version")

    return run_service(settings)
