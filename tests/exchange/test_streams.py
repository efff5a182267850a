"""Streams against an exchange on loopback: sight, blindness, reconnection, renewal, limits."""

import asyncio
import base64
import contextlib
import gc
import hashlib
import itertools
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import structlog
from aiohttp import web

from exchange.venue import Venue
from klagg.clock import ScaledClock
from klagg.exchange.endpoints import for_market
from klagg.exchange.inbox import Blind, Inbox, Sighted
from klagg.exchange.pacing import ConnectGate
from klagg.exchange.settings import StreamSettings
from klagg.exchange.streams import TradeStreams
from klagg.exchange.transport import MAX_FRAME_BYTES, Transport
from klagg.model import Market

BASE_MS = 1_800_000_000_000
FAST = StreamSettings(request_spacing_s=0.01, silence_s=60.0, heartbeat="")


class Rig:
    """TradeStreams with everything they brought."""

    def __init__(self, venue: Venue, settings: StreamSettings, *, speed: float, market: Market, **extra) -> None:
        clock = ScaledClock(speed)
        endpoints = for_market(market, ws_url=f"ws://127.0.0.1:{venue.port}")
        self.now_ms = lambda: BASE_MS + clock.monotonic_ns() // 1_000_000
        self.streams = TradeStreams(
            endpoints,
            clock=clock,
            now_ms=self.now_ms,
            settings=settings,
            transport=Transport(chance=lambda: random.Random(7)),
            **extra,
        )
        self.items: list = []

    def take(self) -> list:
        self.items += self.streams.inbox.drain()
        return self.items

    def ids(self, symbol: str) -> list[int]:
        frames = [json.loads(item)["data"] for item in self.take() if isinstance(item, bytes)]
        return [frame["a"] for frame in frames if frame.get("s") == symbol and frame["e"] == "aggTrade"]

    def events(self) -> list:
        return [item for item in self.take() if not isinstance(item, bytes)]

    def in_sight(self) -> set[int]:
        slots: set[int] = set()
        for event in self.events():
            slots = slots | event.slots if isinstance(event, Sighted) else slots - event.slots
        return slots


@asynccontextmanager
async def rig(
    venue: Venue,
    slots: dict[str, int],
    settings: StreamSettings = FAST,
    speed: float = 20.0,
    market=Market.USDM,
    **extra,
) -> AsyncIterator[Rig]:
    made = Rig(venue, settings, speed=speed, market=market, **extra)
    await made.streams.add(slots)
    task = asyncio.create_task(made.streams.run())
    try:
        yield made
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_data_and_not_the_acknowledgement_proves_a_subscription(venue: Venue, until: Callable) -> None:
    async with rig(venue, {"BTCUSDT": 0, "ETHUSDT": 1}) as r:
        await until(lambda: venue.connections and len(venue.connections[0].names) == 4)
        assert venue.connections[0].path == "/market/stream"
        await asyncio.sleep(0.05)
        assert r.events() == []
        await until(lambda: r.in_sight() == {0, 1}, push=venue.tick)
        (sighted,) = r.events()
        assert abs(sighted.at_ms - r.now_ms()) < 60_000
        first_payload = next(at for at, item in enumerate(r.items) if isinstance(item, bytes))
        assert first_payload < r.items.index(sighted)


async def test_names_are_lower_case_and_batched(venue: Venue, until: Callable) -> None:
    slots = {f"S{n}USDT": n for n in range(200)} | {"币安人生USDT": 200}
    settings = replace(FAST, request_spacing_s=0.15)
    async with rig(venue, slots, settings, speed=1.0) as r:
        await until(lambda: venue.connections and len(venue.connections[0].names) == 402)
        connection = venue.connections[0]
        assert "币安人生usdt@aggTrade" in connection.names
        assert all(len(request["params"]) <= 160 for request in connection.requests)
        assert all(name == name.lower().replace("@aggtrade", "@aggTrade") for name in connection.names)
        times = connection.request_times
        assert min(b - a for a, b in itertools.pairwise(times)) > 0.1
        assert r.streams.symbols == set(slots)


