"""The control language of the exchange's WebSockets, without a socket: a text in, an answer and a verdict out.

Errors are nested (`{"error":{…},"id":…}`), responses are never wrapped in a stream's envelope.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from klagg.model import Market

MAX_STREAMS: Final = 1_024
"""Streams of one connection, as on the exchange: one more is refused, and the connection closed."""
MAX_NAME: Final = 128
"""The longest stream name that is kept."""
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,36}", re.ASCII)
METHODS: Final = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")


@dataclass(frozen=True, slots=True)
class Reply:
    """What a request gets: a text, and the reason to close the connection afterwards if there is one."""

    text: bytes
    close_reason: str = ""


class _Refused(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(slots=True)
class Control:
    """The subscriptions and the properties of one connection.

    `added` and `removed` are told the names that are new or gone; every name is kept that was asked for, whether it delivers or not.
    """

    market: Market
    combined: bool
    added: Callable[[str], None]
    removed: Callable[[str], None]
    names: dict[str, None] = field(default_factory=dict)

    def subscribe(self, names: Iterable[str]) -> bool:
        """Add streams; false if they are more than a connection may have."""
        for name in names:
            if name in self.names:
                continue
            if len(self.names) >= MAX_STREAMS:
                return False
            self.names[name] = None
            self.added(name)
        return True

    def unsubscribe(self, names: Iterable[str]) -> None:
        """Remove streams; names that were never asked for are fine."""
        for name in names:
            if name in self.names:
                del self.names[name]
                self.removed(name)

    def answer(self, text: bytes) -> Reply:
        """Answer one request."""
        try:
            request = msgspec.json.decode(text)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return _error(3, "Invalid JSON: expected value at line 1 column 1", None)
        if not isinstance(request, dict):
            return _error(2, "Invalid request: invalid type, expected struct Request at line 1 column 1", None)
        request_id = request.get("id")
        if not self._may_be_id(request_id):
            kind = "an int64, alphanumeric string or null" if self.market is Market.SPOT else "an unsigned integer"
            return _error(2, f"Invalid request: request ID must be {kind}", None)
        try:
            result = self._perform(request, len(text))
        except _Refused as refused:
            return _error(refused.code, refused.message, request_id, "Invalid request" if refused.code == 4 else "")
        return Reply(msgspec.json.encode({"result": result, "id": request_id}))

    def _may_be_id(self, value: object) -> bool:
        if value is None:
            return True
        if isinstance(value, int) and not isinstance(value, bool):
            return value >= 0 or self.market is Market.SPOT
        # The exchange's own client sends UUIDs on both markets, whatever its pages say of numbers.
        return isinstance(value, str) and _ID.fullmatch(value) is not None

    def _perform(self, request: dict[str, Any], size: int) -> object:
        method, params = request.get("method"), request.get("params", [])
        if method is None:
            raise _Refused(2, f"Invalid request: missing field `method` at line 1 column {size}")
        if method not in METHODS:
            known = ", ".join(f"`{name}`" for name in METHODS)
            shown = str(method)[:MAX_NAME]
            raise _Refused(
                2, f"Invalid request: unknown variant `{shown}`, expected one of {known} at line 1 column {size}"
            )
        if not isinstance(params, list):
            raise _Refused(2, f"Invalid request: invalid type, expected a sequence at line 1 column {size}")
        if method == "LIST_SUBSCRIPTIONS":
            return list(self.names)
        if method in ("SET_PROPERTY", "GET_PROPERTY"):
            return self._property(method, params)
        if not all(isinstance(name, str) and len(name) <= MAX_NAME for name in params):
            raise _Refused(2, f"Invalid request: invalid type, expected a string at line 1 column {size}")
        if method == "UNSUBSCRIBE":
            self.unsubscribe(params)
        elif not self.subscribe(params):
            raise _Refused(4, "Too many subscriptions")
        return None

    def _property(self, method: str, params: list[Any]) -> bool | None:
        wanted = 2 if method == "SET_PROPERTY" else 1
        if len(params) != wanted:
            problem = "too many parameters" if len(params) > wanted else "missing parameter"
            raise _Refused(2, f"Invalid request: {problem}")
        if not isinstance(params[0], str):
            raise _Refused(2, "Invalid request: property name must be a string")
        if params[0] != "combined":
            raise _Refused(0, "Unknown property")
        if method == "GET_PROPERTY":
            return self.combined
        if not isinstance(params[1], bool):
            raise _Refused(1, "Invalid value type: expected Boolean")
        self.combined = params[1]
        return None


def _error(code: int, message: str, request_id: object, close_reason: str = "") -> Reply:
    return Reply(msgspec.json.encode({"error": {"code": code, "msg": message}, "id": request_id}), close_reason)
