"""The feed over a WebSocket: a reader whose bytes go to a connection, and the messages that it may send."""

import asyncio
from collections.abc import Mapping

import msgspec

from klagg.model import Market
from klagg.serve.feed.asked import Asked, asked
from klagg.serve.feed.feed import LOW_WAITING, Feed, Reader, Running
from klagg.serve.feed.filter import Filter, interval_filter, symbol_filter
from klagg.serve.feed.page import Form, as_frame
from klagg.serve.frames import CloseCode
from klagg.serve.gate import Wire
from klagg.serve.native.problem import Problem
from klagg.serve.source import Live


class _Subscribe(msgspec.Struct, forbid_unknown_fields=True):
    """What is asked for of running candles."""

    symbols: list[str] | None = None
    intervals: list[str] | None = None
    open: bool = True


class _Message(msgspec.Struct, forbid_unknown_fields=True):
    """A message of a client."""

    subscribe: _Subscribe


class FeedTalk:
    """`gate.Talk` of the feed, and the sink of its reader."""

    def __init__(self, feed: Feed, live: Live, wire: Wire, asked_for: Asked) -> None:
        self._feed = feed
        self._wire = wire
        self._market = asked_for.wanted.market or next(iter(live.markets), Market.USDM)
        self._room = asyncio.Event()
        self._reader = Reader(asked_for.wanted, self, full=asked_for.full)
        self._reader.running = Running(asked_for.wanted) if asked_for.with_running else None
        self._since = asked_for.since

    # gate.Talk

    def begin(self) -> None:
        """The handshake is done."""
        self._feed.join(self._reader, self._since)

    def take(self, text: bytes) -> None:
        """A message: another choice of running candles."""
        try:
            message = msgspec.json.decode(text, type=_Message)
            self._reader.running = self._chosen(message.subscribe)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._refuse(
                Problem("bad_message", 'Send {"subscribe": {"symbols": [...], "intervals": [...], "open": true}}.')
            )
        except Problem as problem:
            self._refuse(problem)

    def _chosen(self, subscribe: _Subscribe) -> Running | None:
        if not subscribe.open:
            return None
        symbols, globs = symbol_filter(",".join(subscribe.symbols or ()), self._market)
        intervals = interval_filter(",".join(subscribe.intervals or ()))
        return Running(Filter(self._reader.wanted.market, symbols, globs, intervals))

    def _refuse(self, problem: Problem) -> None:
        error = {"code": problem.code, "message": problem.message, "parameter": problem.parameter}
        self._reader.say({"kind": "error", "error": error})

    def gone(self) -> None:
        """The connection has ended."""
        self._feed.leave(self._reader)
        self._room.set()

    def has_room(self) -> None:
        """The connection has taken what was written."""
        self._room.set()

    # feed.Sink

    @property
    def form(self) -> Form:
        """Messages."""
        return as_frame

    @property
    def waiting(self) -> int:
        """Bytes that the connection has not taken."""
        return self._wire.waiting

    def write(self, data: bytes) -> None:
        """Send."""
        self._wire.send(data)

    async def drained(self) -> None:
        """Return when little waits."""
        while self._wire.waiting > LOW_WAITING:
            self._room.clear()
            await self._room.wait()

    def end(self, *, slow: bool) -> None:
        """Close."""
        code = CloseCode.READS_TOO_SLOWLY if slow else CloseCode.GOING_AWAY
        self._wire.close(code, "Reads too slowly" if slow else "Going away")


def feed_talk(feed: Feed, live: Live, wire: Wire, query: Mapping[str, str]) -> FeedTalk:
    """Let a connection in.

    Raises:
        Problem: it asks for what cannot be.

    """
    return FeedTalk(feed, live, wire, asked(live, query))