async def test_symbols_spread_over_as_many_connections_as_needed(venue: Venue, until: Callable) -> None:
    settings = replace(FAST, symbols_per_connection=40)
    async with rig(venue, {f"S{n}USDT": n for n in range(100)}, settings) as r:
        await until(lambda: sum(len(c.names) for c in venue.connections) == 200)
        assert sorted(len(c.names) for c in venue.connections) == [66, 66, 68]
        await until(lambda: len(r.in_sight()) == 100, push=venue.tick)
        assert [stats.sighted for stats in r.streams.stats()] == [34, 33, 33]


def test_a_connection_never_asks_for_more_than_the_limit() -> None:
    with pytest.raises(AssertionError):
        replace(FAST, symbols_per_connection=513)
    assert 2 * StreamSettings().symbols_per_connection < 1024


async def test_symbols_come_and_go_without_disturbing_the_others(venue: Venue, until: Callable) -> None:
    settings = replace(FAST, symbols_per_connection=3)
    async with rig(venue, {"A": 0, "B": 1}, settings) as r:
        await until(lambda: r.in_sight() == {0, 1}, push=venue.tick)
        await r.streams.add({"C": 2, "D": 3})
        await until(lambda: r.in_sight() == {0, 1, 2, 3}, push=venue.tick)
        assert len(venue.connections) == 2
        await r.streams.remove(["A"])
        await until(lambda: "a@aggTrade" not in venue.connections[0].names)
        await r.streams.remove(["D"])
        await until(lambda: len(venue.connections) == 1)
        assert not any(isinstance(event, Blind) for event in r.events())
        assert venue.opened == 2


async def test_a_cut_is_blindness_and_the_return_uses_todays_symbols(venue: Venue, until: Callable) -> None:
    async with rig(venue, {"A": 0, "B": 1}) as r:
        await until(lambda: r.in_sight() == {0, 1}, push=venue.tick)
        await r.streams.remove(["B"])
        await r.streams.add({"C": 2})
        await until(lambda: r.in_sight() == {0, 1, 2}, push=venue.tick)
        last_ms = r.streams.stats()[0].last_data_ms
        venue.connections[0].socket._req.transport.abort()
        await until(lambda: any(isinstance(event, Blind) for event in r.events()))
        (blind,) = [event for event in r.events() if isinstance(event, Blind)]
        assert blind.slots == {0, 2}
        assert last_ms - 2_000 < blind.since_ms <= last_ms
        await until(lambda: r.in_sight() >= {0, 2}, push=venue.tick)
        assert venue.connections[0].names == {f"{s}@{what}" for s in "ac" for what in ("aggTrade", "kline_1m")}
        assert r.streams.stats()[0].reconnects == 1


async def test_renewal_loses_nothing(venue: Venue, until: Callable) -> None:
    settings = replace(FAST, renew_after_s=20.0)
    async with rig(venue, {"A": 0, "B": 1}, settings) as r:
        await until(lambda: r.in_sight() == {0, 1}, push=venue.tick)
        await until(lambda: r.streams.stats()[0].renewals >= 2, push=venue.tick)
        last = await venue.tick()
        await until(lambda: last in r.ids("A"))
        ids = r.ids("A")
        assert set(range(ids[0], last + 1)) <= set(ids)
        assert not any(isinstance(event, Blind) for event in r.events())
        await until(lambda: len(venue.connections) == 1, push=venue.tick)


async def test_a_replacement_that_stays_silent_does_not_replace(venue: Venue, until: Callable) -> None:
    settings = replace(FAST, renew_after_s=20.0, renew_patience_s=10.0)
    async with rig(venue, {"A": 0}, settings) as r:
        await until(lambda: r.in_sight() == {0}, push=venue.tick)

        async def tick_with_mute_newcomers() -> None:
            for connection in venue.connections[1:]:
                connection.mute = True
            await venue.tick()

        await until(lambda: venue.opened >= 3, push=tick_with_mute_newcomers)
        assert r.streams.stats()[0].renewals == 0
        assert r.in_sight() == {0}


async def test_an_announced_shutdown_renews_at_once(venue: Venue, until: Callable) -> None:
    async with rig(venue, {"A": 0}, market=Market.SPOT) as r:
        await until(lambda: r.in_sight() == {0}, push=venue.tick)
        await venue.connections[0].socket.send_str('{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1}}')
        await until(lambda: r.streams.stats()[0].renewals == 1, push=venue.tick)
        assert not any(isinstance(event, Blind) for event in r.events())


