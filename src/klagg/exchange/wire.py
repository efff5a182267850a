"""Stream messages to columns: trades and closing klines out of whatever a batch of WebSocket payloads holds. Pure.

Messages come wrapped (`{"stream":…,"data":…}`) or raw, with keys in any order and keys nobody has heard of. What is not a
trade or a closing one-minute kline is passed over and counted; what claims to be one and cannot be is rejected with its
reason, and the rest goes on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np

from klagg.errors import NumberError
from klagg.exchange.decimals import mantissa_and_scale
from klagg.exchange.klines import candle_fields
from klagg.interval import MINUTE
from klagg.model import CANDLE, TRADE, Candles, Flag, Origin, Source, TradeKind, Trades
from klagg.rules import NO_MARKET_ORDERS

MAX_REJECTED: Final = 64
"""Rejections of one batch kept with their reason; a feed gone mad is counted, not stored."""
LARGEST_ID: Final = 2**62
LARGEST_TIME_MS: Final = 10**14
"""Later than the year 5000: not milliseconds."""
VALUE_SHOWN: Final = 60
"""Characters of an offending value kept."""

_RUNNING_KLINE: Final = b'"x":false'
_KLINE_EVENT: Final = b'"e":"kline"'
"""Nine in ten messages are pushes of a running candle; nobody needs them, so they are not parsed at all."""
_MARKET_ORDER: Final = "MARKET"


class _Kline(msgspec.Struct):
    t: int
    i: str
    f: int
    L: int
    o: str
    h: str
    l: str  # noqa: E741 - the exchange's name
    c: str
    v: str
    n: int
    x: bool
    q: str
    V: str
    Q: str


class _Event(msgspec.Struct):
    """A payload of any of the three kinds; the names are the exchange's (protocol: aggTrade, trade, kline)."""

    e: str = ""
    E: int = 0
    s: str = ""
    a: int = -1
    t: int = -1
    p: str = ""
    q: str = ""
    f: int = -1
    l: int = -1  # noqa: E741 - the exchange's name
    T: int = 0
    m: bool | None = None
    X: str | None = None
    k: _Kline | None = None


class _Frame(_Event):
    data: _Event | None = None


class _Named(msgspec.Struct):
    e: str = ""
    s: str = ""


class _NamedFrame(_Named):
    data: _Named | None = None


_FRAME: Final = msgspec.json.Decoder(_Frame)
_NAMED: Final = msgspec.json.Decoder(_NamedFrame)
_WANTED: Final = ("aggTrade", "trade", "kline")


@dataclass(frozen=True, slots=True)
class Rejected:
    """A message that could not be used: why, of which symbol, and the field and value at fault ("" where unknown)."""

    reason: str
    symbol: str = ""
    field: str = ""
    value: str = ""


@dataclass(slots=True)
class Decoded:
    """What a batch held.

    `trades` in the order of arrival; `klines` the closing pushes of one-minute candles, with their trade ids;
    `latest_event_ms` the newest event time E, 0 for none.
    """

    trades: Trades
    klines: Candles
    rejected: list[Rejected] = field(default_factory=list)
    rejected_count: int = 0
    running_klines: int = 0
    """Pushes of a candle that is still running."""
    passed_over: int = 0
    """Messages of other kinds."""
    latest_event_ms: int = 0


class _Refusal(Exception):
    """One message is rejected."""

    def __init__(self, reason: str, symbol: str, field_name: str = "", value: object = "") -> None:
        self.rejected = Rejected(reason, symbol, field_name, str(value)[:VALUE_SHOWN])
        super().__init__(reason)


def decode(payloads: Sequence[bytes], slots: Mapping[str, int]) -> Decoded:
    """Decode a batch.

    Args:
        payloads: WebSocket messages as they came.
        slots: the engine's row of every wanted symbol (upper case, as events name it).
    """
    batch = _Batch(slots)
    for payload in payloads:
        if _RUNNING_KLINE in payload and _KLINE_EVENT in payload:
            batch.running_klines += 1
        else:
            batch.take(payload)
    return batch.decoded()


