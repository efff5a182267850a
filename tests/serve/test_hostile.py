"""Clients that are slow, greedy or hostile, on real sockets: each is answered or cut, in bounds, and everybody else goes on."""

import asyncio
import contextlib
import json
import logging
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from klagg.interval import MINUTE_MS
from klagg.model import Market
from klagg.serve import connection as connection_module
from klagg.serve import server as server_module
from klagg.serve import socket as socket_module
from klagg.serve.access import Access
from klagg.serve.frames import MAX_FRAGMENTS, Opcode
from klagg.serve.limits import OWN_FILES
from serve.fakes import START_MS, candle
from serve.test_address import TOKEN, Rig, open_rig

HEAD = "GET {} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
SHAKE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
ENDS_S = 10
"""How long something that must happen is waited for before it counts as missing."""


@pytest.fixture(autouse=True)
def _nothing_is_said(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Any:
    """Whatever clients do: no traceback, neither printed nor logged by the loop."""
    yield
    assert "Traceback" not in capfd.readouterr().err
    assert not [record for record in caplog.records if record.name == "asyncio" and record.levelno >= logging.ERROR]


class Raw:
    """A client that writes what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def rest(self) -> bytes:
        """Everything until the server ends it."""
        with contextlib.suppress(ConnectionError):
            return await asyncio.wait_for(self.reader.read(), ENDS_S)
        return b""

    async def frame(self) -> tuple[int, bytes]:
        """Opcode and payload of the server's next frame."""
        first, size = await asyncio.wait_for(self.reader.readexactly(2), ENDS_S)
        if size >= 126:
            size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8), "big")
        return first & 15, await self.reader.readexactly(size)

    async def close_code(self) -> int:
        """The code with which the server closes, whatever it says before."""
        while True:
            opcode, payload = await self.frame()
            if opcode == Opcode.CLOSE:
                return int.from_bytes(payload[:2], "big")


@contextlib.asynccontextmanager
async def raw(rig: Rig, first: str | bytes = b"") -> AsyncIterator[Raw]:
    host, _, port = rig.base.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(first.encode() if isinstance(first, str) else first)
    try:
        yield Raw(reader, writer)
    finally:
        writer.transport.abort()


@contextlib.asynccontextmanager
async def stream(rig: Rig, path: str = "/ws") -> AsyncIterator[Raw]:
    async with raw(rig, HEAD.format(path) + SHAKE) as client:
        head = await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), ENDS_S)
        assert b" 101 " in head
        yield client


def masked(payload: bytes, opcode: int = Opcode.TEXT, *, final: bool = True) -> bytes:
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return bytes([(0x80 if final else 0) | opcode]) + length + bytes(4) + payload


async def healthy(rig: Rig) -> None:
    assert (await rig.get("/healthz"))[:2] == (200, "ok\n")


async def until(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(ENDS_S):
        while not true():  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.005)


def time_passes(rig: Rig, seconds: float) -> None:
    """Let the server look at its connections as if so much time had passed."""
    for connection in tuple(rig.address._server._server.server_state.connections):
        connection.keep_time(time.monotonic() + seconds)  # type: ignore[union-attr]


def connections(rig: Rig) -> int:
    return len(rig.address._server._server.server_state.connections)