async def test_an_open_socket_that_answers_nothing_is_replaced(venue: Venue, until: Callable) -> None:
    venue.autoping = False
    async with rig(venue, {"A": 0}, replace(FAST, silence_s=10.0)) as r:
        await until(lambda: r.in_sight() == {0}, push=venue.tick)
        await until(lambda: venue.opened >= 2)
        assert any("ping" in event.reason for event in r.events() if isinstance(event, Blind))


async def test_a_quiet_market_is_left_alone(venue: Venue, until: Callable) -> None:
    async with rig(venue, {"A": 0}, replace(FAST, silence_s=4.0)) as r:
        await until(lambda: r.in_sight() == {0}, push=venue.tick)
        await asyncio.sleep(0.8)  # four times its silence
        assert venue.opened == 1
        assert r.in_sight() == {0}


async def test_a_deaf_connection_is_replaced_when_its_symbols_trade_elsewhere(venue: Venue, until: Callable) -> None:
    async with rig(venue, {"A": 0}, replace(FAST, silence_s=4.0)) as r:
        await until(lambda: r.in_sight() == {0}, push=venue.tick)
        r.streams.traded_ms = lambda symbol: r.now_ms() if symbol == "A" else 0
        venue.connections[0].mute = True
        await until(lambda: venue.opened == 2, push=venue.tick)
        assert any("while its symbols trade" in event.reason for event in r.events() if isinstance(event, Blind))


async def test_a_heartbeat_proves_quiet_symbols_and_betrays_a_deaf_connection(venue: Venue, until: Callable) -> None:
    settings = replace(FAST, silence_s=10.0, heartbeat="btcusdt@miniTicker")

    async def beat() -> None:
        for connection in venue.connections:
            await connection.push("btcusdt@miniTicker", {"e": "24hrMiniTicker", "s": "BTCUSDT", "c": "1"})

    async with rig(venue, {"QUIET": 5}, settings) as r:
        await until(lambda: r.in_sight() == {5}, push=beat)
        assert not any(isinstance(item, bytes) for item in r.take())
        venue.connections[0].mute = True
        await until(lambda: venue.opened == 2, push=beat)
        assert any("heartbeat" in event.reason for event in r.events() if isinstance(event, Blind))


async def test_one_refused_name_does_not_take_the_others_with_it(venue: Venue, until: Callable) -> None:
    venue.refused_names = {"s13@aggTrade"}
    async with rig(venue, {f"S{n}": n for n in range(40)}) as r:
        await until(lambda: len(r.in_sight()) == 39, push=venue.tick)
        assert 13 not in r.in_sight()
        assert venue.opened == 1


async def test_a_subscription_that_is_never_acknowledged_is_given_up(venue: Venue, until: Callable) -> None:
    venue.acknowledge = False
    async with rig(venue, {"A": 0}, replace(FAST, silence_s=5.0)) as r:
        await until(lambda: venue.opened >= 2, push=venue.tick)
        venue.acknowledge = True
        await until(lambda: r.in_sight() == {0}, push=venue.tick)


@pytest.mark.parametrize("status", [403, 429, 451, 503])
async def test_a_refused_handshake_is_tried_again_later(venue: Venue, until: Callable, status: int) -> None:
    venue.refuse = [web.Response(status=status), web.Response(status=status)]
    async with rig(venue, {"A": 0}, speed=2_000.0, settings=replace(FAST, silence_s=20_000.0)) as r:
        await until(lambda: r.in_sight() == {0}, push=venue.tick)
        assert venue.refuse == []


async def test_half_a_frame_and_a_close_frame_are_survived(venue: Venue, until: Callable) -> None:
    async with rig(venue, {"A": 0}) as r:
        await until(lambda: r.in_sight() == {0}, push=venue.tick)
        transport = venue.connections[0].socket._req.transport
        transport.write(b'\x81\x7e\x02\x00{"stream":')
        transport.close()
        await until(lambda: venue.opened == 2)
        await until(lambda: r.in_sight() == {0}, push=venue.tick)
        await venue.connections[0].socket.close(code=1008, message=b"Too many requests")
        await until(lambda: venue.opened == 3)
        await until(lambda: r.in_sight() == {0}, push=venue.tick)
        reasons = [event.reason for event in r.events() if isinstance(event, Blind)]
        assert "Too many requests" in reasons[1]


