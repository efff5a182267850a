"""`klagg run`."""

from dataclasses import replace
from typing import Annotated

from cyclopts import Parameter

from klagg.cli.options import (
    CommonDb,
    Intervals,
    Markets,
    RestUrl,
    Serve,
    ServeOpen,
    Symbols,
    WsUrl,
    flag,
    load_settings,
)
from klagg.errors import UsageError


def run(
    *,
    market: Markets = None,
    symbols: Symbols = None,
    intervals: Intervals = None,
    rest_url: RestUrl = None,
    ws_url: WsUrl = None,
    serve: Serve = None,
    no_serve: Annotated[bool, flag(help="Do not serve.")] = False,
    serve_open: ServeOpen = False,
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
        serve_open=serve_open or None,
        margin_ms=margin_ms,
        history=history,
        take_over=take_over or None,
        workers=workers,
        memory_mib=memory_mib,
        clock_speed=clock_speed,
    )
    from klagg.config.settings import DEFAULT_SERVE

    if no_serve or settings.serve is None:
        settings = replace(settings, serve=None if no_serve else DEFAULT_SERVE)
    from klagg.service.run import run_service

    return run_service(settings)
