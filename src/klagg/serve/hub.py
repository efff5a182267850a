"""Who listens to what. A push is encoded and framed once per stream, and each listener gets one write per push."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from klagg.model import Market
from klagg.serve.frames import frame
from klagg.serve.streams import Kind, Stream


class Listener(Protocol):
    """A connection that streams are pushed to."""

    @property
    def combined(self) -> bool:
        """Whether payloads are wrapped with their stream's name."""
        ...

    def push(self, frames: bytes) -> None:
        """Send framed bytes, or cut a listener that does not read."""
        ...


@dataclass(slots=True, eq=False)
class Channel:
    """One stream of a market with its listeners; `unit` is 1000 where times are in microseconds."""

    market: Market
    name: str
    unit: int
    stream: Stream
    listeners: set[Listener] = field(default_factory=set)
    _audience: frozenset[Listener] | None = None
    pushed: tuple[int, ...] = ()
    """What the last push of a running candle held: its minute's open, trades, close and last id."""
    told: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """What the last mini-ticker of a symbol held: its last id and price."""
    upto_ms: int = 0
    """Of a folded frame: every candle that ended by then has been pushed or was over before anybody listened."""

    def add(self, listener: Listener) -> None:
        """It listens."""
        self.listeners.add(listener)
        self._audience = None

    def remove(self, listener: Listener) -> None:
        """It does not listen any more."""
        self.listeners.discard(listener)
        self._audience = None

    @property
    def audience(self) -> frozenset[Listener]:
        """Its listeners as a key, kept until one comes or goes."""
        if self._audience is None:
            self._audience = frozenset(self.listeners)
        return self._audience

    def envelope(self, payload: bytes) -> bytes:
        """The payload as a combined stream has it."""
        return b'{"stream":"%s","data":%s}' % (self.name.encode(), payload)


class Hub:
    """The streams that somebody listens to, by market."""

    def __init__(self, markets: Iterable[Market] = Market) -> None:
        self._channels: dict[Market, dict[tuple[str, int], Channel]] = {market: {} for market in markets}
        self.changes = 0
        """Grows whenever a stream gets its first listener or loses its last."""

    def add(self, market: Market, name: str, stream: Stream, listener: Listener, unit: int = 1) -> None:
        """Subscribe a listener."""
        channels = self._channels[market]
        channel = channels.get((name, unit))
        if channel is None:
            channel = channels[name, unit] = Channel(market, name, unit, stream)
            self.changes += 1
        channel.add(listener)

    def remove(self, market: Market, name: str, listener: Listener, unit: int = 1) -> None:
        """Unsubscribe it; a stream nobody listens to is forgotten."""
        channel = self._channels[market].get((name, unit))
        if channel is None:
            return
        channel.remove(listener)
        if not channel.listeners:
            del self._channels[market][name, unit]
            self.changes += 1

    def channels(self, market: Market, *kinds: Kind) -> list[Channel]:
        """The streams of these kinds that have listeners."""
        return [channel for channel in self._channels[market].values() if channel.stream.kind in kinds]

    @property
    def streams(self) -> int:
        """How many streams have listeners."""
        return sum(map(len, self._channels.values()))


class Push:
    """What is pushed together: gather with `put`, then `send` once.

    Most clients want the same as others, so that what is done for each payload is done once for each group of streams that have the
    same listeners.
    """

    def __init__(self) -> None:
        self._groups: dict[frozenset[Listener], list[tuple[Channel, bytes]]] = {}

    def put(self, channel: Channel, payload: bytes) -> None:
        """One payload for everybody who listens to a stream."""
        group = self._groups.get(channel.audience)
        if group is None:
            self._groups[channel.audience] = [(channel, payload)]
        else:
            group.append((channel, payload))

    def writes(self) -> Iterator[tuple[Listener, bytes]]:
        """What each listener gets, as one piece; those that want the same get the very same bytes."""
        pieces: dict[Listener, list[bytes]] = {}
        for listeners, group in self._groups.items():
            raw = wrapped = b""
            for listener in listeners:
                if listener.combined:
                    wrapped = wrapped or b"".join([frame(channel.envelope(payload)) for channel, payload in group])
                else:
                    raw = raw or b"".join([frame(payload) for _, payload in group])
                pieces.setdefault(listener, []).append(wrapped if listener.combined else raw)
        self._groups.clear()
        same: dict[tuple[int, ...], bytes] = {}
        for listener, parts in pieces.items():
            key = tuple(map(id, parts)) if len(parts) > 1 else ()
            data = same.get(key) if key else parts[0]
            if data is None:
                data = same[key] = b"".join(parts)
            yield listener, data

    def send(self) -> None:
        """One write for each listener."""
        for listener, data in self.writes():
            listener.push(data)
