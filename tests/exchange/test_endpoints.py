"""Addresses from defaults and settings, and the proxy that the environment names."""

import pytest

from klagg.errors import UsageError
from klagg.exchange.endpoints import for_market
from klagg.exchange.proxy import proxy_for
from klagg.model import Market


@pytest.mark.parametrize(
    ("market", "given", "rest"),
    [
        (Market.USDM, None, "https://fapi.binance.com/fapi/v1"),
        (Market.SPOT, None, "https://api.binance.com/api/v3"),
        (Market.SPOT, "https://data-api.binance.vision", "https://data-api.binance.vision/api/v3"),
        (Market.SPOT, "http://localhost:99/api/v3/", "http://localhost:99/api/v3"),
        (Market.SPOT, "http://localhost:99/mirror", "http://localhost:99/mirror/api/v3"),
        (Market.USDM, "http://[::1]:9/fapi", "http://[::1]:9/fapi/v1"),
    ],
)
def test_rest_addresses(market: Market, given: str | None, rest: str) -> None:
    assert for_market(market, given).rest_url == rest


@pytest.mark.parametrize(
    ("market", "given", "ws"),
    [
        (Market.USDM, None, "wss://fstream.binance.com/market/stream"),
        (Market.SPOT, None, "wss://stream.binance.com:9443/stream"),
        (Market.USDM, "ws://127.0.0.1:8", "ws://127.0.0.1:8/market/stream"),
        (Market.USDM, "ws://127.0.0.1:8/", "ws://127.0.0.1:8/market/stream"),
        (Market.USDM, "ws://127.0.0.1:8/market", "ws://127.0.0.1:8/market/stream"),
        (Market.USDM, "ws://127.0.0.1:8/market/stream", "ws://127.0.0.1:8/market/stream"),
        (Market.USDM, "ws://127.0.0.1:8/market/ws", "ws://127.0.0.1:8/market/ws"),
        (Market.SPOT, "ws://127.0.0.1:8", "ws://127.0.0.1:8/stream"),
    ],
)
def test_stream_addresses(market: Market, given: str | None, ws: str) -> None:
    assert for_market(market, ws_url=given).ws_url == ws


@pytest.mark.parametrize(
    "url", ["ftp://x", "example.com", "http://", "http://x:port", "http://x?y=1", "", "http://[::1"]
)
def test_a_bad_url_is_the_users_mistake(url: str) -> None:
    with pytest.raises(UsageError, match="--rest-url"):
        for_market(Market.SPOT, rest_url=url)


def test_the_environments_proxy_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "WS_PROXY", "WSS_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    assert proxy_for("wss://fstream.binance.com/market/stream") is None
    monkeypatch.setenv("HTTPS_PROXY", "proxy.lan:3128")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,.vision")
    assert proxy_for("wss://fstream.binance.com/market/stream") == "http://proxy.lan:3128"
    assert proxy_for("ws://fstream.binance.com/market/stream") is None
    assert proxy_for("wss://127.0.0.1:8/stream") is None
    assert proxy_for("wss://data-stream.binance.vision/stream") is None
    monkeypatch.setenv("WSS_PROXY", "socks5h://proxy.lan:1080")
    assert proxy_for("wss://fstream.binance.com") == "socks5://proxy.lan:1080"
