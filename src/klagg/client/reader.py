"""A reader: everything that can be asked, whether a database answers or a service."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import aclosing
from types import TracebackType
from typing import Final, Self

from klagg.client.asked import Asked, Time, Unmatched, Verified, asked, feed_filter, time_ms
from klagg.client.events import BarrierEvent, Kind
from klagg.client.facts import Barrier, Gap, Status, Symbol
from klagg.client.feed import Feed, FeedSource
from klagg.client.frame import Candles
from klagg.errors import BarrierTimeout
from klagg.export import Numbers, iso
from klagg.model import Market

BARRIERS: Final = 1_000
"""So many of the newest barriers are looked through for one that has passed."""


class Reader(ABC):
    """Reads the candles of one market, its symbols, its state, and the feed.

    `klagg.open` makes it. One thread at a time may use it; iterators of the feed have connections of their own. It is a context
    manager: `close` gives its connection back.
    """

    @property
    @abstractmethod
    def market(self) -> Market:
        """The market that is read."""

    def candles(
        self,
        symbols: str | Iterable[str],
        intervals: str | Iterable[str] = "1m",
        start: Time | None = None,
        end: Time | None = None,
        *,
        at: Time | None = None,
        limit: int | None = None,
        as_of: Time | None = None,
        tz: str | None = None,
        verified: Verified = "any",
        unmatched: Unmatched = "keep",
        numbers: Numbers = "float64",
    ) -> Candles:
        """The closed candles of these symbols and intervals that open in `[start, end)`; without bounds all of them.

        Args:
            symbols: names, ccxt's names, globs such as `*USDT`, `*` for all; with commas or as an iterable.
            intervals: likewise; any length of minutes, hours, days or weeks, folded where it is not kept.
            start: the first instant at which a candle may open: ms, a datetime, or text such as `2025-07-30` or `-7d`.
            end: the first at which none may open any more.
            at: instead: of each series the candle that contains this instant, as far as it has closed.
            limit: only the newest of each series, so many.
            as_of: only what was known at that instant, as it was known then.
            tz: where days are cut, as an offset: `+08:00`.
            verified: `only` leaves out what is not verified.
            unmatched: `drop` leaves out candles that the exchange does not have.
            numbers: prices and volumes as the nearest `float64`, as exact `decimal128(38, 18)`, or as text.

        Raises:
            UsageError: an unknown symbol or interval, a range that is empty.
            NumberError: a number that `decimal128(38, 18)` cannot hold.
            StoreError: the database cannot be read.
            ServiceError: the service cannot be reached.

        """
        options = {"verified": verified, "unmatched": unmatched, "numbers": numbers}
        question = asked(
            symbols,
            intervals,
            start,
            end,
            at=at,
            limit=limit,
            as_of=as_of,
            tz=tz,
            **options,  # type: ignore[arg-type]
        )
        return self._candles(question)

    def symbols(self, at: Time | None = None) -> list[Symbol]:
        """The symbols of the market by name: now, retired ones among them, or as the exchange listed them at an instant."""
        found = self._symbols(None if at is None else time_ms(at))
        return sorted(found, key=lambda symbol: symbol.symbol)

    @abstractmethod
    def status(self) -> Status:
        """How the markets stand."""

    @abstractmethod
    def gaps(self, state: str = "open", limit: int = 100) -> list[Gap]:
        """The newest gaps on record, newest first: `open`, `final`, `repaired` or `all`."""

    @abstractmethod
    def barriers(self, limit: int = 100) -> list[BarrierEvent]:
        """The newest barriers that the event log tells of, newest first."""

    def feed(
        self,
        since: int | None = None,
        *,
        symbols: str | Iterable[str] = (),
        intervals: str | Iterable[str] = (),
        kinds: Iterable[Kind] = (),
    ) -> Feed:
        """What becomes durable, event by event, for as long as it is iterated over; `for` and `async for` both work.

        `since` is the `seq` of the last event that was seen: the feed begins after it, across restarts of this program and of
        klagg. Without it the feed begins now. A connection that breaks is opened again, and nothing is lost or told twice. What
        the event log no longer has is told by a `CutEvent`.

        Args:
            since: the sequence number after which to begin; 0 for all that is kept.
            symbols: only events of these symbols; barriers come too.
            intervals: only candles of these intervals.
            kinds: only events of these kinds, and cuts.

        """
        return Feed(self._feed_source, since, feed_filter(self.market, symbols, intervals, kinds))

    def wait_barrier(self, boundary: Time, *, verified: bool = False, timeout: float | None = None) -> Barrier:
        """Wait until every candle that ends by `boundary` is durable or, where `verified`, seen to be the exchange's.

        Raises:
            BarrierTimeout: `timeout` seconds are over; it is a `TimeoutError`.

        """
        boundary_ms, ends_s = time_ms(boundary), None if timeout is None else time.monotonic() + timeout
        since = self._newest_seq()
        if passed := self._passed(boundary_ms, verified=verified):
            return passed
        for event in self._barrier_feed(since, verified=verified).until(ends_s):
            if isinstance(event, BarrierEvent):
                if event.boundary_ms >= boundary_ms:
                    return self._barrier(event)
            elif passed := self._passed(boundary_ms, verified=verified):  # the barrier may have been among what was cut
                return passed
        raise self._too_late(boundary_ms, verified=verified, timeout=timeout)

    async def wait_barrier_async(
        self,
        boundary: Time,
        *,
        verified: bool = False,
        timeout: float | None = None,  # noqa: ASYNC109 - as the plain one
    ) -> Barrier:
        """As `wait_barrier`, without blocking the event loop."""
        boundary_ms = time_ms(boundary)
        try:
            async with asyncio.timeout(timeout):
                since = await asyncio.to_thread(self._newest_seq)
                if passed := await asyncio.to_thread(self._passed, boundary_ms, verified=verified):
                    return passed
                async with aclosing(self._barrier_feed(since, verified=verified).__aiter__()) as feed:
                    async for event in feed:
                        if isinstance(event, BarrierEvent):
                            if event.boundary_ms >= boundary_ms:
                                return self._barrier(event)
                        elif passed := await asyncio.to_thread(self._passed, boundary_ms, verified=verified):
                            return passed
        except TimeoutError:
            pass
        raise self._too_late(boundary_ms, verified=verified, timeout=timeout)

    def _barrier_feed(self, since: int, *, verified: bool) -> Feed:
        return self.feed(since, kinds=["barrier_verified" if verified else "barrier_durable"])

    def _barrier(self, event: BarrierEvent) -> Barrier:
        return Barrier(self.market.value, event.boundary_ms, event.kind == "barrier_verified", event.unverified)

    def _passed(self, boundary_ms: int, *, verified: bool) -> Barrier | None:
        """The barrier of a boundary, or the first after it, if it has passed."""
        stands = self.status().of(self.market.value)
        reached_ms = 0 if stands is None else stands.verified_ms if verified else stands.durable_ms
        if reached_ms < boundary_ms:
            return None
        kind = "barrier_verified" if verified else "barrier_durable"
        told = [one for one in self.barriers(BARRIERS) if one.kind == kind and one.boundary_ms >= boundary_ms]
        if not told:
            return Barrier(self.market.value, reached_ms, verified)
        return self._barrier(min(told, key=lambda one: one.boundary_ms))

    def _too_late(self, boundary_ms: int, *, verified: bool, timeout: float | None) -> BarrierTimeout:
        what = "verified" if verified else "durable"
        return BarrierTimeout(
            f"{self.market.value}: the minutes up to {iso(boundary_ms)} were not {what} within {timeout} s"
        )

    @abstractmethod
    def _candles(self, question: Asked) -> Candles: ...

    @abstractmethod
    def _symbols(self, at_ms: int | None) -> list[Symbol]: ...

    @abstractmethod
    def _newest_seq(self) -> int: ...

    @abstractmethod
    def _feed_source(self) -> FeedSource: ...

    @abstractmethod
    def close(self) -> None:
        """Give the connection back."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
