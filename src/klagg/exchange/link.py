"""One WebSocket connection: it sends subscriptions at the pace the exchange allows and sorts what comes in.

A link decides nothing: it records what happened (acknowledged, data, ping unanswered, lost) and the lane that owns it judges.
"""

import itertools
import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec
import structlog
from picows import WSCloseCode, WSError, WSFrame, WSHandshakeError, WSListener, WSMsgType, WSTransport
from python_socks import ProxyError

from klagg.clock import Clock
from klagg.exchange.settings import StreamSettings
from klagg.exchange.transport import MAX_FRAME_BYTES, Connect

log = structlog.get_logger()

REFUSED_FLOOR_S: Final = {403: 60.0, 418: 120.0, 429: 60.0, 451: 60.0}
"""The least wait after a refused handshake: 403 is a firewall's, which forgets after minutes."""
LONGEST_RETRY_AFTER_S: Final = 3_600.0

_ids = itertools.count(1)


class LinkFailed(Exception):
    """A connection could not be opened; `floor_s` is the least wait before the next attempt."""

    def __init__(self, reason: str, floor_s: float = 0.0, status: int = 0) -> None:
        super().__init__(reason)
        self.floor_s = floor_s
        self.status = status


@dataclass(slots=True)
class _Request:
    """One SUBSCRIBE or UNSUBSCRIBE: its stream names by key."""

    method: str
    names: dict[str, tuple[str, ...]]
    number: int = field(default_factory=lambda: next(_ids))
    sent_ns: int = 0


class _Answer(msgspec.Struct):
    """An answer to a request; errors come nested, or flat as the documents print them."""

    id: int | str | None = None
    error: dict[str, object] | None = None
    code: int | None = None
    msg: str = ""


_ANSWER: Final = msgspec.json.Decoder(_Answer)


