"""JSON lines: WebSocket messages, raw or of a combined stream, and rows of the REST endpoint of aggregate trades.

Source of the fields: the exchange's `trade` and `aggTrade` streams and `aggTrades` endpoint.
"""

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec

from klagg.archive.layout import FileMarket
from klagg.archive.rows import TRADE_EVENTS, BadRow
from klagg.model import Market


class Payload(msgspec.Struct, gc=False):
    """The fields of a trade, an aggregate trade or a REST row; what else a message has is ignored."""

    price: str = msgspec.field(name="p", default="")
    qty: str = msgspec.field(name="q", default="")
    time: int = msgspec.field(name="T", default=-1)
    buyer_is_maker: bool | None = msgspec.field(name="m", default=None)
    event: str = msgspec.field(name="e", default="")
    symbol: str = msgspec.field(name="s", default="")
    trade_id: int = msgspec.field(name="t", default=-1)
    agg_id: int = msgspec.field(name="a", default=-1)
    first_id: int | None = msgspec.field(name="f", default=None)
    last_id: int | None = msgspec.field(name="l", default=None)
    order_type: str | msgspec.UnsetType | None = msgspec.field(name="X", default=msgspec.UNSET)
    best_match: bool | None = msgspec.field(name="M", default=None)
    without_rpi: str | None = msgspec.field(name="nq", default=None)
    contract_side: int | None = msgspec.field(name="st", default=None)


class _Line(Payload, gc=False):
    """One message: the payload itself, or a combined stream's wrapping around it."""

    stream: str = ""
    data: Payload | None = None


class PassedOver(NamedTuple):
    """A message that is no trade, and what it is."""

    event: str


_DECODE: Final = msgspec.json.Decoder(_Line)
_DECODE_ANY: Final = msgspec.json.Decoder()
DECODE_ARRAY: Final = msgspec.json.Decoder(list[Payload])

_RECEIVED: Final = re.compile(rb"\s*(\d+)(?:\.(\d+))?\s*[:,]?\s*", re.ASCII)
_URL: Final = re.compile(rb"\s*(?:wss?|https?)://\S")
_RECEIVED_UNIT: Final = {10: 1, 13: 1_000, 16: 1_000_000, 19: 1_000_000_000}
"""Digits of a receive time before the point → how many of its units a second has."""

OTHER: Final = "other"
"""What a message is called that names neither its event nor its stream."""


def is_url(line: bytes) -> bool:
    """Whether a line is the address of the recorded stream."""
    return _URL.match(line) is not None


def looks_like_message(line: bytes) -> bool:
    """Whether a line is JSON, perhaps with a receive time before it."""
    start = _json_start(line)
    return start >= 0 and (start == 0 or _RECEIVED.fullmatch(line, 0, start) is not None)


def _json_start(line: bytes) -> int:
    brace, bracket = line.find(b"{"), line.find(b"[")
    return min(brace, bracket) if brace >= 0 and bracket >= 0 else max(brace, bracket)


def _received_ms(prefix: bytes) -> int:
    """The receive time before the JSON: seconds, ms, µs or ns, told by its digits; -1 where there is none."""
    plain = prefix.strip()
    if not plain:
        return -1
    if plain.isdigit() and len(plain) in _RECEIVED_UNIT:
        return int(plain) * 1000 // _RECEIVED_UNIT[len(plain)]
    match = _RECEIVED.fullmatch(prefix)
    unit = _RECEIVED_UNIT.get(len(match[1])) if match else None
    if match is None or unit is None:
        raise BadRow(f"{prefix[:40].decode(errors='replace')!r} before the JSON is not a receive time")
    whole = int(match[1]) * 1000 // unit
    return whole + int((match[2] or b"0").ljust(3, b"0")[:3]) if unit == 1 else whole


def decode_line(line: bytes) -> tuple[int, Payload | list[Payload] | PassedOver]:
    """One line of a recording: its receive time (UTC ms, -1 for none) and its trade, its REST rows, or what it is else.

    Raises:
        BadRow: it is not JSON, or a trade that lacks a field; the message is the reason.

    """
    received_ms = -1
    if line[:1] != b"{":
        start = _json_start(line)
        if start < 0:
            raise BadRow("neither JSON nor a receive time and JSON")
        received_ms = _received_ms(line[:start])
        line = line[start:]
    try:
        message = _DECODE.decode(line)
    except msgspec.ValidationError:
        return received_ms, _loose(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRow(f"broken JSON: {error}") from error
    payload = message.data or message
    if payload.event in TRADE_EVENTS or (not payload.event and _is_rest_row(payload)):
        return received_ms, payload
    return received_ms, PassedOver(payload.event or _stream_kind(message.stream) or OTHER)


def _is_rest_row(payload: Payload) -> bool:
    return payload.agg_id >= 0 and payload.first_id is not None and payload.price != "" and payload.qty != ""


def _stream_kind(stream: str) -> str:
    return stream.partition("@")[2].partition("_")[0] or stream.removeprefix("!").partition("@")[0]


def _loose(line: bytes) -> Payload | list[Payload] | PassedOver:
    """A message whose fields are not a trade's: another event, an array, or a broken trade."""
    try:
        message: Any = _DECODE_ANY.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRow(f"broken JSON: {error}") from error
    stream = ""
    if isinstance(message, dict) and "data" in message:
        stream = str(message.get("stream") or "")
        message = message["data"]
    first = message[0] if isinstance(message, list) and message else message
    if not isinstance(first, dict):
        return PassedOver(_stream_kind(stream) or OTHER)
    event = first.get("e")
    if event not in TRADE_EVENTS and not (event is None and {"a", "p", "q", "f", "l", "T"} <= first.keys()):
        return PassedOver(str(event or "") or _stream_kind(stream) or OTHER)
    try:
        if isinstance(message, list):
            return msgspec.convert(message, list[Payload])
        return msgspec.convert(message, Payload)
    except msgspec.ValidationError as error:
        raise BadRow(f"a broken {event or 'aggregate trade'}: {error}") from error


def array_rows(text: bytes) -> Iterator[tuple[int, Payload]]:
    """The REST rows of one JSON array with the line each begins on.

    Raises:
        BadRow: it is no array of REST rows.

    """
    try:
        rows = DECODE_ARRAY.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRow(f"not an array of aggregate trades: {error}") from error
    line = 1
    begin = 0
    for row in rows:
        at = text.find(b"{", begin)
        line += text.count(b"\n", begin, at)
        begin = at + 1
        yield line, row


def market_of(payload: Payload, symbol: str) -> FileMarket | None:
    """The market that a message's fields tell, or None: spot alone sends `M`, futures `X`, `nq` or `st`."""
    if payload.best_match is not None:
        return Market.SPOT
    if payload.contract_side == 2 or (symbol.partition("_")[0].endswith("USD") and "_" in symbol):
        return "coinm"
    if payload.contract_side == 1 or payload.without_rpi is not None:
        return Market.USDM
    if payload.order_type is not msgspec.UNSET:
        return Market.USDM
    return None


def market_of_url(line: bytes) -> FileMarket | None:
    """The market of a stream's address, or None."""
    for host, market in _HOSTS:
        if host in line:
            return market
    return None


_HOSTS: Final[tuple[tuple[bytes, FileMarket], ...]] = (
    (b"fstream.binance", Market.USDM),
    (b"dstream.binance", "coinm"),
    (b"data-stream.binance", Market.SPOT),
    (b"stream.binance.us", Market.SPOT),
    (b"stream.binance.com", Market.SPOT),
)
