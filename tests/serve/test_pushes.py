"""Pushes are gathered once for many listeners, and running candles in slices that nothing has to wait for."""

import asyncio
import json

import pytest

from klagg.interval import MINUTE_MS
from klagg.model import Market
from klagg.serve import pushes
from klagg.serve.hub import Hub, Push
from klagg.serve.streams import parse_stream, route_of
from serve.fakes import START_MS, candle
from serve.test_address import open_rig
from serve.test_hostile import Raw, stream


class Kept:
    """A listener that keeps what it gets."""

    def __init__(self, *, combined: bool) -> None:
        self.combined = combined
        self.got: list[bytes] = []

    def push(self, frames: bytes) -> None:
        self.got.append(frames)


def texts(data: bytes) -> list[bytes]:
    """The payloads of short frames."""
    found = []
    while data:
        size = data[1]
        found.append(data[2 : 2 + size])
        data = data[2 + size :]
    return found


def test_each_listener_gets_what_it_asked_for_in_one_piece_and_the_same_bytes_where_it_is_the_same() -> None:
    hub, push, market = Hub(), Push(), Market.USDM
    route = route_of("market", market)
    assert route is not None
    raw, twin, wrapped, gone = Kept(combined=False), Kept(combined=False), Kept(combined=True), Kept(combined=False)
    wanted = {
        "a@kline_1m": (raw, twin, wrapped, gone),
        "b@kline_1m": (raw, twin),
        "c@kline_1m": (wrapped,),
        "d@kline_1m": (gone,),
    }
    for name, listeners in wanted.items():
        stream_ = parse_stream(name, route)
        assert stream_ is not None
        for listener in listeners:
            hub.add(market, name, stream_, listener)
    for name in ("a@kline_1m", "d@kline_1m"):
        hub.remove(market, name, gone)
    channels = {channel.name: channel for channel in hub.channels(market, *pushes.KLINES)}
    assert set(channels) == {"a@kline_1m", "b@kline_1m", "c@kline_1m"}
    for number in (1, 2):
        for name, channel in channels.items():
            push.put(channel, f"{name[0]}{number}".encode())
    push.send()
    assert texts(raw.got[0]) == [b"a1", b"a2", b"b1", b"b2"]
    assert raw.got[0] is twin.got[0]
    assert [json_of(text) for text in texts(wrapped.got[0])] == ["a@kline_1m", "a@kline_1m", "c@kline_1m", "c@kline_1m"]
    assert not gone.got
    push.send()
    assert [len(listener.got) for listener in (raw, twin, wrapped)] == [1, 1, 1]


def json_of(text: bytes) -> str:
    return text.split(b'"')[3].decode()


async def events_of(client: Raw, count: int) -> list[tuple[str, int, bool]]:
    found = []
    while len(found) < count:
        k = json.loads((await client.frame())[1])["k"]
        found.append((k["s"], k["t"], k["x"]))
    return found


@pytest.mark.parametrize("turns", range(1, 12))
async def test_a_minute_that_closes_while_its_running_candles_are_pushed_is_not_said_to_run_again(
    turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a pause after each symbol, the minute becomes durable after some of them: no running candle follows its own end."""
    monkeypatch.setattr(pushes, "SLICE_S", -1.0)
    symbols = [f"S{n}USDT" for n in range(10)]
    names = "/".join(f"{symbol.lower()}@kline_1m" for symbol in symbols)
    async with open_rig(symbols=symbols) as rig, stream(rig, f"/ws/{names}") as client:
        for symbol in symbols:
            rig.live.trade(symbol, 100, 1)
        advancing = asyncio.create_task(rig.clock.advance(250))
        for _ in range(turns):
            await asyncio.sleep(0)
        rig.live.close(*((symbol, candle(START_MS, 200, 5)) for symbol in symbols))
        await advancing
        await asyncio.sleep(0.02)
        for symbol in symbols:
            rig.live.trade(symbol, 300, 1)
        await rig.clock.advance(250)
        seen: list[tuple[str, int, bool]] = []
        while len([event for event in seen if event[1] == START_MS + MINUTE_MS]) < len(symbols):
            seen += await events_of(client, 1)
    for symbol in symbols:
        own = [event[1:] for event in seen if event[0] == symbol]
        assert own == sorted(own), "running, then closed, then the next minute"
        assert own.count((START_MS, True)) == 1
