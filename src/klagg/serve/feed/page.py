"""A page of the event log, encoded once for all who read it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntFlag
from typing import Final

from klagg.model import Market
from klagg.serve.events import quoted
from klagg.serve.frames import frame


class Told(IntFlag):
    """What an event tells; a candle may be closed, or changed, and verified in one."""

    CANDLE_CLOSED = 1
    CANDLE_REVISED = 2
    CANDLE_VERIFIED = 4
    BARRIER_DURABLE = 8
    BARRIER_VERIFIED = 16
    SYMBOL_ADDED = 32
    SYMBOL_RETIRED = 64
    GAP = 128

    @property
    def first(self) -> str:
        """The name of what is told first, as events have it."""
        lowest = self.value & -self.value
        return str(Told(lowest).name).lower()


CANDLE: Final = Told.CANDLE_CLOSED | Told.CANDLE_REVISED | Told.CANDLE_VERIFIED
KINDS: Final = {str(kind.name).lower(): kind for kind in Told}
GROUPS: Final = {
    "candle": CANDLE,
    "barrier": Told.BARRIER_DURABLE | Told.BARRIER_VERIFIED,
    "symbol": Told.SYMBOL_ADDED | Told.SYMBOL_RETIRED,
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One event: what a filter looks at, and its JSON without the last brace. `symbol` "" is of all, `interval` "" of no candle."""

    seq: int
    market: Market
    told: Told
    symbol: str
    interval: str
    text: str
    candle: str | None = None
    """The candle as JSON, where it was asked for and is still there."""

    @property
    def plain(self) -> bytes:
        """The event."""
        return f"{self.text}}}".encode()

    @property
    def full(self) -> bytes:
        """The event with its candle."""
        return self.plain if self.candle is None else f'{self.text},"candle":{self.candle}}}'.encode()


def opening(seq: int, at_ms: int, market: Market, told: Told) -> str:
    """The part that all events have."""
    return f'{{"seq":{seq},"at_ms":{at_ms},"market":"{market.value}","kind":"{told.first}"'


def candle_fields(symbol: str, interval: str, open_ms: int, revision: int, told: Told) -> str:
    """What events of candles have besides."""
    verified = "true" if told & Told.CANDLE_VERIFIED else "false"
    return (
        f',"symbol":{quoted(symbol)},"interval":"{interval}","open_time_ms":{open_ms},"revision":{revision},'
        f'"verified":{verified}'
    )


def as_frame(_: int, payload: bytes) -> bytes:
    """An event as a WebSocket message."""
    return frame(payload)


def as_sse(seq: int, payload: bytes) -> bytes:
    """An event as server-sent events have it; 0 for what has no number."""
    return b"id: %d\ndata: %s\n\n" % (seq, payload) if seq else b"data: %s\n\n" % payload


Form = Callable[[int, bytes], bytes]
"""How a payload with a sequence number goes over the wire."""


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """The events after `after_seq` up to and including `upto_seq`; `oldest_seq` and `newest_seq` are the log's ends.

    `full`: whether the entries hold their candles.
    """

    after_seq: int
    upto_seq: int
    oldest_seq: int
    newest_seq: int
    entries: Sequence[Entry]
    full: bool
    _encoded: dict[tuple[Form, bool], list[bytes]] = field(default_factory=dict)
    _by_symbol: dict[str, list[int]] = field(default_factory=dict)

    @property
    def lost(self) -> tuple[int, int] | None:
        """The first and the last number that were asked for and are no longer kept."""
        return (self.after_seq + 1, self.oldest_seq - 1) if self.after_seq + 1 < self.oldest_seq else None

    def encoded(self, form: Form, *, full: bool) -> list[bytes]:
        """Every event in a form, made once."""
        found = self._encoded.get((form, full))
        if found is None:
            found = [form(entry.seq, entry.full if full else entry.plain) for entry in self.entries]
            self._encoded[form, full] = found
        return found

    def by_symbol(self) -> dict[str, list[int]]:
        """The places of each symbol's events, made once."""
        if not self._by_symbol:
            for place, entry in enumerate(self.entries):
                self._by_symbol.setdefault(entry.symbol, []).append(place)
        return self._by_symbol
