"""The shapes of the answers, for the description of the API; answers are written without them."""

from typing import Any

from msgspec import Struct


class ErrorText(Struct):
    """What is wrong: a code for programs, a sentence for people, the parameter at fault if it is one."""

    code: str
    message: str
    parameter: str | None


class ErrorBody(Struct):
    """The body of every answer that is none."""

    error: ErrorText


class Candle(Struct):
    """A candle. Decimals are strings, exact; `first_trade_id` and `last_trade_id` are -1 where there are none.

    `origin` is null while it runs: it tells of a candle's whole time.
    """

    market: str
    symbol: str
    interval: str
    open_time_ms: int
    close_time_ms: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    quote_volume: str
    trades: int
    taker_buy_volume: str
    taker_buy_quote_volume: str
    first_trade_id: int
    last_trade_id: int
    revision: int
    known_ms: int
    closed: bool
    origin: str | None
    verified: bool
    source: str
    """The exchange's word that verifies it: `api`, `archive`, or nothing."""


class MissingSpan(Struct):
    """Candles that were asked for and are not in the answer."""

    symbol: str
    interval: str
    start_ms: int
    end_ms: int


class CandlesMeta(Struct):
    """What there is to know of the answer."""

    market: str
    now_ms: int
    durable_ms: int
    verified_ms: int
    candles: int
    verified: int
    unverified: int
    missing_candles: int
    missing: list[MissingSpan]
    truncated: bool
    next: int | None


class Candles(Struct):
    """Candles, and what there is to know of them."""

    meta: CandlesMeta
    candles: list[Candle]


class State(Candle):
    """One state of a candle: since when it is known, and since when as the exchange's (null: never)."""

    verified_ms: int | None


class CandleHistory(Candle):
    """A candle as it stands, and every state it had, the first one first."""

    history: list[State]


class SymbolRow(Struct):
    """A symbol; `listed_ms` is 0 where the exchange does not tell, `retired_ms` null while it trades."""

    symbol: str
    status: str
    native_status: str
    base: str
    quote: str
    price_scale: int
    qty_scale: int
    listed_ms: int
    retired_ms: int | None


class Symbols(Struct):
    """The symbols of a market at an instant."""

    market: str
    at_ms: int
    symbols: list[SymbolRow]


class GapRow(Struct):
    """Minutes that could not be kept, or that the exchange does not have; `symbol` is empty for all."""

    symbol: str
    start_ms: int
    end_ms: int
    reason: str
    state: str
    at_ms: int
    closed_ms: int | None


class Gaps(Struct):
    """Gaps on record, newest first."""

    market: str
    gaps: list[GapRow]


class Barriers(Struct):
    """Barriers, newest first: `barrier_durable` tells `symbols`, `barrier_verified` tells `unverified`."""

    market: str
    barriers: list[dict[str, Any]]
