"""One WebSocket of a client: handshake, control messages, and pushes, on the transport that uvicorn hands over."""

import asyncio
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from klagg.model import Market
from klagg.serve.control import Control
from klagg.serve.frames import CloseCode, Message, Opcode, ProtocolError, Reader, accept_token, close_frame, frame
from klagg.serve.gate import Gate, Talk
from klagg.serve.limits import Bucket
from klagg.serve.native.problem import Problem
from klagg.serve.streams import Route, parse_stream, route_of

MAX_BUFFER: Final = 4 * 2**20
"""Bytes that wait for a client that reads slowly: some twenty pushes of a whole market. Past it the client is cut, with close code 1008."""
CLOSE_PATIENCE_S: Final = 5.0
"""How long a client may take to read what is left before its end."""
MESSAGES_PER_S: Final = {Market.SPOT: 5, Market.USDM: 10}
"""Control messages, pings and pongs of a client, as on the exchange; half as many again may come at once, and 15 at least."""
PING_EVERY_S: Final = {Market.SPOT: 20.0, Market.USDM: 180.0}
PONG_WITHIN_S: Final = {Market.SPOT: 60.0, Market.USDM: 600.0}
MAX_HANDSHAKE: Final = 32 * 1024


class StreamSocket(asyncio.Protocol):
    """A client's connection; `combined` and `push` are what the hub knows of it."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._reader = Reader()
        self._transport: asyncio.Transport | None = None
        self._control: Control | None = None
        self._talk: Talk | None = None
        self._bucket = Bucket(10, 15)
        self._market = Market.USDM
        self._pinged_s = self._ponged_s = 0.0
        self._closing = self._deaf = False
        self._unit = 1

    @property
    def combined(self) -> bool:
        """Whether payloads are wrapped with their stream's name."""
        return self._control is not None and self._control.combined

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport is ours."""
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """The handshake first, as uvicorn writes it again, then frames."""
        if self._control is None and self._talk is None:
            self._open(data)
            return
        if self._deaf:
            return
        try:
            for message in self._reader.feed(data):
                if not self._closing:
                    self._take(message)
                elif message.opcode is Opcode.CLOSE and self._transport is not None:
                    self._transport.close()
        except ProtocolError as error:
            self._deaf = True
            self.close(error.code, error.reason)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - whatever ended it
        """The client has gone."""
        self._closing = True
        self._gate.sockets.discard(self)
        if self._control is not None:
            self._control.unsubscribe(list(self._control.names))
        if self._talk is not None:
            self._talk.gone()

    def resume_writing(self) -> None:
        """The client has taken what was sent."""
        if self._talk is not None:
            self._talk.has_room()

    # Opening

    def _open(self, request: bytes) -> None:
        target, headers = _parsed(request)
        try:
            parts = urlsplit(target)
        except ValueError:
            self._refuse(400, "The address cannot be read.")
            return
        denied = self._gate.access.denied(parts.path, headers, websocket=True)
        token = accept_token(headers.get("sec-websocket-key", ""))
        names = [unquote(part) for part in parts.path.split("/") if part]
        at = 0 if names[:1] in (["ws"], ["stream"]) else 1
        route = route_of("/".join(names[:at]), self._gate.unrouted)
        kind = names[at : at + 1]
        if denied is not None:
            self._refuse(denied.status, denied.message)
        elif parts.path in self._gate.doors and token is not None and self._gate.has_room:
            self._enter(token, parts.path, parse_qs(parts.query, keep_blank_values=True))
        elif route is None or kind not in (["ws"], ["stream"]):
            self._refuse(404, "There is no stream at this path.")
        elif token is None or headers.get("sec-websocket-version") != "13":
            self._refuse(400, "This is no WebSocket handshake of version 13.")
        elif not self._gate.has_room:
            self._refuse(503, "Too many connections.")
        else:
            query = parse_qs(parts.query)
            combined = kind == ["stream"]
            given = query.get("streams", [""])[0].split("/") if combined else names[at + 1 :]
            micro = query.get("timeUnit", [""])[0].upper() == "MICROSECOND" and route.market is Market.SPOT
            self._accept(token, route, [name for name in given if name], combined=combined, unit=1_000 if micro else 1)

    def _accept(self, token: str, route: Route, names: list[str], *, combined: bool, unit: int) -> None:
        self._market = market = route.market
        self._unit = unit
        rate = MESSAGES_PER_S[market]
        self._bucket = Bucket(rate, max(15, rate * 3 // 2))
        self._pinged_s = self._ponged_s = self._gate.now_s()
        hub = self._gate.hub

        def added(name: str) -> None:
            stream = parse_stream(name, route)
            if stream is not None:
                hub.add(market, name, stream, self, unit)

        self._control = Control(market, combined, added, lambda name: hub.remove(market, name, self, unit))
        self._gate.sockets.add(self)
        self._shake(token)
        if not self._control.subscribe(names):
            self.close(CloseCode.POLICY, "Invalid request")

    def _enter(self, token: str, path: str, query: dict[str, list[str]]) -> None:
        """Hand the connection to whoever takes those of this path."""
        try:
            talk = self._gate.doors[path](self, {name: values[-1] for name, values in query.items()})
        except Problem as problem:
            self._refuse(problem.status, problem.message)
            return
        self._pinged_s = self._ponged_s = self._gate.now_s()
        self._gate.sockets.add(self)
        self._shake(token)
        self._talk = talk
        talk.begin()

    def _shake(self, token: str) -> None:
        self._write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %s\r\n\r\n" % token.encode()
        )

    def _refuse(self, status: int, message: str) -> None:
        self._closing = True
        body = message.encode()
        self._write(
            b"HTTP/1.1 %d Refused\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
            % (status, len(body), body)
        )
        if self._transport is not None:
            self._transport.close()
            asyncio.get_running_loop().call_later(CLOSE_PATIENCE_S, self._transport.abort)

    # Messages

    def _take(self, message: Message) -> None:
        if message.opcode is Opcode.CLOSE:
            self.close(CloseCode.NORMAL)
            return
        if message.opcode is Opcode.PONG:
            self._ponged_s = self._gate.now_s()
        if not self._bucket.take(self._gate.now_s()):
            self.close(CloseCode.POLICY, "Too many requests")
        elif message.opcode is Opcode.PING:
            self._write(frame(message.payload, Opcode.PONG))
        elif message.opcode is Opcode.TEXT:
            try:
                message.payload.decode()
            except UnicodeDecodeError:
                self.close(CloseCode.INVALID_DATA, "text is not UTF-8")
                return
            if self._talk is not None:
                self._talk.take(message.payload)
                return
            assert self._control is not None
            reply = self._control.answer(message.payload)
            self.push(frame(reply.text))
            if reply.close_reason:
                self.close(CloseCode.POLICY, reply.close_reason)
        elif message.opcode is Opcode.BINARY:
            self.close(CloseCode.POLICY, "Invalid request")

    # Sending

    def push(self, frames: bytes) -> None:
        """Send framed bytes, or cut a client that has not read what it was sent before."""
        if self._closing or self._transport is None:
            return
        if self._transport.get_write_buffer_size() + len(frames) > MAX_BUFFER:
            self._gate.cut += 1
            self.close(CloseCode.POLICY, "Reads too slowly")
        else:
            self._write(frames)

    @property
    def waiting(self) -> int:
        """Bytes that were sent and are not taken yet."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def send(self, frames: bytes) -> None:
        """Send framed bytes, however many wait already."""
        if not self._closing:
            self._write(frames)

    def close(self, code: CloseCode, reason: str = "") -> None:
        """Say why, and end with the client's answer, or after a bounded time.

        An end before the client's bytes are read would reset the connection, and the client might never see why.
        """
        if self._closing or self._transport is None:
            return
        self._closing = True
        self._write(close_frame(code, reason))
        if code in (CloseCode.NORMAL, CloseCode.GOING_AWAY):
            self._transport.close()
        asyncio.get_running_loop().call_later(CLOSE_PATIENCE_S, self._transport.abort)

    def keep_time(self, now_s: float) -> None:
        """Ping where it is due, and end a connection that does not answer."""
        if now_s - self._ponged_s > PONG_WITHIN_S[self._market] + PING_EVERY_S[self._market]:
            self.close(CloseCode.POLICY, "Pong timeout")
        elif now_s - self._pinged_s >= PING_EVERY_S[self._market]:
            self._pinged_s = now_s
            self.push(frame(str(self._gate.now_ms(self._market)).encode(), Opcode.PING))

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


def _parsed(request: bytes) -> tuple[str, dict[str, str]]:
    """The target and the headers (lower-case names) of a handshake that uvicorn has parsed and written again."""
    head, *lines = request.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return head.split(" ")[1], {name.strip().lower(): value.strip() for name, _, value in pairs}
