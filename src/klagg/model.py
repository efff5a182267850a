"""What flows through klagg: instruments, and the columns of trades and candles.

Trades and candles travel as numpy structured arrays of the dtypes below, parsed once at the border; every stage knows
these columns and no stage knows another.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag, StrEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Trades = npt.NDArray[np.void]
"""An array of `TRADE`."""
Candles = npt.NDArray[np.void]
"""An array of `CANDLE`."""
Rows = npt.NDArray[np.void]
"""An array of any structured dtype."""
Ints = npt.NDArray[np.int64]

VIRTUAL_SHARDS: Final = 256
"""Symbols are mapped to this many virtual shards for ever; a worker owns a set of them."""


class Market(StrEnum):
    """A market of the exchange."""

    USDM = "usdm"
    SPOT = "spot"


class Origin(IntEnum):
    """Where a candle's numbers come from, lowest rank first (design, section 1)."""

    FILLED = 0
    SEED = 1
    PARTIAL = 2
    FLAT = 3
    TRADES = 4
    EXCHANGE = 5
    UNMATCHED = 6

    @property
    def label(self) -> str:
        """The name people see: `filled`, `seed`, …."""
        return self.name.lower()


class Source(IntEnum):
    """Which of the exchange's words a candle was taken from, or was seen to equal; a later one stands above an earlier."""

    NONE = 0
    """None: klagg's own, not compared yet (or compared before klagg kept this)."""
    ARCHIVE = 1
    """A file of the exchange's archive. Its daily and its monthly files may contradict each other, and the API."""
    API = 2
    """REST, or the closing push of a stream."""

    @property
    def label(self) -> str:
        """The name people see: `archive`, `api`, or nothing."""
        return self.name.lower() if self else ""


class Flag(IntFlag):
    """The bits of `CANDLE["flags"]`."""

    CLOSED = 1
    VERIFIED = 2
    AMENDED = 4
    """The owner's own correction of a candle it closed (a late trade, a hole in the ids): it may lower an origin that
    is not verified, which no other writer may."""


class Status(StrEnum):
    """What an instrument's trading status means for its candles."""

    PENDING = "pending"
    """Listed but not open yet: no candles."""
    TRADING = "trading"
    HALTED = "halted"
    """Not trading now: paused, no candles. It may trade again."""
    RETIRED = "retired"
    """Left trading for good: candles stop, nothing is deleted."""


TRADE: Final = np.dtype(
    [
        ("slot", np.int32),
        ("price_scale", np.uint8),
        ("qty_scale", np.uint8),
        ("buyer_is_maker", np.uint8),
        ("kind", np.uint8),
        ("agg_id", np.int64),
        ("price", np.int64),
        ("qty", np.int64),
        ("first_id", np.int64),
        ("last_id", np.int64),
        ("time_ms", np.int64),
    ]
)
"""One aggregate (or single) trade, 56 bytes.

`slot` is the instrument's row in the engine; `price` and `qty` are mantissas at `price_scale` and `qty_scale`, which may
be narrower or wider than the instrument's; `agg_id` is what runs without holes (the aggregate's id, or the trade's);
`first_id`..`last_id` are the trades it holds; `kind` is a `TradeKind`."""


class TradeKind(IntEnum):
    """The values of `TRADE["kind"]`."""

    MARKET = 0
    OTHER = 1
    """Not a market trade (insurance fund, ADL): it advances the ids and belongs to no candle."""
    UNPROVEN = 2
    """Of a kind that klagg does not know, or with its amount missing: whether it belongs to its candle nobody can say. It counts as an
    id that was not seen, so that its minute is not proven."""


CANDLE: Final = np.dtype(
    [
        ("slot", np.uint16),
        ("interval", np.uint8),
        ("origin", np.uint8),
        ("flags", np.uint8),
        ("price_scale", np.uint8),
        ("qty_scale", np.uint8),
        ("source", np.uint8),
        ("open_ms", np.int64),
        ("open", np.int64),
        ("high", np.int64),
        ("low", np.int64),
        ("close", np.int64),
        ("volume_hi", np.int64),
        ("volume_lo", np.int64),
        ("quote_hi", np.int64),
        ("quote_lo", np.int64),
        ("taker_volume_hi", np.int64),
        ("taker_volume_lo", np.int64),
        ("taker_quote_hi", np.int64),
        ("taker_quote_lo", np.int64),
        ("trades", np.int64),
        ("first_id", np.int64),
        ("last_id", np.int64),
    ]
)
"""One candle, 136 bytes.

`slot`: the instrument's row in the engine that made it (0 where a row is read for one instrument). `interval`: the code of
`klagg.interval`. `origin`: an `Origin`. `flags`: `Flag` bits. `source`: a `Source`. Prices are mantissas at `price_scale`; volumes
are two words (base 10^18) at `qty_scale`, quote volumes two words at `price_scale + qty_scale`. `first_id` and `last_id` are
trade ids, -1 where there are none or where the source has none."""

NUMBERS: Final = (
    "open",
    "high",
    "low",
    "close",
    "volume_hi",
    "volume_lo",
    "quote_hi",
    "quote_lo",
    "trades",
    "taker_volume_hi",
    "taker_volume_lo",
    "taker_quote_hi",
    "taker_quote_lo",
)
"""The columns that an exchange's kline also has: equal here means equal to the exchange's (at equal scales)."""

LAST_TRADE: Final = np.dtype(
    [
        ("slot", np.int32),
        ("price_scale", np.uint8),
        ("agg_id", np.int64),
        ("time_ms", np.int64),
        ("price", np.int64),
    ],
    align=True,
)
"""An instrument's last trade: up to `agg_id` (made at `time_ms`) the ids have been seen or given up; -1 for none yet."""


@dataclass(frozen=True, slots=True)
class Instrument:
    """One tradable symbol of a market, as the exchange lists it.

    `listed_ms` is when its trading began (0 where the exchange does not say); `price_scale` and `qty_scale` are the
    fractional digits of the tick and of the quantity step; `base` and `quote` are asset names.
    """

    market: Market
    symbol: str
    status: Status
    price_scale: int
    qty_scale: int
    base: str = ""
    quote: str = ""
    listed_ms: int = 0
    native_status: str = ""
    extra: dict[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class Gap:
    """A span of one symbol's minutes (`symbol` "" for all) that could not be kept, on record: `[start_ms, end_ms)`."""

    market: Market
    symbol: str
    start_ms: int
    end_ms: int
    reason: str


def virtual_shard(market: Market, symbol: str) -> int:
    """The virtual shard of a symbol: a stable hash of market and symbol, never `hash()`, never list order."""
    digest = hashlib.blake2b(f"{market.value}:{symbol}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % VIRTUAL_SHARDS


def copied(rows: Rows) -> Rows:
    """A copy of structured rows, moved as whole blocks: some 15 times faster than numpy's own, which goes field by field."""
    return _blocks(rows).copy().view(rows.dtype)


def picked(rows: Rows, index: npt.NDArray[Any]) -> Rows:
    """`rows[index]` of structured rows, by positions or a mask, moved as whole blocks."""
    chosen: Rows = _blocks(rows)[index]
    return chosen.view(rows.dtype)


def joined(parts: Sequence[Rows]) -> Rows:
    """The parts (at least one) of the same dtype, one after the other, moved as whole blocks."""
    return np.concatenate([_blocks(part) for part in parts]).view(parts[0].dtype)


def _blocks(rows: Rows) -> Rows:
    return rows.view(f"V{rows.dtype.itemsize}")


def no_candles(count: int = 0) -> Candles:
    """An array of `count` candles, all zero."""
    return np.zeros(count, CANDLE)
