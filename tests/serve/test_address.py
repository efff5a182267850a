"""One address over a market that the test decides: pushes, bounds, errors, and who is let in."""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import numpy as np
import pytest

from klagg.clock import ManualClock
from klagg.errors import KlaggError, StoreUnavailable
from klagg.interval import BY_NAME, MINUTE_MS
from klagg.model import Flag, Market
from klagg.serve import socket as socket_module
from klagg.serve.access import Access
from klagg.serve.address import Address
from klagg.serve.app import metrics_route
from klagg.serve.listening import listen
from serve.fakes import START_MS, FakeLive, FakeSource, candle

TOKEN = "a token of some length"


class Rig:
    """An address that serves, and a client."""

    def __init__(self, live: FakeLive, access: Access) -> None:
        self.live = live
        self.source = FakeSource()
        self.clock = ManualClock()
        bound = listen("127.0.0.1", 0)
        routes = [metrics_route(lambda: b"up 1\n")]
        self.address = Address(bound, access, live, self.source, self.clock, routes)
        self.base = f"127.0.0.1:{bound.getsockname()[1]}"
        self.http = aiohttp.ClientSession()

    async def get(self, path: str, **headers: str) -> tuple[int, str, Any]:
        async with self.http.get(f"http://{self.base}{path}", headers=headers) as response:
            return response.status, await response.text(), response.headers

    @contextlib.asynccontextmanager
    async def socket(self, path: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        async with self.http.ws_connect(f"ws://{self.base}{path}") as opened:
            yield opened

    async def heard(self, socket: aiohttp.ClientWebSocketResponse) -> Any:
        message = await asyncio.wait_for(socket.receive(), 5)
        assert message.type is aiohttp.WSMsgType.TEXT, message
        return json.loads(message.data)


@contextlib.asynccontextmanager
async def open_rig(access: Access | None = None, market: Market = Market.USDM, **live: Any) -> AsyncIterator[Rig]:
    rig = Rig(FakeLive(market, **live), access or Access())
    running = asyncio.create_task(rig.address.run())
    try:
        while not rig.live._queues or rig.clock.sleepers < 3:  # noqa: ASYNC110 - until all of its tasks wait
            await asyncio.sleep(0.01)
        yield rig
    finally:
        await rig.http.close()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_candle_closes_once_after_its_commit_and_before_the_next_one_runs() -> None:
    async with open_rig() as rig, rig.socket("/market/stream?streams=btcusdt@kline_1m/ethusdt@kline_1m") as socket:
        rig.live.trade("BTCUSDT", 100, 1)
        await rig.clock.advance(250)
        first = await rig.heard(socket)
        assert (first["stream"], first["data"]["k"]["x"], first["data"]["k"]["c"]) == (
            "btcusdt@kline_1m",
            False,
            "1.00",
        )
        await rig.clock.advance(250)  # nothing has changed: nothing is pushed
        rig.live.durable += MINUTE_MS
        rig.live.trade("BTCUSDT", 300, 1)
        await rig.clock.advance(250)  # the next minute runs, but the last one's end is not pushed yet
        rig.live.durable -= MINUTE_MS
        closed = candle(START_MS, 200, 5)
        rig.live.close(("BTCUSDT", closed))
        second = await rig.heard(socket)
        assert second["data"]["k"] | {"x": True, "c": "2.00", "n": 5, "t": START_MS} == second["data"]["k"]
        rig.live.commit(("BTCUSDT", closed))  # its evidence came: the same candle again
        rig.live.commit(("BTCUSDT", candle(START_MS, 210, 6)))  # a revision
        await asyncio.sleep(0)
        await rig.clock.advance(250)
        third = await rig.heard(socket)
        assert (third["data"]["k"]["t"], third["data"]["k"]["x"]) == (START_MS + MINUTE_MS, False)


async def test_longer_candles_and_both_ways_of_asking() -> None:
    five = BY_NAME["5m"]
    async with open_rig() as rig, rig.socket("/ws/btcusdt@kline_5m") as by_path, rig.socket("/ws") as by_request:
        await by_request.send_json({"method": "SUBSCRIBE", "params": ["btcusdt@kline_5m"], "id": 7})
        assert await rig.heard(by_request) == {"result": None, "id": 7}
        rig.live.close(("BTCUSDT", candle(START_MS - 5 * MINUTE_MS + MINUTE_MS * 5, 200, interval=five)))
        for socket in (by_path, by_request):
            event = await rig.heard(socket)
            assert (event["e"], event["k"]["i"], event["k"]["x"]) == ("kline", "5m", True)
            assert event["k"]["T"] - event["k"]["t"] == 5 * MINUTE_MS - 1


async def test_a_slow_reader_is_cut_and_the_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_module, "MAX_BUFFER", 20_000)
    symbols = [f"S{n}USDT" for n in range(200)]
    names = "/".join(f"{symbol.lower()}@kline_1m" for symbol in symbols)
    async with open_rig(symbols=symbols) as rig, rig.socket(f"/stream?streams={names}") as slow:
        connection = slow._response.connection  # type: ignore[union-attr]
        assert connection is not None
        assert connection.transport is not None
        connection.transport.pause_reading()  # type: ignore[attr-defined]
        for minute in range(200):
            rig.live.close(*((symbol, candle(START_MS + minute * MINUTE_MS, 100 + minute)) for symbol in symbols))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            if rig.address.gate.cut:
                break
        assert rig.address.gate.cut == 1
        connection.transport.resume_reading()  # type: ignore[attr-defined]
        async for _ in slow:
            pass
        assert slow.close_code == 1008


