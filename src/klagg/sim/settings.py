"""What an offline exchange is asked to be: frozen settings, nothing computed."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from klagg.errors import UsageError
from klagg.model import Market

if TYPE_CHECKING:
    from klagg.sim.faults import AnyFault

DAY_MS: Final = 86_400_000
MAX_RATE: Final = 50.0
"""The largest multiplier of trade rates: beyond it a month's quote volume could pass 63 bits."""
MAX_SYMBOLS: Final = 2_000


class EmptyKlinePush(StrEnum):
    """What the USDT-M kline stream sends for an interval without a trade (which of them the exchange does is unknown)."""

    NONE = "none"
    CLOSE = "close"
    """One closing frame, as on spot."""


@dataclass(frozen=True, slots=True)
class ListingEvent:
    """A symbol that begins or ends trading `at_offset_ms` (market time) after the exchange's start."""

    at_offset_ms: int
    symbol: str
    kind: Literal["list", "delist"] = "list"


@dataclass(frozen=True, slots=True)
class ExchangeSettings:
    """One market of the offline exchange. Durations are market time: at `speed` 20 they pass twenty times as fast.

    The market is a function of `seed`, symbol and time only: two exchanges of the same seed agree on every trade they
    both have, whenever they were started.
    """

    market: Market = Market.USDM
    symbols: int = 40
    """How many instruments are trading at the start; some in other statuses are listed beside them."""
    seed: int = 1
    rate: float = 1.0
    """Multiplier of all trade rates; at 1 the busiest symbol has about six aggregates a second."""
    history_ms: int = 2 * DAY_MS
    """How far before the start trades exist, at least (extended to the UTC midnight before)."""
    speed: float = 1.0
    start_ms: int | None = None
    """The market's time at the start (UTC ms); None for the host's time, or the first trade's of a replay."""
    listings: tuple[ListingEvent, ...] = ()
    replay: tuple[Path, ...] = ()
    """Recordings whose trades are served instead of a synthetic market."""
    replay_align_ms: int = 0
    """Move each recording by multiples of this, so that all end within this time of the first one's end; 0 for not at all."""
    replay_last_ms: int | None = None
    """The market starts so long before the last trade; what was recorded before is history. None for the first trade."""
    faults: "tuple[AnyFault, ...]" = ()
    """What goes wrong, and when."""

    weight_limit: int | None = None
    """Request weight a minute; None for the market's own (2400 on usdm, 6000 on spot)."""
    ban_after: int = 10
    """So many requests in one minute after the limit was passed turn 429 into 418."""
    ban_ms: int = 120_000
    """The first ban; each further one is twice as long, up to three days."""
    retry_after: bool = True
    """Whether 429 and 418 carry `Retry-After`."""
    fresh_listing_refused_ms: int = 0
    """So long after a listing kline requests get -1122, as seen on usdm in a listing's first hour."""
    geo_blocked: bool = False
    """Answer everything with HTTP 451."""

    max_streams: int = 1_024
    message_rate: int | None = None
    """Incoming messages a second and connection; None for the market's own (10 on usdm, 5 on spot)."""
    message_burst: int | None = None
    """How many of them may come at once; None for the market's own (15 on usdm, 5 on spot)."""
    connects_per_5min: int | None = None
    """Connection attempts; None for the market's own (none on usdm, 300 on spot)."""
    ping_interval_ms: int | None = None
    """None for the market's own (3 min on usdm, 20 s on spot)."""
    pong_deadline_ms: int | None = None
    """None for the market's own (10 min on usdm, 1 min on spot)."""
    connection_life_ms: int = DAY_MS
    shutdown_notice_ms: int = 0
    """How long before its end a spot connection is told `serverShutdown`; 0 for not at all."""

    batch_ms: int | None = None
    """aggTrade events are sent in windows of this length; None for the market's own (100 on usdm, 0 on spot)."""
    event_lag_ms: int | None = None
    """Delay of an event after its window's end; None for the market's own (100 on usdm, 1 on spot)."""
    kline_push_ms: int | None = None
    """None for the market's own (250 on usdm, 2000 on spot)."""
    closing_push_max_ms: int = 2_000
    """A closing kline push comes 5 ms to this long after the close."""
    empty_kline_push: EmptyKlinePush = EmptyKlinePush.NONE

    def __post_init__(self) -> None:
        """Refuse what cannot be served.

        Raises:
            UsageError: a value is out of its range; the message names it.
        """
        if not 1 <= self.symbols <= MAX_SYMBOLS:
            raise UsageError(f"exchange: symbols is {self.symbols}; use 1 to {MAX_SYMBOLS}")
        if not 0 < self.rate <= MAX_RATE:
            raise UsageError(f"exchange: rate is {self.rate}; use a number above 0, at most {MAX_RATE:g}")
        if not 0 < self.speed <= 1_000:
            raise UsageError(f"exchange: speed is {self.speed}; use a number above 0, at most 1000")
        if self.history_ms < 0:
            raise UsageError(f"exchange: history is {self.history_ms} ms; it cannot be negative")

    @property
    def is_spot(self) -> bool:
        """Whether this is the spot market."""
        return self.market is Market.SPOT

    def own(self, value: int | None, usdm: int, spot: int) -> int:
        """A setting that was given, or else the market's own value."""
        return value if value is not None else (spot if self.is_spot else usdm)
