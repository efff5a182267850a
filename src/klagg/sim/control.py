"""The WebSocket's control language, without a socket: a text comes in, an answer and a verdict come out.

Protocol: BINANCE.md section 2.1. Errors are nested on the wire, responses are never wrapped.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from klagg.sim.hub import Hub, Listener
from klagg.sim.streams import Route, parse_stream

METHODS: Final = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request gets: a frame to send, and the reason to close the connection afterwards, if there is one."""

    text: str
    close_reason: str = ""


class _Refused(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(slots=True)
class Control:
    """The subscriptions and properties of one connection."""

    hub: Hub
    listener: Listener
    route: Route
    max_streams: int
    deaf: Callable[[str], bool] = lambda _: False
    """Whether a stream is acknowledged and never delivers."""
    names: dict[str, None] = field(default_factory=dict)
    """Every name that was asked for, in order, whether it delivers or not."""

    def subscribe(self, names: list[str]) -> bool:
        """Add streams; false if they are more than a connection may have."""
        for name in names:
            if name in self.names:
                continue
            if len(self.names) >= self.max_streams:
                return False
            self.names[name] = None
            stream = parse_stream(name, self.route)
            if stream is not None and not self.deaf(name):
                self.hub.add(name, stream, self.listener)
        return True

    def unsubscribe(self, names: list[str]) -> None:
        """Remove streams; names that were never asked for are fine."""
        for name in names:
            self.names.pop(name, None)
            self.hub.remove(name, self.listener)

    def leave(self) -> None:
        """The connection is gone."""
        self.unsubscribe(list(self.names))

    def answer(self, text: str) -> Answer:
        """Answer one request."""
        try:
            request = json.loads(text)
        except ValueError as error:
            where = f"at line {getattr(error, 'lineno', 1)} column {getattr(error, 'colno', 1)}"
            return Answer(_error(3, f"Invalid JSON: expected value {where}", None))
        if not isinstance(request, dict):
            return Answer(_error(2, "Invalid request: invalid type, expected struct Request at line 1 column 1", None))
        request_id = request.get("id")
        try:
            self._check_id(request_id)
            result = self._perform(request, text)
        except _Refused as refused:
            close = "Invalid request" if refused.code == 4 else ""
            return Answer(_error(refused.code, refused.message, request_id), close)
        return Answer(json.dumps({"result": result, "id": request_id}, ensure_ascii=False, separators=(",", ":")))

    def _check_id(self, request_id: object) -> None:
        whole = isinstance(request_id, int) and not isinstance(request_id, bool)
        if request_id is None or (whole and isinstance(request_id, int) and request_id >= 0):
            return
        if self.route is Route.SPOT and (
            whole or (isinstance(request_id, str) and len(request_id) <= 36 and request_id.isalnum())
        ):
            return
        kind = "an int64, alphanumeric string or null" if self.route is Route.SPOT else "an unsigned integer"
        raise _Refused(2, f"Invalid request: request ID must be {kind}")

    def _perform(self, request: dict[str, Any], text: str) -> Any:  # noqa: ANN401 - whatever JSON the method answers
        method, params = request.get("method"), request.get("params", [])
        if method is None:
            raise _Refused(2, f"Invalid request: missing field `method` at line 1 column {len(text)}")
        if method not in METHODS:
            known = ", ".join(f"`{known}`" for known in METHODS)
            raise _Refused(
                2, f"Invalid request: unknown variant `{method}`, expected one of {known} at line 1 column {len(text)}"
            )
        if not isinstance(params, list):
            raise _Refused(2, f"Invalid request: invalid type, expected a sequence at line 1 column {len(text)}")
        if method in ("SUBSCRIBE", "UNSUBSCRIBE"):
            if not all(isinstance(name, str) for name in params):
                raise _Refused(2, f"Invalid request: invalid type, expected a string at line 1 column {len(text)}")
            if method == "UNSUBSCRIBE":
                self.unsubscribe(params)
            elif not self.subscribe(params):
                raise _Refused(4, "Too many subscriptions")
            return None
        if method == "LIST_SUBSCRIPTIONS":
            return list(self.names)
        return self._property(method, params)

    def _property(self, method: str, params: list[Any]) -> bool | None:
        expected = 2 if method == "SET_PROPERTY" else 1
        if len(params) != expected:
            raise _Refused(
                2,
                "Invalid request: too many parameters"
                if len(params) > expected
                else "Invalid request: missing parameter",
            )
        if not isinstance(params[0], str):
            raise _Refused(2, "Invalid request: property name must be a string")
        if params[0] != "combined":
            raise _Refused(0, "Unknown property")
        if method == "GET_PROPERTY":
            return self.listener.combined
        if not isinstance(params[1], bool):
            raise _Refused(1, "Invalid value type: expected Boolean")
        self.listener.combined = params[1]
        return None


def _error(code: int, message: str, request_id: object) -> str:
    body = {"error": {"code": code, "msg": message}, "id": request_id}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))
