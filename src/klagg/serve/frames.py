"""WebSocket frames (RFC 6455) without a socket: bytes in, messages out, and the server's frames as bytes.

Small and our own because of the other direction: a push is framed once, and every client that wants it gets the same bytes.
"""

import base64
import binascii
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

MAX_MESSAGE: Final = 64 * 1024
"""The largest message a client may send: 1,024 long stream names. A larger one ends the connection."""
MAX_FRAGMENTS: Final = 256
"""Fragments of one message: empty ones would cost memory without ever filling it."""
MAX_CONTROL: Final = 125
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Opcode(IntEnum):
    """The kinds of frames."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class CloseCode(IntEnum):
    """Why a connection is closed."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    INVALID_DATA = 1007
    POLICY = 1008
    TOO_BIG = 1009
    READS_TOO_SLOWLY = 4008
    """klagg's own, of the feed: the reader was told where it was cut, and goes on from there."""


class ProtocolError(Exception):
    """The client broke the protocol: the code and reason to close with."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Message:
    """A whole message, or a control frame."""

    opcode: Opcode
    payload: bytes


def accept_token(key: str) -> str | None:
    """The answer to `Sec-WebSocket-Key`; None for a key that is none."""
    try:
        if len(base64.b64decode(key, validate=True)) != 16:
            return None
    except (binascii.Error, ValueError):
        return None
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()


def frame(payload: bytes, opcode: Opcode = Opcode.TEXT) -> bytes:
    """A whole message as the server sends it."""
    size = len(payload)
    first = 0x80 | opcode
    if size < 126:
        return bytes((first, size)) + payload
    if size < 1 << 16:
        return bytes((first, 126)) + size.to_bytes(2, "big") + payload
    return bytes((first, 127)) + size.to_bytes(8, "big") + payload


def close_frame(code: CloseCode, reason: str = "") -> bytes:
    """A close frame."""
    return frame(code.to_bytes(2, "big") + reason.encode()[: MAX_CONTROL - 2], Opcode.CLOSE)


class Reader:
    """The client's frames, put together to messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._parts: list[bytes] = []
        self._size = 0
        self._kind: Opcode | None = None

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that are complete with these bytes.

        Raises:
            ProtocolError: the connection must be closed.

        """
        self._buffer += data
        while True:
            found = self._next()
            if found is None:
                return
            final, opcode, payload = found
            message = self._assembled(final, opcode, payload)
            if message is not None:
                yield message

    def _next(self) -> tuple[bool, Opcode, bytes] | None:
        """The next whole frame, if it is there."""
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        final, kind, masked, size = bool(buffer[0] & 0x80), buffer[0] & 0x0F, bool(buffer[1] & 0x80), buffer[1] & 0x7F
        if buffer[0] & 0x70 or not masked:
            raise ProtocolError(CloseCode.PROTOCOL_ERROR, "reserved bits" if masked else "frame is not masked")
        try:
            opcode = Opcode(kind)
        except ValueError:
            raise ProtocolError(CloseCode.PROTOCOL_ERROR, "unknown opcode") from None
        if opcode >= Opcode.CLOSE and (size > MAX_CONTROL or not final):
            raise ProtocolError(CloseCode.PROTOCOL_ERROR, "control frame too long or fragmented")
        start = 2
        if size >= 126:
            start += 2 if size == 126 else 8
            if len(buffer) < start:
                return None
            size = int.from_bytes(buffer[2:start], "big")
        if size + self._size > MAX_MESSAGE or len(self._parts) >= MAX_FRAGMENTS:
            raise ProtocolError(CloseCode.TOO_BIG, "message too big")
        end = start + 4 + size
        if len(buffer) < end:
            return None
        payload = _unmasked(bytes(buffer[start + 4 : end]), bytes(buffer[start : start + 4]))
        del buffer[:end]
        return final, opcode, payload

    def _assembled(self, final: bool, opcode: Opcode, payload: bytes) -> Message | None:
        if opcode >= Opcode.CLOSE:
            return Message(opcode, payload)
        if (opcode is Opcode.CONTINUATION) != (self._kind is not None):
            raise ProtocolError(CloseCode.PROTOCOL_ERROR, "fragments out of order")
        if self._kind is None:
            self._kind = opcode
        self._parts.append(payload)
        self._size += len(payload)
        if not final:
            return None
        message = Message(self._kind, b"".join(self._parts))
        self._parts, self._size, self._kind = [], 0, None
        return message


def _unmasked(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")
