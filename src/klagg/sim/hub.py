"""Who listens to what: streams and the connections subscribed to them."""

from collections.abc import Callable
from typing import Protocol

from klagg.sim.streams import Stream


class Listener(Protocol):
    """A connection that streams are published to."""

    unit: int
    """1 for times in milliseconds, 1000 for microseconds."""
    combined: bool
    """Whether payloads are wrapped with their stream's name."""

    def deliver(self, text: str) -> None:
        """Send a frame."""


class Hub:
    """The streams that have listeners; `harm` says what becomes of a stream's next frame, if anything."""

    def __init__(self, harm: Callable[[str], Callable[[str], list[str]] | None] = lambda _: None) -> None:
        self._harm = harm
        self._listeners: dict[str, set[Listener]] = {}
        self._streams: dict[str, Stream] = {}

    def add(self, name: str, stream: Stream, listener: Listener) -> None:
        """Subscribe a connection."""
        self._listeners.setdefault(name, set()).add(listener)
        self._streams[name] = stream

    def remove(self, name: str, listener: Listener) -> None:
        """Unsubscribe it; a stream nobody listens to is forgotten."""
        listeners = self._listeners.get(name)
        if listeners is None:
            return
        listeners.discard(listener)
        if not listeners:
            del self._listeners[name], self._streams[name]

    def heard(self, name: str) -> bool:
        """Whether anybody listens."""
        return name in self._listeners

    def named(self, kind: str) -> list[tuple[str, Stream]]:
        """The streams of a kind that have listeners."""
        return [(name, stream) for name, stream in self._streams.items() if stream.kind == kind]

    def publish(self, name: str, render: Callable[[int], str]) -> None:
        """Send what `render(unit)` writes to all listeners of a stream."""
        listeners = self._listeners.get(name)
        if not listeners:
            return
        harm = self._harm(name)
        raw: dict[int, str] = {}
        for listener in tuple(listeners):
            text = raw.get(listener.unit)
            if text is None:
                text = raw[listener.unit] = render(listener.unit)
            frame = f'{{"stream":"{name}","data":{text}}}' if listener.combined else text
            for sent in (frame,) if harm is None else harm(frame):
                listener.deliver(sent)