# Requests that do not come, or do not end


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "GET /healthz HT",
        "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: b\r\n",
        HEAD.format("/healthz") + "\r\n" + HEAD.format("/healthz"),
        HEAD.format("/healthz") + "Content-Length: 1000000\r\n\r\nabc",
        HEAD.format("/healthz") + "Transfer-Encoding: chunked\r\n\r\n5\r\nab",
    ],
)
async def test_a_request_that_does_not_come_whole_ends_after_a_time(sent: str) -> None:
    async with open_rig() as rig, raw(rig, sent) as slow:
        await until(lambda: connections(rig))
        if sent.count("\r\n\r\n"):
            assert b"200 OK" in await asyncio.wait_for(slow.reader.readuntil(b"ok\n"), ENDS_S)
            slow.writer.write(b"d")  # one more byte of it
        await healthy(rig)
        await asyncio.sleep(0.02)
        time_passes(rig, connection_module.ASK_S - 1)
        assert not slow.reader.at_eof()
        time_passes(rig, connection_module.ASK_S + 1)
        assert b"200 OK" not in await slow.rest()
        await healthy(rig)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (HEAD.format("/healthz") + "X-Endless: " + "x" * 40_000, 400),
        ("GET /" + "x" * 40_000, 400),
        ("\x00\x01\x02\x03 nothing of HTTP\r\n\r\n", 400),
        ("GET /healthz HTTP/1.1\r\nHost: a\r\nHost: 127.0.0.1\r\n\r\n", 400),
        ("GET /healthz HTTP/1.1\r\n\r\n", 400),
        (HEAD.format("/healthz") + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (HEAD.format("/healthz") + "Transfer-Encoding: chunked\r\nContent-Length: -5\r\n\r\n", 400),
        (HEAD.format("//[::1/ws") + SHAKE, 400),
        (HEAD.format("/ws") + SHAKE.replace("dGhl", "!!!!"), 400),
    ],
)
async def test_what_is_no_request_is_refused(sent: str, status: int) -> None:
    async with open_rig() as rig, raw(rig, sent) as client:
        assert f" {status} ".encode() in (await client.rest()).partition(b"\r\n")[0]
        await healthy(rig)


async def test_a_body_that_turns_to_noise_ends_only_its_connection() -> None:
    async with open_rig() as rig:
        for after in (False, True):
            head = HEAD.format("/healthz") + "Transfer-Encoding: chunked\r\n\r\n"
            async with raw(rig, head if after else head + "no chunk\r\n") as client:
                if after:
                    await client.reader.readuntil(b"ok\n")
                    client.writer.write(b"no chunk\r\n")
                await client.rest()
            await healthy(rig)


async def test_bodies_of_requests_are_left_alone_and_bounded() -> None:
    async with open_rig() as rig:
        async with rig.http.get(f"http://{rig.base}/fapi/v1/ping", data=b"x" * 200_000) as response:
            assert response.status == 200
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
            async with rig.http.request(method, f"http://{rig.base}/fapi/v1/klines", data=b"x") as response:
                assert response.status in (204, 405)
                assert "Access-Control-Allow-Origin" not in response.headers


async def test_an_answer_that_is_not_read_is_given_up() -> None:
    async with open_rig(symbols=[f"S{n}USDT" for n in range(3_000)]) as rig, raw(rig) as greedy:
        greedy.writer.transport.pause_reading()  # type: ignore[attr-defined]
        greedy.writer.write((HEAD.format("/fapi/v1/exchangeInfo") + "\r\n").encode() * 40)
        await until(
            lambda: any(c._stuck_since_s for c in rig.address._server._server.server_state.connections)  # type: ignore[union-attr]
        )
        await healthy(rig)
        time_passes(rig, connection_module.TAKE_S + 1)
        greedy.writer.transport.resume_reading()  # type: ignore[attr-defined]
        await greedy.rest()
        await until(lambda: connections(rig) <= 1)


# Too many


async def test_connections_beyond_the_bound_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 50)
    async with open_rig() as rig, contextlib.AsyncExitStack() as many:
        await healthy(rig)
        for _ in range(49):
            await many.enter_async_context(raw(rig))
        await until(lambda: connections(rig) == 50)
        async with raw(rig) as one_more:
            answer = await one_more.rest()
        assert b" 503 " in answer
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == -1003
        await healthy(rig)  # on a connection that is there already
        time_passes(rig, connection_module.ASK_S + 1)
        await until(lambda: connections(rig) <= 1)


async def test_where_the_system_allows_few_files_clients_may_hold_fewer_than_it_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    allowed = 316
    monkeypatch.setattr(server_module, "open_files", lambda wanted: min(wanted, allowed))
    async with open_rig() as rig, contextlib.AsyncExitStack() as many:
        await healthy(rig)
        for _ in range(allowed - OWN_FILES):
            await many.enter_async_context(raw(rig))
        await healthy(rig)
        most = rig.address._server._server.config.limit_concurrency
        assert most is not None
        assert 0 < most - 1 + rig.address.gate.max_sockets <= allowed - OWN_FILES
        await until(lambda: connections(rig) == most - 1)


