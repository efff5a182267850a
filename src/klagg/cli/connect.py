"""`klagg connect`."""

from typing import Annotated, Literal

from cyclopts import Parameter

from klagg.cli.options import Common, Market1, load_settings, market_flag
from klagg.errors import UsageError


def connect(
    client: Literal["ccxt", "ccxt-pro", "python-binance", "binance-sdk", "freqtrade", "curl", "websockets"],
    /,
    *,
    market: Market1 = None,
    url: Annotated[str, Parameter(help="Where klagg serves.")] = "http://127.0.0.1:8420",
    symbol: Annotated[str, Parameter(help="A symbol as the exchange names it.")] = "BTCUSDT",
    common: Common | None = None,
) -> int:
    """Print how a client is pointed at klagg: a short program, a configuration or a command to copy.

    Where a token is needed it is the password of the URL: http://klagg:TOKEN@host:8420.
    """
    settings = load_settings(common, usual_level="error", market=market_flag(market))
    from klagg.cli.snippets import snippet
    from klagg.model import Market

    if not url.startswith(("http://", "https://")):
        raise UsageError(f"--url {url!r}: write http://HOST:PORT")
    if not (symbol.isalnum() and len(symbol) > 4):
        raise UsageError(f"--symbol {symbol!r}: write one as the exchange names it, such as BTCUSDT")
    spot = settings.one_market is Market.SPOT
    print(snippet(client, url.rstrip("/"), symbol.upper(), spot=spot), end="")
    return 0
