"""The events of the feed: what became durable, each with its place in the one sequence. Times are UTC milliseconds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from klagg.store import What

CandleKind = Literal["candle_closed", "candle_revised", "candle_verified"]
Kind = Literal[CandleKind, "barrier_durable", "barrier_verified", "symbol_added", "symbol_retired", "gap"]
KINDS: Final[tuple[Kind, ...]] = (
    *("candle_closed", "candle_revised", "candle_verified", "barrier_durable", "barrier_verified"),
    *("symbol_added", "symbol_retired", "gap"),
)


@dataclass(frozen=True, slots=True)
class CandleEvent:
    """A closed candle came, its numbers changed, or they were seen to be the exchange's.

    What happened at once is one event: one that came or changed may be `verified` as well.
    """

    kind: CandleKind
    seq: int
    at_ms: int
    market: str
    symbol: str
    interval: str
    open_time_ms: int
    revision: int
    verified: bool


@dataclass(frozen=True, slots=True)
class BarrierEvent:
    """Every candle that ends by `boundary_ms` is durable, or verified but for `unverified`; `symbols` is of a durable one."""

    kind: Literal["barrier_durable", "barrier_verified"]
    seq: int
    at_ms: int
    market: str
    boundary_ms: int
    symbols: int | None = None
    unverified: int | None = None


@dataclass(frozen=True, slots=True)
class SymbolEvent:
    """A symbol is new or trades again, or it has left trading for good."""

    kind: Literal["symbol_added", "symbol_retired"]
    seq: int
    at_ms: int
    market: str
    symbol: str


@dataclass(frozen=True, slots=True)
class GapEvent:
    """Minutes that could not be kept are on record; `symbol` is empty for all of the market."""

    kind: Literal["gap"]
    seq: int
    at_ms: int
    market: str
    symbol: str
    start_ms: int
    end_ms: int
    reason: str


@dataclass(frozen=True, slots=True)
class CutEvent:
    """What was asked for after `from_seq` is not there up to `to_seq`; the feed goes on after that.

    `too old`: the log no longer has it. Read what it was about again: candles, symbols and gaps are in the database as they stand.
    `ahead`: the log never was so far; it is another database.
    """

    kind: Literal["cut"]
    from_seq: int
    to_seq: int
    reason: str

    @property
    def seq(self) -> int:
        """Where the feed goes on."""
        return self.to_seq


Event = CandleEvent | BarrierEvent | SymbolEvent | GapEvent | CutEvent


def kind_of(what: What) -> CandleKind:
    """The one word for what happened to a candle at once: the first of closed, revised and verified."""
    if what & What.CLOSED:
        return "candle_closed"
    return "candle_revised" if what & What.REVISED else "candle_verified"


def event_of(told: Mapping[str, Any]) -> Event | None:
    """The event of a service's words; None for a kind that this version does not know."""
    kind = told["kind"]
    common: dict[str, Any] = {
        "kind": kind,
        "seq": told.get("seq"),
        "at_ms": told.get("at_ms"),
        "market": told.get("market"),
    }
    match kind:
        case "candle_closed" | "candle_revised" | "candle_verified":
            names = ("symbol", "interval", "open_time_ms", "revision", "verified")
            return CandleEvent(**common, **{name: told[name] for name in names})
        case "barrier_durable" | "barrier_verified":
            counts = {name: told.get(name) for name in ("symbols", "unverified")}
            return BarrierEvent(**common | counts, boundary_ms=told["boundary_ms"])
        case "symbol_added" | "symbol_retired":
            return SymbolEvent(**common, symbol=told["symbol"])
        case "gap":
            return GapEvent(**common, **{name: told[name] for name in ("symbol", "start_ms", "end_ms", "reason")})
        case _:
            return None