class _Batch:
    """Rows gathered while a batch is decoded."""

    def __init__(self, slots: Mapping[str, int]) -> None:
        self._slots = slots
        self._trades: list[tuple[int, ...]] = []
        self._klines: list[tuple[int, ...]] = []
        self._rejected: list[Rejected] = []
        self._rejected_count = 0
        self._passed_over = 0
        self._latest_event_ms = 0
        self.running_klines = 0

    def take(self, payload: bytes) -> None:
        """Decode one message."""
        try:
            try:
                frame = _FRAME.decode(payload)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                self._take_odd(payload, error)
                return
            event = frame if frame.data is None else frame.data
            if event.e in {"aggTrade", "trade"}:
                self._trades.append(self._trade(event))
            elif event.e == "kline":
                self._take_kline(event)
            else:
                self._passed_over += 1
            self._latest_event_ms = max(self._latest_event_ms, event.E)
        except _Refusal as refusal:
            self._reject(refusal.rejected)

    def decoded(self) -> Decoded:
        """The rows as columns."""
        trades = np.array(self._trades, TRADE) if self._trades else np.zeros(0, TRADE)
        klines = np.array(self._klines, CANDLE) if self._klines else np.zeros(0, CANDLE)
        return Decoded(
            trades,
            klines,
            self._rejected,
            self._rejected_count,
            self.running_klines,
            self._passed_over,
            self._latest_event_ms,
        )

    def _reject(self, rejected: Rejected) -> None:
        self._rejected_count += 1
        if len(self._rejected) < MAX_REJECTED:
            self._rejected.append(rejected)

    def _take_odd(self, payload: bytes, error: Exception) -> None:
        """A message of no known shape: of another kind, or a broken one of ours."""
        try:
            frame = _NAMED.decode(payload)
        except msgspec.ValidationError:
            self._passed_over += 1  # valid JSON of another shape: an array, an answer
            return
        except (msgspec.MsgspecError, UnicodeDecodeError):
            text = payload[:VALUE_SHOWN].decode("utf-8", "replace")
            self._reject(Rejected(f"not JSON ({error})", value=text))
            return
        event = frame if frame.data is None else frame.data
        if event.e in _WANTED:
            raise _Refusal(f"malformed {event.e} ({error})", event.s, value=payload.decode("utf-8", "replace"))
        self._passed_over += 1

    def _slot(self, symbol: str) -> int:
        slot = self._slots.get(symbol)
        if slot is None:
            raise _Refusal("unknown symbol", symbol, "s", symbol)
        return slot

    def _trade(self, event: _Event) -> tuple[int, ...]:
        symbol = event.s
        slot = self._slot(symbol)
        price, price_scale = _number(symbol, "p", event.p)
        qty, qty_scale = _number(symbol, "q", event.q)
        if event.e == "aggTrade":
            trade_id, first_id, last_id = event.a, event.f, event.l
        else:
            trade_id = first_id = last_id = event.t
        if trade_id < 0 or not 0 <= first_id <= last_id:
            raise _Refusal("no trade ids", symbol, "a f l t", (event.a, event.f, event.l, event.t))
        if max(trade_id, last_id) > LARGEST_ID:
            raise _Refusal("an id out of range", symbol, "a l t", (event.a, event.l, event.t))
        if not 0 < event.T <= LARGEST_TIME_MS:
            raise _Refusal("no trade time", symbol, "T", event.T)
        if event.m is None:
            raise _Refusal("no maker side", symbol, "m")
        kind = TradeKind.OTHER if event.X in NO_MARKET_ORDERS else TradeKind.MARKET
        if kind is TradeKind.MARKET and (event.X not in (None, _MARKET_ORDER) or price <= 0 or qty <= 0):
            # Not taken as seen: its id is missing, so that its minute is not proven.
            raise _Refusal("a trade of unknown kind or amount", symbol, "X p q", (event.X, event.p, event.q))
        ids_and_time = (trade_id, price, qty, first_id, last_id, event.T)
        return (slot, price_scale, qty_scale, event.m, kind, *ids_and_time)

    def _take_kline(self, event: _Event) -> None:
        kline = event.k
        if kline is None:
            raise _Refusal("no kline", event.s, "k")
        if not kline.x:
            self.running_klines += 1
            return
        if kline.i != MINUTE.name:
            self._passed_over += 1
            return
        slot = self._slot(event.s)
        if not -1 <= kline.f <= LARGEST_ID or not -1 <= kline.L <= LARGEST_ID or kline.n > LARGEST_ID:
            raise _Refusal("an id out of range", event.s, "f L n", (kline.f, kline.L, kline.n))
        if not 0 < kline.t <= LARGEST_TIME_MS or not MINUTE.is_open(kline.t):
            raise _Refusal("a candle off its grid", event.s, "t", kline.t)
        texts = (kline.o, kline.h, kline.l, kline.c, kline.v, kline.q, kline.V, kline.Q)
        try:
            values = candle_fields(texts, kline.n, 0, 0)
        except NumberError as error:
            raise _Refusal(str(error), event.s, "k") from error
        if min(values[2:6]) <= 0:
            raise _Refusal("a price that is not positive", event.s, "o h l c", texts[:4])
        head = (slot, MINUTE.code, int(Origin.EXCHANGE), int(Flag.CLOSED | Flag.VERIFIED))
        self._klines.append((*head, *values[:2], int(Source.API), kline.t, *values[2:], kline.f, kline.L))


def _number(symbol: str, name: str, text: str) -> tuple[int, int]:
    try:
        return mantissa_and_scale(text)
    except NumberError as error:
        raise _Refusal(str(error), symbol, name, text) from error