@pytest.mark.parametrize(
    ("send", "code"),
    [
        (lambda s: s.send_bytes(b"{}"), 1008),
        (lambda s: s.send_str("x" * 70_000), 1009),
        (
            lambda s: s.send_json({"method": "SUBSCRIBE", "params": [f"a{n}@kline_1m" for n in range(1025)], "id": 1}),
            1008,
        ),
    ],
)
async def test_what_is_too_much_ends_the_connection(send: Any, code: int) -> None:
    async with open_rig() as rig, rig.socket("/ws") as socket:
        await send(socket)
        async for _ in socket:
            pass
        assert socket.close_code == code


async def test_too_many_messages_end_the_connection_and_a_ping_is_answered() -> None:
    async with open_rig() as rig, rig.socket("/market/ws") as socket:
        await socket.ping(b"here?")
        for number in range(40):
            await socket.send_json({"method": "LIST_SUBSCRIPTIONS", "id": number})
        answers = [message async for message in socket]
        assert socket.close_code == 1008
        assert 10 <= len(answers) <= 15


async def test_routes_that_deliver_nothing_acknowledge_all_the_same() -> None:
    async with open_rig() as rig, rig.socket("/public/ws") as socket:
        await socket.send_json({"method": "SUBSCRIBE", "params": ["btcusdt@kline_1m"], "id": 1})
        assert await rig.heard(socket) == {"result": None, "id": 1}
        await socket.send_json({"method": "LIST_SUBSCRIPTIONS", "id": 2})
        assert await rig.heard(socket) == {"result": ["btcusdt@kline_1m"], "id": 2}
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with rig.socket("/elsewhere/ws"):
                pass
        assert refused.value.status == 404


async def test_rest_stops_before_what_is_not_durable() -> None:
    async with open_rig() as rig:
        rows = np.concatenate(
            [candle(START_MS + n * MINUTE_MS, 100 + n, flags=Flag.CLOSED.value) for n in range(-3, 1)]
        )
        rows["flags"][:2] |= Flag.VERIFIED.value
        rig.source.minutes["BTCUSDT"] = rows
        rig.live.trade("BTCUSDT", 500, 2)
        path = "/fapi/v1/klines?symbol=BTCUSDT&interval=1m"
        status, text, headers = await rig.get(path)
        opens = [row[0] - START_MS for row in json.loads(text)]
        assert (status, opens) == (200, [-3 * MINUTE_MS, -2 * MINUTE_MS, -MINUTE_MS, 0])
        assert headers["X-Klagg-Unverified"] == "1"
        rig.live.rows["BTCUSDT"]["open_ms"] += MINUTE_MS  # the next minute runs, this one waits for the database
        _, text, _ = await rig.get(path)
        assert [row[0] - START_MS for row in json.loads(text)] == [-3 * MINUTE_MS, -2 * MINUTE_MS, -MINUTE_MS]


async def test_a_running_candle_that_memory_may_not_hold_whole_is_made_of_what_is_stored() -> None:
    five, path = BY_NAME["5m"], "/fapi/v1/klines?symbol=BTCUSDT&interval=5m"
    async with open_rig() as rig:
        rig.live.durable += 2 * MINUTE_MS  # begun in the middle of five minutes: nobody saw their first two
        rig.live.trade("BTCUSDT", 500, 2)
        assert json.loads((await rig.get(path))[1]) == [], "nothing is known of the first two"
        rig.source.past = candle(START_MS, 400, 3)
        rig.source.past["high"] = 900
        row = json.loads((await rig.get(path))[1])[0]
        assert (row[0], row[1], row[2], row[4], row[8]) == (START_MS, "4.00", "9.00", "5.00", 5)
        rig.source.past = rig.source.past[:0]
        rig.source.sure = True  # memory has it from the exchange's own candles
        row = json.loads((await rig.get(path))[1])[0]
        assert (row[0], row[4], row[6] - row[0] + 1, row[8]) == (START_MS, "5.00", five.step_ms, 2)


