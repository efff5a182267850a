"""What a reader tells beside candles: symbols, gaps, barriers, and how a market stands. Times are UTC milliseconds."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Symbol:
    """A symbol of a market; `listed_ms` is 0 where the exchange does not tell, `retired_ms` None while it trades."""

    market: str
    symbol: str
    status: str
    """`pending`, `trading`, `halted` or `retired`."""
    native_status: str
    """The exchange's own word."""
    base: str
    quote: str
    price_scale: int
    qty_scale: int
    listed_ms: int
    retired_ms: int | None


@dataclass(frozen=True, slots=True)
class Gap:
    """Minutes `[start_ms, end_ms)` that could not be kept, or that the exchange does not have; `symbol` is empty for all."""

    market: str
    symbol: str
    start_ms: int
    end_ms: int
    reason: str
    state: str
    """`open`, `final` (the exchange has none) or `repaired`."""
    at_ms: int
    closed_ms: int | None


@dataclass(frozen=True, slots=True)
class Barrier:
    """Every candle that ends by `boundary_ms` is durable or, where `verified`, the exchange's but for `unverified` of them.

    `unverified` is None of a durable barrier, and where the event log does not reach back to the boundary.
    """

    market: str
    boundary_ms: int
    verified: bool
    unverified: int | None = None


@dataclass(frozen=True, slots=True)
class Missing:
    """Candles `[start_ms, end_ms)` that were asked for and are not there."""

    symbol: str
    interval: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class MarketStatus:
    """How one market stands; `durable_ms` and `verified_ms` are the boundaries that its barriers have passed, 0 before the first."""

    market: str
    symbols: int
    durable_ms: int
    verified_ms: int
    open_gaps: int
    final_gaps: int


@dataclass(frozen=True, slots=True)
class Status:
    """How all markets stand; `version` is that of the klagg that answered."""

    version: str
    markets: tuple[MarketStatus, ...]

    def of(self, market: str) -> MarketStatus | None:
        """One market's; None where it is not there."""
        return next((one for one in self.markets if one.market == market), None)
