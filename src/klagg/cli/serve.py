"""`klagg serve`."""

from dataclasses import replace

from klagg.cli.options import CommonDb, Serve, ServeOpen, load_settings


def serve(*, serve: Serve = None, serve_open: ServeOpen = False, common: CommonDb | None = None) -> int:
    """Serve the candles of a database, and what another process writes to it: only the read side.

    Binance's REST and WebSocket market data, until Ctrl-C or SIGTERM. Open candles are those of the last minute written.
    """
    settings = load_settings(common, serve=serve, serve_open=serve_open or None)
    from klagg.config.settings import DEFAULT_SERVE
    from klagg.service.serving import serve_database

    return serve_database(settings if settings.serve else replace(settings, serve=DEFAULT_SERVE))