async def test_connection_attempts_stay_below_the_limit(venue: Venue, until: Callable) -> None:
    venue.refuse = [web.Response(status=503) for _ in range(50)]
    clock = ScaledClock(200.0)
    gate = ConnectGate(clock, attempts=3, window_s=300.0)
    async with rig(venue, {"A": 0}, speed=200.0, gate=gate):
        await until(lambda: len(venue.refuse) <= 47)
        await asyncio.sleep(0.5)
        assert len(venue.refuse) == 47


async def test_a_full_inbox_drops_counts_and_blinds(venue: Venue, until: Callable) -> None:
    inbox = Inbox(max_messages=10)
    async with rig(venue, {"A": 0}, inbox=inbox) as r:
        await until(lambda: inbox.dropped > 5, push=venue.tick)
        assert len(inbox) == 10
        r.take()
        assert [type(event) for event in r.events()] == [Sighted, Blind]
        await until(lambda: r.in_sight() == {0}, push=venue.tick)


async def test_pings_are_answered_with_their_payload(venue: Venue, until: Callable) -> None:
    venue.autoping = False
    async with rig(venue, {"A": 0}) as r:
        await until(lambda: venue.connections)
        await venue.connections[0].socket.ping(b"1791382992723")
        await until(lambda: venue.pongs)
        assert venue.pongs == [b"1791382992723"]
        assert r.streams.symbols == {"A"}


async def test_cancelling_hangs_up_at_once(venue: Venue, until: Callable) -> None:
    loop = asyncio.get_running_loop()
    async with rig(venue, {"A": 0}, speed=1.0):
        await until(lambda: venue.connections)
        start = loop.time()
    assert loop.time() - start < 0.5
    await until(lambda: not venue.connections)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 101 Switching Protocols\r\n"], ids=["nothing", "half an answer"])
async def test_a_handshake_that_is_cut_is_tried_again(until: Callable, answer: bytes) -> None:
    tries = 0

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        await reader.read(1_000)
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(cut, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    streams = TradeStreams(
        for_market(Market.USDM, ws_url=f"ws://127.0.0.1:{port}"),
        clock=ScaledClock(50.0),
        now_ms=lambda: BASE_MS,
        settings=FAST,
        transport=Transport(chance=lambda: random.Random(7)),
    )
    task = asyncio.create_task(streams.run())
    try:
        await streams.add({"BTCUSDT": 0})
        await until(lambda: tries >= 3)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        server.close()


def frame(opcode: int, payload: bytes, *, final: bool = True, claimed: int | None = None) -> bytes:
    """A server's frame as RFC 6455 lays it out, which may claim to be longer than it is."""
    length = len(payload) if claimed is None else claimed
    return bytes([opcode | (0x80 if final else 0), 127]) + length.to_bytes(8, "big") + payload


ENDLESS = [frame(1, bytes(2**20), final=False)] + [frame(0, bytes(2**20), final=False)] * 17


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([frame(1, b"{", claimed=MAX_FRAME_BYTES + 1)], "a frame larger than 16777216 bytes, or against the protocol"),
        (ENDLESS, "a message larger than 16777216 bytes"),
    ],
    ids=["one frame", "continuation without end"],
)
async def test_what_is_larger_than_any_message_ends_the_connection(
    until: Callable, frames: list[bytes], reason: str
) -> None:
    tries = 0
    complaints: list[dict] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        key = request.lower().partition("sec-websocket-key:")[2].partition("\r\n")[0]
        key = request[request.lower().index(key) :][: len(key)].strip()
        accept = base64.b64encode(
            hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False).digest()
        )
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
        writer.write(b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for one in frames:
                writer.write(one)
                await writer.drain()
            await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    streams = TradeStreams(
        for_market(Market.USDM, ws_url=f"ws://127.0.0.1:{port}"),
        clock=ScaledClock(50.0),
        now_ms=lambda: BASE_MS,
        settings=FAST,
        transport=Transport(chance=lambda: random.Random(7)),
    )
    task = asyncio.create_task(streams.run())
    try:
        with structlog.testing.capture_logs() as logs:
            await streams.add({"BTCUSDT": 0})
            await until(lambda: tries >= 2)
        assert next(entry for entry in logs if entry["event"] == "stream.lost")["reason"] == reason
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        server.close()
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []
