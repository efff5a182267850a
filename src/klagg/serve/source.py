"""What serving needs to know, as protocols: who holds it (a running service, or a database alone) is the composition's affair."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from klagg.interval import Interval
from klagg.model import Candles, Instrument, Ints, Market

FOLDED_CHILDREN: Final = 250_000
"""Shorter candles that one answer may be folded from: 34 MB. A request that needs more is refused."""


class TooMuch(Exception):
    """A request that would need more than `FOLDED_CHILDREN`."""


@dataclass(frozen=True, slots=True)
class Frame:
    """An interval whose candles may be cut in another time zone: `shift_ms` is the zone's offset east of UTC."""

    interval: Interval
    shift_ms: int = 0

    def open_at(self, t_ms: int) -> int:
        """The open of the candle that contains `t_ms`."""
        return self.interval.open_at(t_ms + self.shift_ms) - self.shift_ms

    def next_open(self, open_ms: int) -> int:
        """The end (exclusive) of the candle that opens at `open_ms`."""
        return self.interval.next_open(open_ms + self.shift_ms) - self.shift_ms

    @property
    def plain(self) -> "Frame":
        """The same candles with as little shift as says so: an hour is the same in most zones."""
        step_ms = self.interval.step_ms
        return Frame(self.interval) if step_ms and self.shift_ms % step_ms == 0 else self


@dataclass(frozen=True, slots=True)
class Listing:
    """A symbol that candles are kept of; `retired_ms` is when it left trading for good."""

    id: int
    instrument: Instrument
    retired_ms: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Committed:
    """Closed candles of a market that a commit has made durable for the first time, up to `boundary_ms`.

    `candles[n]` belongs to `instrument_ids[n]`.
    """

    market: Market
    boundary_ms: int
    instrument_ids: Ints
    candles: Candles


class Source(Protocol):
    """Closed candles, read where they are durable; never on the event loop."""

    async def closed(
        self, one: Listing, frame: Frame, start_ms: int, end_ms: int, limit: int, *, newest: bool
    ) -> Candles:
        """At most `limit` closed candles that open in `[start_ms, end_ms)`, ascending: the oldest ones, or the newest.

        What the exchange does not have (`unmatched`) is left out. A frame that is not kept is folded from what is; a folded candle of
        which a part is not there is left out. Whoever asks sees to it that all of them are durable.

        Raises:
            TooMuch: they would have to be folded from too many.

        """
        ...

    async def part(self, one: Listing, start_ms: int, end_ms: int) -> Candles:
        """One candle of the closed minutes of `[start_ms, end_ms)` since the listing; none where one of them is not there."""
        ...

    async def is_sure(self, one: Listing, interval: Interval) -> bool:
        """Whether the stored snapshot of a running candle stands on evidence from its open on, as far as it was written."""
        ...


class Live(Protocol):
    """What is known now, in memory."""

    @property
    def markets(self) -> Sequence[Market]:
        """The markets that are served."""
        ...

    def is_live(self, market: Market) -> bool:
        """Whether a market has started: until then it has no answers."""
        ...

    def now_ms(self, market: Market) -> int:
        """The exchange's time."""
        ...

    def listings(self, market: Market) -> Mapping[str, Listing]:
        """The symbols by name; another mapping whenever something about them has changed."""
        ...

    def kept(self, market: Market) -> Sequence[Interval]:
        """The intervals that are kept, shortest first."""
        ...

    def durable_ms(self, market: Market) -> int:
        """The boundary up to which closed candles are durable."""
        ...

    def running(self, market: Market, symbols: Sequence[str]) -> Candles:
        """The running candles as they stand now, [symbols, kept intervals]; `close` is 0 where there is none.

        A longer one may lack what was before its instrument came into memory (`serve.running` sees to that).
        """
        ...

    def missing(self) -> Sequence[str]:
        """What is not as it must be to be ready (calibrated, seeded, live, writing); nothing when ready."""
        ...

    def commits(self) -> AsyncIterator[Committed]:
        """What is committed from now on."""
        ...
