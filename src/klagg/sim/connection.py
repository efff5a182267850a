"""One WebSocket connection of the offline exchange: a thin shell around its `Control`."""

import asyncio
import contextlib
from collections import deque
from typing import Final

import structlog
from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from klagg.sim.control import Control
from klagg.sim.limits import TokenBucket
from klagg.sim.streams import Route
from klagg.sim.venue import Venue

log = structlog.get_logger()

MAX_WAITING: Final = 50_000
"""Frames that wait for a slow client (minutes of a whole market); past it the exchange cuts the connection."""
DEADLINE_CHECK_S: Final = 0.05
"""How often the deadlines of a connection are looked at, in real time."""
DRAIN_S: Final = 1.0
"""How long the last answer before a close may take to be sent, in real time."""
_ENDS: Final = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR)


class Connection:
    """A client's connection to one venue by one route."""

    def __init__(
        self, venue: Venue, route: Route, request: web.Request, *, number: int, combined: bool, unit: int
    ) -> None:
        self.number = number
        self.unit = unit
        self.combined = combined
        self.venue = venue
        settings = venue.settings
        self._settings = settings
        self._request = request
        self._faults = venue.faults
        self._control = Control(venue.hub, self, route, settings.max_streams, self._deaf)
        self._asked = 0
        self._socket = web.WebSocketResponse(autoping=False, compress=False, max_msg_size=2**20)
        rate = settings.own(settings.message_rate, 10, 5)
        self._messages = TokenBucket(rate, settings.own(settings.message_burst, 15, 5))
        self._waiting: deque[str] = deque()
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()
        self._unanswered: dict[bytes, int] = {}

    async def serve(self, names: list[str]) -> web.WebSocketResponse:
        """Talk until either side ends it; `names` are the streams of its URL."""
        await self._socket.prepare(self._request)
        if not self._control.subscribe(names):
            await self._socket.close(code=WSCloseCode.POLICY_VIOLATION, message=b"Invalid request")
            return self._socket
        tasks = [asyncio.create_task(self._write()), asyncio.create_task(self._keep_time())]
        try:
            await self._read()
        finally:
            self._control.leave()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return self._socket

    def deliver(self, text: str) -> None:
        """Queue a frame, unless a fault keeps the connection silent."""
        if self._faults.sockets.silent(self.number, self._faults.passed()):
            return
        if len(self._waiting) >= MAX_WAITING:
            log.warning("sim.client_too_slow", waiting=len(self._waiting))
            self.cut()
            return
        self._waiting.append(text)
        self._wake.set()

    def cut(self) -> None:
        """End it without a close frame, as a broken network would."""
        self._control.leave()
        self._waiting.clear()
        if self._request.transport is not None:
            self._request.transport.abort()

    async def close(self, code: int, reason: str) -> None:
        """End it with a close frame."""
        self._control.leave()
        with contextlib.suppress(ConnectionError):
            await self._socket.close(code=code, message=reason.encode())

    async def _read(self) -> None:
        while True:
            message = await self._socket.receive()
            if message.type in _ENDS:
                return
            if not self._messages.take(self.venue.now_ms()):
                await self._drained()
                await self.close(WSCloseCode.POLICY_VIOLATION, "Too many requests")
                return
            reason = await self._handle(message)
            if reason:
                await self._drained()
                await self.close(WSCloseCode.POLICY_VIOLATION, reason)
                return

    async def _handle(self, message: WSMessage) -> str:
        """Answer one message; the reason to close the connection, if there is one."""
        if message.type is WSMsgType.PONG:
            self._unanswered.pop(bytes(message.data), None)
        elif message.type is WSMsgType.PING:
            await self._socket.pong(message.data)
        elif message.type is WSMsgType.TEXT:
            point = self._cut_point(message.data)
            if point == "before":
                self.cut()
                return ""
            answer = self._control.answer(message.data)
            self._waiting.append(answer.text)
            self._wake.set()
            if point == "after":
                await self._drained()
                self.cut()
            return answer.close_reason
        else:
            return "Invalid request"
        return ""

    def _cut_point(self, text: str) -> str | None:
        """Where a fault cuts the connection because it asks for streams."""
        if '"SUBSCRIBE"' not in text:
            return None
        self._asked += 1
        return self._faults.sockets.subscription(self.number, self._asked, self._faults.passed())

    def _deaf(self, stream: str) -> bool:
        return self._faults.sockets.deaf(self.number, stream, self._faults.passed())

    async def _drained(self) -> None:
        self._empty.clear()
        if self._waiting:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), DRAIN_S)

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                try:
                    # A malformed frame may hold a byte that no UTF-8 has; it is sent as it is.
                    raw = self._waiting[0].encode("utf-8", "surrogateescape")
                    await self._socket.send_frame(raw, WSMsgType.TEXT)
                except ConnectionError:
                    self._waiting.clear()
                    return
                if self._waiting:
                    self._waiting.popleft()
            self._empty.set()

    async def _keep_time(self) -> None:
        """Ping, watch the pongs, and end the connection when its life is over."""
        settings = self._settings
        interval_ms = settings.own(settings.ping_interval_ms, 180_000, 20_000)
        deadline_ms = settings.own(settings.pong_deadline_ms, 600_000, 60_000)
        born_ms = self.venue.now_ms()
        next_ping_ms = born_ms + interval_ms
        notice_ms = born_ms + settings.connection_life_ms - settings.shutdown_notice_ms
        life_ms = self._faults.sockets.life_ms(self.number, self._faults.passed())
        told = settings.shutdown_notice_ms == 0 or not settings.is_spot
        while True:
            await asyncio.sleep(DEADLINE_CHECK_S)
            now_ms = self.venue.now_ms()
            if any(now_ms - sent_ms > deadline_ms for sent_ms in self._unanswered.values()):
                await self.close(WSCloseCode.POLICY_VIOLATION, "Pong timeout")
                return
            if life_ms is not None and now_ms >= born_ms + life_ms:
                self.cut()
                return
            if now_ms >= born_ms + settings.connection_life_ms:
                await self.close(WSCloseCode.GOING_AWAY, "")
                return
            if not told and now_ms >= notice_ms:
                told = True
                raw = f'{{"e":"serverShutdown","E":{now_ms * self.unit}}}'
                self.deliver(f'{{"stream":"!serverShutdown","data":{raw}}}' if self.combined else raw)
            if now_ms >= next_ping_ms:
                next_ping_ms = now_ms + interval_ms
                payload = str(now_ms).encode()
                self._unanswered[payload] = now_ms
                with contextlib.suppress(ConnectionError):
                    await self._socket.ping(payload)