async def test_a_market_that_is_not_served_and_one_that_starts() -> None:
    async with open_rig() as rig:
        _, text, _ = await rig.get("/api/v3/exchangeInfo")
        assert json.loads(text)["symbols"] == []
        assert (await rig.get("/api/v3/klines?symbol=BTCUSDT&interval=1m"))[
            1
        ] == '{"code":-1121,"msg":"Invalid symbol."}'
        assert (await rig.get("/api/v3/ticker/price"))[1] == "[]"
        rig.live.started = False
        assert (await rig.get("/fapi/v1/exchangeInfo"))[0] == 503
        assert (await rig.get("/fapi/v1/ping"))[0] == 200


async def test_health() -> None:
    async with open_rig() as rig:
        assert (await rig.get("/readyz"))[:2] == (200, "ready\n")
        rig.live.not_ready = ["usdm: the exchange's time is not known"]
        assert (await rig.get("/readyz"))[:2] == (503, "usdm: the exchange's time is not known\n")
        assert (await rig.get("/healthz"))[0] == 200
        assert (await rig.get("/metrics"))[1] == "up 1\n"


async def test_errors_tell_nothing_of_the_inside() -> None:
    async with open_rig() as rig:
        for error in (StoreUnavailable("/secret/path/klagg.db: locked"), ZeroDivisionError("secret")):
            rig.source.error = error
            status, text, headers = await rig.get("/fapi/v1/klines?symbol=BTCUSDT&interval=1m")
            assert status in (500, 503)
            assert json.loads(text)["code"] in (-1000, -1001)
            assert "secret" not in text
            assert headers["X-Content-Type-Options"] == "nosniff"
        for path in ("/nothing", "/fapi/v1/depth", "/../etc/passwd", "/fapi/v1/klines/%00"):
            status, text, _ = await rig.get(path)
            assert status == 404
            assert json.loads(text)["code"] == -1000
        async with rig.http.post(f"http://{rig.base}/fapi/v1/klines", data=b"x" * 100_000) as response:
            assert response.status == 405
        async with rig.http.get(f"http://{rig.base}/fapi/v1/ping?" + "x" * 40_000) as response:
            assert response.status == 414


async def test_a_token_is_asked_of_rest_and_streams() -> None:
    async with open_rig(Access.for_host("0.0.0.0", TOKEN, open_to_all=False)) as rig:
        status, text, _ = await rig.get("/fapi/v1/time")
        assert status == 401
        assert TOKEN not in text
        assert (await rig.get("/fapi/v1/time", Authorization=f"Bearer {TOKEN}"))[0] == 200
        assert (await rig.get("/healthz"))[0] == 200
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with rig.socket("/ws"):
                pass
        assert refused.value.status == 401
        url = f"ws://klagg:{TOKEN.replace(' ', '%20')}@{rig.base}/ws"
        async with rig.http.ws_connect(url) as socket:
            await socket.send_json({"method": "LIST_SUBSCRIPTIONS", "id": 1})
            assert await rig.heard(socket) == {"result": [], "id": 1}


def test_an_address_in_use_is_one_clear_line() -> None:
    with contextlib.closing(listen("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            KlaggError, match=rf"cannot serve on 127.0.0.1:{port} \(Address already in use\).*--no-serve"
        ):
            listen("127.0.0.1", port)


async def test_bytes_that_make_no_sense_end_only_their_connection(capfd: pytest.CaptureFixture[str]) -> None:
    """Broken handshakes, frames of noise, connections reset in the middle: the address goes on, and says nothing of each."""
    chance = random.Random(7)
    lines = (
        "GET /ws HTTP/1.1",
        "Host: 127.0.0.1",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
    )
    handshake = "\r\n".join((*lines, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "", "")).encode()
    async with open_rig() as rig:
        host, _, port = rig.base.partition(":")
        for number in range(60):
            reader, writer = await asyncio.open_connection(host, int(port))
            request = bytearray(handshake)
            for _ in range(number % 3):
                request[chance.randrange(len(request))] = chance.randrange(256)
            writer.write(bytes(request))
            if number % 2:
                with contextlib.suppress(TimeoutError, ConnectionError):
                    await asyncio.wait_for(reader.read(1_000), 0.05)
            with contextlib.suppress(ConnectionError):
                writer.write(chance.randbytes(chance.randrange(300)))
                await asyncio.sleep(0)
            writer.transport.abort()
        assert (await rig.get("/healthz"))[0] == 200
        while rig.address.gate.sockets:  # noqa: ASYNC110 - until the last of them is seen to have gone
            await asyncio.sleep(0.01)
    assert capfd.readouterr().err == ""