async def test_streams_beyond_the_bound_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("klagg.serve.gate.MAX_SOCKETS", 3)
    async with open_rig() as rig, stream(rig), stream(rig), stream(rig) as last:
        async with raw(rig, HEAD.format("/ws") + SHAKE) as one_more:
            assert b" 503 " in await one_more.rest()
        last.writer.transport.abort()
        await until(lambda: len(rig.address.gate.sockets) == 2)
        async with stream(rig):
            await healthy(rig)


async def test_a_flood_of_subscriptions_leaves_nothing_behind() -> None:
    every = [f"s{n}@kline_1m" for n in range(1_024)]
    async with open_rig() as rig:
        tracemalloc.start()
        try:
            for _ in range(3):
                async with stream(rig) as client:
                    for method in ("SUBSCRIBE", "UNSUBSCRIBE") * 30:
                        request = {"method": method, "params": every, "id": 1}
                        client.writer.write(masked(json.dumps(request).encode()))
                    assert await client.close_code() == 1008
            await until(lambda: not rig.address.gate.sockets)
            assert rig.address.gate.hub.streams == 0
            assert tracemalloc.get_traced_memory()[0] < 20 * 2**20
        finally:
            tracemalloc.stop()


# Frames


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (b"\x81\xff" + (1 << 62).to_bytes(8, "big") + bytes(4), 1009),
        (b"\x81\xff" + (1 << 63).to_bytes(8, "big") + bytes(4), 1009),
        (b"\x81\x05hello", 1002),
        (b"\xf1\x80" + bytes(4), 1002),
        (b"\x83\x80" + bytes(4), 1002),
        (masked(b"", Opcode.CONTINUATION), 1002),
        (masked(b"a", final=False) + masked(b"b"), 1002),
        (masked(b"x" * 126, Opcode.PING), 1002),
        (masked(b"", Opcode.PING, final=False), 1002),
        (masked(b"\xff\xfe"), 1007),
        (masked(b"", final=False) + masked(b"", Opcode.CONTINUATION, final=False) * MAX_FRAGMENTS, 1009),
        (masked(b"x" * 60_000, final=False) + masked(b"x" * 6_000, Opcode.CONTINUATION), 1009),
        (masked(b"", Opcode.PING) * 100, 1008),
        (masked(b"", Opcode.PONG) * 100, 1008),
        (masked(b"{}") * 100, 1008),
        (masked(b"", Opcode.CLOSE), 1000),
    ],
)
async def test_frames_that_must_not_be_end_their_connection(frames: bytes, code: int) -> None:
    async with open_rig() as rig, stream(rig) as client, rig.socket("/ws") as other:
        client.writer.write(frames)
        assert await client.close_code() == code
        await other.send_json({"method": "LIST_SUBSCRIPTIONS", "id": 1})
        assert (await rig.heard(other))["id"] == 1


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 30_000,
        b'{"method":' * 5_000,
        b"null",
        b'{"method":"SUBSCRIBE","params":[null,{},1e999]}',
        b'{"method":"SUBSCRIBE","params":["' + b"x" * 5_000 + b'"]}',
        b'{"method":"SUBSCRIBE","params":["\\u0000@kline_1m","\\ud83d\\ude00@kline_1m","../../etc@kline_1m","btcusdt@kline_0m"],"id":1}',
        b'{"method":"SUBSCRIBE","params":["btcusdt@kline_1m"],"id":' + b"9" * 400 + b"}",
        b'{"method":"SET_PROPERTY","params":["combined",NaN],"id":1}',
        b'{"method":"GET_PROPERTY","params":["__class__"],"id":1}',
    ],
)
async def test_requests_that_make_no_sense_get_an_answer(text: bytes) -> None:
    async with open_rig() as rig, stream(rig) as client:
        client.writer.write(masked(text))
        opcode, payload = await client.frame()
        assert opcode == Opcode.TEXT
        assert {"error", "result"} & set(json.loads(payload))
        await healthy(rig)


