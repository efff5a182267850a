"""A client's HTTP connection: uvicorn's, with an end for those that hold it without using it.

uvicorn waits for ever for a request that comes byte by byte, for a body that never ends, and for a client that does not read.
"""

import asyncio
import time
from typing import Final, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

ASK_S: Final = 20.0
"""How long a client may take for its request, from its connection or its first byte on."""
TAKE_S: Final = 30.0
"""How long a client may leave unread what was sent to it."""
REFUSED_S: Final = 5.0
"""How long a client that is refused may take to read so."""
_FULL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 49\r\nRetry-After: 5\r\n"
    b'Connection: close\r\n\r\n{"code":-1003,"msg":"Too many connections open."}'
)


class Connection(H11Protocol):
    """One connection; `keep_time` is called every few seconds."""

    _asks_since_s: float | None = None
    """Since when a request is on its way; None while one is answered, and while nothing is asked."""
    _stuck_since_s: float | None = None
    """Since when the client does not take what is there for it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, or refuse it at once."""
        super().connection_made(transport)
        self._asks_since_s = time.monotonic()
        assert self.limit_concurrency is not None
        if len(self.connections) >= self.limit_concurrency:
            # Not one of them: with all places taken, uvicorn refuses the requests of those that have one.
            self.connections.discard(self)
            transport.write(_FULL)
            transport.close()
            self.loop.call_later(REFUSED_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        """A piece of a request."""
        if self._asks_since_s is None and not self._is_answering:
            self._asks_since_s = time.monotonic()
        super().data_received(data)
        if self._is_answering:
            self._asks_since_s = None

    def pause_writing(self) -> None:
        """The client does not read as fast as it is answered."""
        self._stuck_since_s = time.monotonic()
        super().pause_writing()

    def resume_writing(self) -> None:
        """It has read."""
        self._stuck_since_s = None
        super().resume_writing()

    @property
    def _is_answering(self) -> bool:
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return cycle is not None and not cycle.response_complete

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP: with words where an answer has not begun yet."""
        if self._is_answering:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.abort()

    def keep_time(self, now_s: float) -> None:
        """End it where the client holds it without using it."""
        if self.transport.is_closing() and self._stuck_since_s is None:
            self._stuck_since_s = now_s
        if self._stuck_since_s is not None and now_s - self._stuck_since_s > TAKE_S:
            self.transport.abort()
        elif self._asks_since_s is not None and now_s - self._asks_since_s > ASK_S:
            self._asks_since_s = None
            self.send_400_response("The request did not come in time.")
