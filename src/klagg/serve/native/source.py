"""What the native API needs to be told beside `serve.source`, as a protocol."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from klagg.interval import Interval
from klagg.model import Candles, Instrument, Ints, Market
from klagg.serve.source import Frame, Listing


@dataclass(frozen=True, slots=True)
class How:
    """Which candles are meant: as they were known at an instant, only verified ones, those that the exchange has not."""

    as_of_ms: int | None = None
    only_verified: bool = False
    unmatched: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """Closed candles, of each its revision and since when its numbers are known.

    Of a folded candle that is the sum of its pieces' revisions, and the latest of their times.
    """

    candles: Candles
    revisions: Ints
    known_ms: Ints


@dataclass(frozen=True, slots=True, eq=False)
class OfMarket:
    """One candle of each of some instruments."""

    instrument_ids: Ints
    known: Known


@dataclass(frozen=True, slots=True, eq=False)
class Through:
    """The states of one candle, the first to the one that stands: `verified_ms` is 0 where one was never seen to be the exchange's."""

    known: Known
    verified_ms: Ints


@dataclass(frozen=True, slots=True)
class Then:
    """An instrument as a market's list had it at an instant, and its life as it is known now."""

    instrument: Instrument
    retired_ms: int | None


class Lookup(Protocol):
    """Look-ups in what is stored; never on the event loop."""

    async def known(
        self,
        symbols: Sequence[Listing],
        frame: Frame,
        start_ms: int,
        end_ms: int,
        limit: int,
        how: How,
        *,
        newest: bool,
    ) -> Sequence[Known]:
        """Of each symbol at most `limit` closed candles that open in `[start_ms, end_ms)`, ascending: the oldest, or the newest.

        A frame that is not kept is folded; a folded candle of which a part is not there is left out.

        Raises:
            TooMuch: they would have to be folded from too many.

        """
        ...

    async def whole_market(self, market: Market, interval: Interval, open_ms: int, how: How) -> OfMarket:
        """The closed candles of a kept interval that open at an instant, of all instruments."""
        ...

    async def through(self, one: Listing, interval: Interval, open_ms: int) -> Through:
        """Every state of one candle of a kept interval."""
        ...

    async def listed_at(self, market: Market, at_ms: int) -> Sequence[Then]:
        """The instruments that the market's list had at an instant."""
        ...

    async def verified_ms(self, market: Market) -> int:
        """The boundary that the barrier of verification has passed; 0 before the first."""
        ...

    async def gaps(self, market: Market, state: str | None, limit: int) -> Sequence[Mapping[str, Any]]:
        """The newest gaps on record, as answers have them."""
        ...

    async def barriers(self, market: Market, limit: int) -> Sequence[Mapping[str, Any]]:
        """The newest barriers, as answers have them."""
        ...