async def test_a_client_that_never_reads_costs_a_bounded_buffer_and_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its bytes wait up to the bound, then it is cut; a reader beside it gets every minute, and what is due waits for neither."""
    monkeypatch.setattr(socket_module, "MAX_BUFFER", 200_000)
    symbols = [f"S{n}USDT" for n in range(300)]
    names = "/".join(f"{symbol.lower()}@kline_1m" for symbol in symbols)
    async with open_rig(symbols=symbols) as rig, rig.socket("/ws/s0usdt@kline_1m") as reads:
        async with stream(rig, f"/ws/{names}") as greedy:
            greedy.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await until(lambda: len(rig.address.gate.sockets) == 2)
            minutes = 0
            while not rig.address.gate.cut:
                rig.live.close(*((s, candle(START_MS + minutes * MINUTE_MS, 100 + minutes)) for s in symbols))
                minutes += 1
                assert (await rig.heard(reads))["k"]["c"] == f"{1 + (minutes - 1) / 100:.2f}"
                assert minutes < 300
            waiting = [socket.waiting for socket in rig.address.gate.sockets]  # type: ignore[attr-defined]
            assert max(waiting) <= 200_000 + 200
        await until(lambda: len(rig.address.gate.sockets) == 1)
        rig.live.close(("S0USDT", candle(START_MS + minutes * MINUTE_MS, 900)))
        assert (await rig.heard(reads))["k"]["c"] == "9.00"


# Who asks


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil.example",
        "evil.example:8420",
        "[::1].evil.example",
        "0.0.0.0",
        "127.1",
        "localhost\\.evil.example",
        "[",
    ],
)
async def test_a_name_that_was_bent_to_this_host_is_refused(host: str) -> None:
    async with open_rig() as rig:
        for path, shake in (("/fapi/v1/time", "\r\n"), ("/metrics", "\r\n"), ("/", "\r\n"), ("/ws", SHAKE)):
            request = HEAD.format(path).replace("127.0.0.1", host) + "Connection: close\r\n" * (shake == "\r\n") + shake
            async with raw(rig, request) as client:
                assert (await client.rest()).split(b" ")[1] in (b"400", b"403")


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1", "file://", "http://[", ""])
async def test_a_page_of_another_address_opens_no_stream_and_reads_no_answer(origin: str) -> None:
    async with open_rig() as rig:
        request = f"GET /ws HTTP/1.1\r\nHost: {rig.base}\r\nOrigin: {origin}\r\n{SHAKE}"
        async with raw(rig, request) as client:
            assert b" 403 " in (await client.rest()).partition(b"\r\n")[0]
        status, _, headers = await rig.get("/fapi/v1/time", Origin=origin)
        assert status == 200
        assert "Access-Control-Allow-Origin" not in headers
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


async def test_guesses_at_the_token_learn_nothing() -> None:
    guesses = ["", "x", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "\xe9" * 20, "x" * 10_000]
    async with open_rig(Access(token=TOKEN)) as rig:
        answers = set()
        for guess in guesses:
            for scheme in ("Bearer", "bearer ", "Basic", "Digest", ""):
                for path in ("/fapi/v1/time", "/nothing", "/fapi/v1/klines?symbol=BTCUSDT&interval=1m", "/"):
                    status, text, _ = await rig.get(path, Authorization=f"{scheme} {guess}")
                    answers.add((status, text))
        assert {status for status, _ in answers} == {401}
        assert len(answers) == 1


# What is asked

TRAVERSALS = (
    "/../../../etc/passwd",
    "/assets/../../../etc/passwd",
    "/assets/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "/assets/..%2f..%2fpage%2f__init__.py",
    "/assets/%252e%252e/BUILD.json",
    "/assets//etc/passwd",
    "/assets/..\\..\\__init__.py",
    "/%00",
    "/assets/index.html%00.css",
    "/~root",
    "/file:///etc/passwd",
)


@pytest.mark.parametrize("path", TRAVERSALS)
async def test_no_path_leads_out_of_the_page(path: str) -> None:
    async with open_rig() as rig:
        async with raw(rig, HEAD.format(path) + "Connection: close\r\n\r\n") as client:
            answer = await client.rest()
        assert b" 404 " in answer.partition(b"\r\n")[0]
        assert b"root:" not in answer
        assert b"/" not in answer.partition(b"\r\n\r\n")[2], "an error says no path"


NUMBERS = (
    "-1",
    "0",
    "1e3",
    "NaN",
    "Infinity",
    "9" * 19,
    "9" * 400,
    "0x10",
    "1.5",
    " 5",
    "",
    "٣",
    "%00",
    "null",
    "[]",
    "true",
)
SYMBOLS = (
    "btcusdt",
    "₿TC",
    "\U0001f600",
    "",
    "../x",
    "BTCUSDT,ETHUSDT",
    "%",
    "A" * 2_000,
    "BTCUSDT\x00",
    "' OR 1=1 --",
    "[]",
)
INTERVALS = ("1m", "1M", "1w", "1d", "2m", "0m", "-1m", "1000000000m", "", "m", "\U0001f600")


def questions(market: Market) -> list[dict[str, str]]:
    """Parameters that no client of good will sends."""
    good = {"symbol": "BTCUSDT", "interval": "1m"}
    found: list[dict[str, str]] = [
        {**good, name: value} for name in ("limit", "startTime", "endTime") for value in NUMBERS
    ]
    found += [{**good, "symbol": symbol} for symbol in SYMBOLS] + [{**good, "interval": name} for name in INTERVALS]
    for name in ("1m", "5m", "1h", "1w", "1M"):
        for start in ("0", "9" * 13, "9" * 16, "9" * 19):
            found.append({**good, "interval": name, "startTime": start, "limit": "1000"})
            found.append({**good, "interval": name, "endTime": start, "limit": "1000"})
    if market is Market.SPOT:
        zones = (*NUMBERS, "+14:00", "-12:00", "14:01", "+99", "5:60")
        found += [{**good, "interval": name, "timeZone": zone} for name in ("1d", "1M") for zone in zones]
    return found


@pytest.mark.parametrize("market", list(Market))
async def test_no_parameter_makes_a_fault_or_tells_of_the_inside(market: Market) -> None:
    prefix = "/api/v3/" if market is Market.SPOT else "/fapi/v1/"
    async with open_rig(market=market) as rig:
        rig.live.trade("BTCUSDT", 100, 1)
        for params in questions(market):
            async with rig.http.get(f"http://{rig.base}{prefix}klines", params=params) as response:
                text = await response.text()
                assert response.status in (200, 400), (params, text)
                answer = json.loads(text)
                assert isinstance(answer, list) or set(answer) == {"code", "msg"}
                assert not {"klagg", "Traceback", ".py", "sqlite"} & set(text.split("/"))
        for query in (
            "symbol=BTCUSDT&symbol=ETHUSDT&interval=1m",
            "&".join(f"a{n}=1" for n in range(100)),
            "symbol=%ff&interval=1m",
            "=&=&=",
        ):
            assert (await rig.get(f"{prefix}klines?{query}"))[0] == 400
        for symbols in ("[]", '["BTCUSDT"', '["' + '","'.join(["BTCUSDT"] * 900) + '"]', "[1]", "{}", "[" * 3_000):
            async with rig.http.get(f"http://{rig.base}{prefix}ticker/price", params={"symbols": symbols}) as response:
                assert response.status in (200, 400)


async def test_a_crowd_that_asks_at_once_is_answered_in_bounds() -> None:
    """Requests without pause from many connections: answers or 429, and a push meanwhile is on its way at once."""

    async def ask(rig: Rig) -> list[int]:
        return [(await rig.get("/fapi/v1/klines?symbol=BTCUSDT&interval=1m&limit=1500"))[0] for _ in range(15)]

    async with open_rig() as rig, rig.socket("/ws/btcusdt@kline_1m") as socket:
        asking: list[Awaitable[list[int]]] = [asyncio.create_task(ask(rig)) for _ in range(30)]
        await asyncio.sleep(0)
        rig.live.close(("BTCUSDT", candle(START_MS, 200)))
        assert (await rig.heard(socket))["k"]["c"] == "2.00"
        statuses = {status for answers in await asyncio.gather(*asking) for status in answers}
        assert statuses <= {200, 429}
        assert 200 in statuses
