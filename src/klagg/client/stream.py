"""The feed of a service, by server-sent events: opened again where it breaks, going on after the last event that came."""

import json
import threading
import time
from typing import Any, Final

from klagg.client.events import CutEvent, Event, event_of
from klagg.client.feed import Filter
from klagg.client.http import Refused, Service, Stream
from klagg.errors import ServiceError
from klagg.model import Market

SILENCE_S: Final = 15.0
"""A service that is there beats every 5 s: after so much silence the connection is given up."""
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0
"""Between attempts to open it again; each pause is twice the one before."""


class StreamedFeed:
    """`FeedSource` over a service."""

    def __init__(self, service: Service, market: Market) -> None:
        self._service = service
        self._market = market
        self._after: int | None = None
        self._query: dict[str, object] = {}
        self._stream: Stream | None = None
        self._buffer = b""
        self._data: list[str] = []
        self._pause_s = FIRST_PAUSE_S
        self._interrupted = threading.Event()

    def start(self, since: int | None, wanted: Filter) -> None:
        """As `FeedSource` says."""
        self._after = since
        named = {"symbols": wanted.symbols, "intervals": wanted.intervals, "kinds": wanted.kinds}
        self._query = {name: ",".join(sorted(words)) for name, words in named.items() if words}
        self._open()

    def _open(self) -> None:
        self.close()
        self._stream = self._service.stream(
            "/v1/feed", {"market": self._market.value, "since": self._after, **self._query}
        )
        self._buffer, self._data = b"", []

    def next(self, ends_s: float | None) -> list[Event] | None:
        """As `FeedSource` says."""
        if self._interrupted.is_set():
            return None
        left_s = None if ends_s is None else ends_s - time.monotonic()
        if left_s is not None and left_s <= 0:
            return None
        if self._stream is None:
            self._reopen(left_s)
            return []
        try:
            piece = self._stream.read(SILENCE_S if left_s is None else min(left_s, SILENCE_S))
        except ServiceError:
            piece = b""
        if not piece:
            self.close()
            return []
        return self._events(piece)

    def _reopen(self, left_s: float | None) -> None:
        self._interrupted.wait(self._pause_s if left_s is None else min(self._pause_s, left_s))
        if self._interrupted.is_set():
            return
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
        try:
            self._open()
        except Refused:
            raise
        except ServiceError:
            # It is expected back: a restart, a network that comes and goes.
            self._stream = None

    def _events(self, piece: bytes) -> list[Event]:
        *lines, self._buffer = (self._buffer + piece).split(b"\n")
        found: list[Event] = []
        for raw in lines:
            line = str(raw, "utf-8").rstrip("\r")
            if line.startswith("data:"):
                self._data.append(line.removeprefix("data:").removeprefix(" "))
            elif not line and self._data:
                told = json.loads("\n".join(self._data))
                self._data = []
                found += self._told(told)
        return found

    def _told(self, told: dict[str, Any]) -> list[Event]:
        kind = told.get("kind")
        self._pause_s = FIRST_PAUSE_S
        if kind in {"hello", "beat"}:
            # A beat tells up to where everything that is wanted has been sent.
            if self._after is None or kind == "beat":
                self._after = max(int(told["seq"]), self._after or 0)
            return []
        if kind == "cut":
            return self._cut(told)
        event = event_of(told) if "seq" in told else None
        if event is None or (self._after is not None and event.seq <= self._after):
            return []
        self._after = event.seq
        return [event]

    def _cut(self, told: dict[str, Any]) -> list[Event]:
        if "slow" in str(told.get("reason", "")):
            # Nothing is lost: it goes on from where it was cut.
            self.close()
            return []
        cut = CutEvent("cut", int(told["from_seq"]), int(told["to_seq"]), str(told.get("reason", "")))
        self._after = cut.to_seq
        return [cut]

    def interrupt(self) -> None:
        """As `FeedSource` says."""
        self._interrupted.set()
        if self._stream is not None:
            self._stream.interrupt()

    def close(self) -> None:
        """As `FeedSource` says."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