class Link(WSListener):
    """One connection, opened once and never reopened.

    Args:
        settings: the limits of the market.
        clock: the host clock.
        now_ms: exchange time.
        message: called with every message of a subscribed stream and when it came.
        changed: called when the owner should look: acknowledged, sighted, lost.
        connect: opens the socket.
        rng: for the jitter of the renewal.
    """

    def __init__(
        self,
        settings: StreamSettings,
        *,
        clock: Clock,
        now_ms: Callable[[], int],
        message: Callable[[bytes, int], None],
        sighted: Callable[[frozenset[str], int], None],
        changed: Callable[[], None],
        connect: Connect,
        rng: random.Random,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._now_ms = now_ms
        self._message = message
        self._sighted = sighted
        self._changed = changed
        self._connect = connect
        self._transport: WSTransport | None = None
        self._queue: deque[_Request] = deque()
        self._asked: dict[int, _Request] = {}
        self._unproven: set[str] = set()
        self._parts: bytearray | None = None
        """The beginning of a message that comes in several frames."""
        self._burst_ms = 0
        self._send_after_ns = 0
        self._heartbeat = settings.heartbeat_mark
        self.opened_ns = clock.monotonic_ns()
        self.renew_at_ns = self.opened_ns + int(settings.renew_after_s * rng.uniform(0.95, 1.0) * 1e9)
        self.sighted: set[str] = set()
        """Keys whose subscription was acknowledged, with data on this connection afterwards."""
        self.refused: set[str] = set()
        """Keys that the exchange refused by name."""
        self.lost = ""
        """Why it is lost; "" while it is open."""
        self.shutdown_announced = False
        self.messages = 0
        """Messages of subscribed streams, heartbeats aside."""
        self.last_frame_ns = self.opened_ns
        self.last_data_ms = 0
        """Exchange time of the last data of any kind, 0 for none yet."""
        self.last_message_ns = 0
        self.last_message_ms = 0
        self.heartbeat_ns = 0
        self.acknowledged_ns = 0
        self.pinged_ns = 0

    # Opening and closing

    async def open(self, url: str) -> None:
        """Shake hands.

        Raises:
            LinkFailed: in few words why not.
        """
        try:
            await self._connect(self, url)
        except WSHandshakeError as error:
            raise _refused(error) from error
        except TimeoutError as error:
            raise LinkFailed("timed out") from error
        except (WSError, ProxyError, OSError) as error:
            raise LinkFailed(" ".join(str(error).split())[:200] or type(error).__name__) from error
        if self._transport is None:
            # picows returns as if all were well when the connection ends before the handshake is answered.
            raise LinkFailed("the connection ended during the handshake")

    def close(self) -> None:
        """Hang up; nothing more is taken in."""
        self._message = _ignore
        self._sighted = _ignore
        self._changed = _nothing
        self.lost = self.lost or "closed"
        if self._transport is not None:
            if not self._transport.is_disconnected and not self._transport.is_close_frame_sent:
                self._transport.send_close(WSCloseCode.OK)
            self._transport.disconnect(graceful=False)

    # Requests

    def subscribe(self, names: Mapping[str, tuple[str, ...]]) -> None:
        """Queue subscriptions of stream names by key, in batches."""
        self._enqueue("SUBSCRIBE", names)

    def unsubscribe(self, names: Mapping[str, tuple[str, ...]]) -> None:
        """Queue the end of subscriptions; the keys are out of sight at once."""
        self.sighted.difference_update(names)
        self._unproven.difference_update(names)
        self._enqueue("UNSUBSCRIBE", names)

    def _enqueue(self, method: str, names: Mapping[str, tuple[str, ...]]) -> None:
        batch: dict[str, tuple[str, ...]] = {}
        count = 0
        for key, streams in names.items():
            if batch and count + len(streams) > self._settings.names_per_request:
                self._queue.append(_Request(method, batch))
                batch, count = {}, 0
            batch[key] = streams
            count += len(streams)
        if batch:
            self._queue.append(_Request(method, batch))

    def pump(self) -> float:
        """Send the next request if its time has come; the seconds until the one after, infinite if none waits."""
        now_ns = self._clock.monotonic_ns()
        if self._queue and now_ns >= self._send_after_ns and self._transport is not None and not self.lost:
            request = self._queue.popleft()
            request.sent_ns = now_ns
            self._asked[request.number] = request
            params = [name for names in request.names.values() for name in names]
            body = {"method": request.method, "params": params, "id": request.number}
            self._transport.send(WSMsgType.TEXT, msgspec.json.encode(body))
            self._send_after_ns = now_ns + int(self._settings.request_spacing_s * 1e9)
        return max(0.0, (self._send_after_ns - now_ns) / 1e9) if self._queue else float("inf")

    def ping(self) -> None:
        """Ask for a sign of life."""
        if self._transport is not None and not self.pinged_ns:
            self.pinged_ns = self._clock.monotonic_ns()
            self._transport.send_ping(b"klagg")

    def unanswered_ns(self) -> int:
        """How long the oldest request has waited for its answer."""
        oldest = min((request.sent_ns for request in self._asked.values()), default=0)
        return self._clock.monotonic_ns() - oldest if oldest else 0

    def excuse_silence(self) -> None:
        """The process itself stood still: whatever looks silent has only not been read."""
        self.last_frame_ns = self._clock.monotonic_ns()
        self.pinged_ns = 0
        for request in self._asked.values():
            request.sent_ns = self.last_frame_ns

    # What picows tells

    def on_ws_connected(self, transport: WSTransport) -> None:
        """The handshake is done."""
        self._transport = transport

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """The socket is gone, with or without a close frame."""
        if transport.is_close_frame_sent:
            # Only picows closes without our asking: a frame above the bound, or none that the protocol knows.
            self._lose(f"a frame larger than {MAX_FRAME_BYTES} bytes, or against the protocol")
        self._lose("connection lost without a close frame")

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """A frame came; picows answers the server's pings with their payload by itself."""
        if not self._burst_ms:
            # One reading of the clocks serves all frames of one read.
            self._burst_ms = self._now_ms()
            self.last_frame_ns = self._clock.monotonic_ns()
            self.pinged_ns = 0
        kind = frame.msg_type
        if kind is WSMsgType.TEXT or kind is WSMsgType.BINARY or kind is WSMsgType.CONTINUATION:
            payload = frame.get_payload_as_bytes()
            if not frame.fin or self._parts is not None:
                payload = self._whole(transport, payload, is_last=frame.fin)
            if payload:
                self._take(payload, self._burst_ms)
        elif kind is WSMsgType.CLOSE:
            reason = (frame.get_close_message() or b"").decode("utf-8", "replace")
            self._lose(f"closed by the exchange ({frame.get_close_code()} {reason}".rstrip() + ")")
            transport.disconnect()
        if frame.last_in_buffer:
            self._burst_ms = 0

    def _whole(self, transport: WSTransport, payload: bytes, *, is_last: bool) -> bytes:
        """The message that these frames make, once the last is there; a message above the bound of a frame ends the connection."""
        if self.lost:
            return b""
        parts = bytearray() if self._parts is None else self._parts
        parts += payload
        self._parts = None if is_last else parts
        if len(parts) > MAX_FRAME_BYTES:
            self._parts = None
            self._lose(f"a message larger than {MAX_FRAME_BYTES} bytes")
            transport.send_close(WSCloseCode.MESSAGE_TOO_BIG)
            transport.disconnect(graceful=False)
            return b""
        return bytes(parts) if is_last else b""

    def _take(self, payload: bytes, recv_ms: int) -> None:
        if self._asked and b'"id"' in payload and b'"e":' not in payload:
            self._answered(payload)
            return
        if self._heartbeat and payload.find(self._heartbeat, 0, 96) >= 0:
            self.heartbeat_ns = self.last_frame_ns
        elif payload.find(b"serverShutdown", 0, 64) >= 0:
            log.info("stream.shutdown_announced")
            self.shutdown_announced = True
            self._changed()
            return
        else:
            self.messages += 1
            self.last_message_ns = self.last_frame_ns
            self.last_message_ms = recv_ms
            self._message(payload, recv_ms)
        self.last_data_ms = recv_ms
        if self._unproven:
            proven, self._unproven = frozenset(self._unproven), set()
            self.sighted |= proven
            self._sighted(proven, recv_ms)
            self._changed()

    def _answered(self, payload: bytes) -> None:
        try:
            answer = _ANSWER.decode(payload)
        except msgspec.MsgspecError:
            log.warning("stream.answer_unreadable", payload=payload[:200].decode("utf-8", "replace"))
            return
        request = self._asked.pop(answer.id, None) if isinstance(answer.id, int) else None
        error = answer.error or ({"code": answer.code, "msg": answer.msg} if answer.code is not None else None)
        if request is not None and error is None:
            self.acknowledged_ns = self.last_frame_ns
            if request.method == "SUBSCRIBE":
                self._unproven.update(request.names)
        elif error is not None:
            log.warning("stream.request_refused", code=error.get("code"), reason=str(error.get("msg", ""))[:200])
            if request is not None and request.method == "SUBSCRIBE":
                self._narrow(request)
        self._changed()

    def _narrow(self, request: _Request) -> None:
        """Halve a refused batch until the name at fault stands alone; the others are not to suffer for it."""
        keys = list(request.names)
        if len(keys) == 1:
            self.refused.update(keys)
            log.error("stream.symbol_refused", key=keys[0])
            return
        for part in (keys[: len(keys) // 2], keys[len(keys) // 2 :]):
            self._queue.append(_Request("SUBSCRIBE", {key: request.names[key] for key in part}))

    def _lose(self, reason: str) -> None:
        if not self.lost:
            self.lost = reason
            self._changed()


def _refused(error: WSHandshakeError) -> LinkFailed:
    response = error.response
    if response is None:
        return LinkFailed(" ".join(str(error).split())[:200])
    status = int(response.status)
    retry_after = response.headers.get("Retry-After", "")
    floor_s = (
        float(retry_after) if retry_after.isascii() and retry_after.isdigit() else REFUSED_FLOOR_S.get(status, 0.0)
    )
    return LinkFailed(f"handshake refused with HTTP {status}", min(floor_s, LONGEST_RETRY_AFTER_S), status)


def _ignore(*_: object) -> None:
    pass


def _nothing() -> None:
    pass
