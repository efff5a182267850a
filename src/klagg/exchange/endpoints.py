"""Where a market is reached: default addresses, and what `--rest-url` and `--ws-url` make of them."""

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from klagg.errors import UsageError
from klagg.model import Market


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The addresses of one market.

    `rest_url` ends in the API's prefix (`…/fapi/v1`), `ws_url` in the route of combined streams (`…/market/stream`);
    neither ends in a slash.
    """

    market: Market
    rest_url: str
    ws_url: str


DEFAULTS: Final = {
    Market.USDM: Endpoints(Market.USDM, "https://fapi.binance.com/fapi/v1", "wss://fstream.binance.com/market/stream"),
    Market.SPOT: Endpoints(Market.SPOT, "https://api.binance.com/api/v3", "wss://stream.binance.com:9443/stream"),
}
"""Binance's own addresses. Futures trades, klines and mini-tickers come by the `/market` route only; the others are
acknowledged there and stay silent (notice of 2026-03-06)."""

SPOT_DATA_ONLY_URL: Final = "https://data-api.binance.vision"
"""Spot's second address for public data, served in places that the first refuses."""


def for_market(market: Market, rest_url: str | None = None, ws_url: str | None = None) -> Endpoints:
    """The endpoints of a market; a URL that lacks the market's prefix or route gets it.

    Raises:
        UsageError: a URL of another scheme, without a host, or with a query.
    """
    default = DEFAULTS[market]
    rest, ws = default.rest_url, default.ws_url
    if rest_url is not None:
        rest = _with_path(rest_url, "--rest-url", ("http", "https"), urlsplit(default.rest_url).path)
    if ws_url is not None:
        ws = _with_path(ws_url, "--ws-url", ("ws", "wss"), urlsplit(default.ws_url).path)
    return Endpoints(market, rest, ws)


def _with_path(url: str, setting: str, schemes: tuple[str, str], path: str) -> str:
    """The URL ended by `path`, of which it may have some or all already; a raw stream path (`/ws`) is kept."""
    try:
        parts = urlsplit(url.strip())
        _ = parts.port
    except ValueError as error:
        raise UsageError(f"{setting} {url!r} is not a URL ({error}): write it like {schemes[1]}://host:port") from None
    if parts.scheme not in schemes or not parts.hostname:
        wanted = " or ".join(f"{scheme}://" for scheme in schemes)
        raise UsageError(f"{setting} {url!r} must begin with {wanted} and name a host, like {schemes[1]}://host:port")
    if parts.query or parts.fragment:
        raise UsageError(f"{setting} {url!r} must not have a query: leave out everything from the question mark on")
    base = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
    if parts.path.rstrip("/").endswith("/ws"):
        return base
    steps = path.strip("/").split("/")
    for kept in range(len(steps), 0, -1):
        if parts.path.rstrip("/").endswith("/" + "/".join(steps[:kept])):
            return "/".join([base, *steps[kept:]])
    return base + path
