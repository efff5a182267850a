"""The environment's proxies, for WebSockets."""

import asyncio

import pytest

from exchange.venue import Venue
from klagg.clock import ScaledClock
from klagg.exchange.endpoints import for_market
from klagg.exchange.proxy import proxy_for
from klagg.exchange.settings import StreamSettings
from klagg.exchange.streams import TradeStreams
from klagg.model import Market

NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "WS_PROXY", "WSS_PROXY")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize(
    ("environment", "url", "proxy"),
    [
        ({}, "wss://a.example", None),
        ({"HTTPS_PROXY": "http://p:3128"}, "wss://a.example/stream", "http://p:3128"),
        ({"HTTPS_PROXY": "http://p:3128"}, "ws://a.example", None),
        ({"HTTP_PROXY": "p:3128"}, "ws://a.example", "http://p:3128"),
        ({"ALL_PROXY": "socks5h://u:w@p:1080"}, "wss://a.example", "socks5://u:w@p:1080"),
        ({"HTTPS_PROXY": "http://p:1", "WSS_PROXY": "http://p:2"}, "wss://a.example", "http://p:2"),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "a.example"}, "wss://a.example:9443/stream", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "b.example"}, "wss://a.example", "http://p:1"),
    ],
)
def test_which_proxy(monkeypatch, environment: dict[str, str], url: str, proxy: str | None) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(url) == proxy


async def test_a_websocket_goes_through_it(venue: Venue, until, monkeypatch) -> None:
    """A proxy that tunnels (CONNECT) to the exchange, whatever name is asked for."""
    asked: list[bytes] = []

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).splitlines()[0])
        there, to_there = await asyncio.open_connection("127.0.0.1", venue.port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")

        async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65_536):
                sink.write(data)
            sink.close()

        await asyncio.gather(copy(reader, to_there), copy(there, writer))

    proxy = await asyncio.start_server(tunnel, "127.0.0.1", 0)
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}")
    clock = ScaledClock(20.0)
    streams = TradeStreams(
        for_market(Market.USDM, ws_url="ws://exchange.invalid:8080"),
        clock=clock,
        now_ms=lambda: 1_800_000_000_000,
        settings=StreamSettings(request_spacing_s=0.01, heartbeat=""),
    )
    await streams.add({"A": 0})
    task = asyncio.create_task(streams.run())
    await until(lambda: streams.sighted == {"A"}, push=venue.tick)
    assert asked == [b"CONNECT exchange.invalid:8080 HTTP/1.1"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    proxy.close()
