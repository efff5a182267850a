"""The exchange's symbol list (`exchangeInfo`): typed, tolerant of what is new, and turned into instruments.

Grids are PRICE_FILTER's tick and LOT_SIZE's step; `pricePrecision` and `quantityPrecision` are something else. Unknown
statuses, contract types and fields appear without notice and must not matter.
"""

import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import structlog

from klagg.errors import MalformedMessage, NumberError
from klagg.fixed import MAX_SCALE, digits_of, parse
from klagg.model import Instrument, Market, Status

log = structlog.get_logger()

STATUSES: Final = {
    Market.USDM: {
        "PENDING_TRADING": Status.PENDING,
        "TRADING": Status.TRADING,
        "PRE_SETTLE": Status.TRADING,
        "PRE_DELIVERING": Status.TRADING,
        "SETTLING": Status.RETIRED,
        "DELIVERING": Status.RETIRED,
        "DELIVERED": Status.RETIRED,
        "CLOSE": Status.RETIRED,
    },
    Market.SPOT: {
        "PRE_TRADING": Status.PENDING,
        "TRADING": Status.TRADING,
        "END_OF_DAY": Status.TRADING,
        "POST_TRADING": Status.TRADING,
        "AUCTION_MATCH": Status.TRADING,
        "CANCEL_ONLY": Status.TRADING,
        "HALT": Status.HALTED,
        "BREAK": Status.HALTED,
    },
}
"""What the exchange's statuses mean. One that is not here says nothing: HALTED, unless the symbol is seen to trade (see `Discovery`)."""

_PREFERENCE: Final = (Status.TRADING, Status.HALTED, Status.PENDING, Status.RETIRED)
"""Of several rows of one symbol the one counts that keeps most of its candles."""
LONGEST_NAME: Final = 64
_LATEST_MS: Final = 1 << 43
"""In the year 2248: a later time is none."""

COIN_MARGINED: Final = 2
"""The `st` of COIN-M rows, which since 2026-06-30 may appear among USDT-M's."""


class _RateLimit(msgspec.Struct):
    rate_limit_type: str = msgspec.field(name="rateLimitType", default="")
    interval: str = ""
    interval_num: int = msgspec.field(name="intervalNum", default=1)
    limit: int = 0


class _Symbol(msgspec.Struct, rename="camel"):
    """A row: only its name must be as expected; whatever else is not what it should be counts as not told."""

    symbol: str
    status: Any = ""
    base_asset: Any = ""
    quote_asset: Any = ""
    margin_asset: Any = ""
    contract_type: Any = ""
    underlying_type: Any = ""
    contract_status: Any = None
    onboard_date: Any = 0
    delivery_date: Any = 0
    price_precision: Any = None
    quantity_precision: Any = None
    st: Any = 0
    filters: Any = None


class _ExchangeInfo(msgspec.Struct, rename="camel"):
    symbols: list[msgspec.Raw]
    rate_limits: Any = None


@dataclass(frozen=True, slots=True)
class SymbolList:
    """What `exchangeInfo` holds: instruments, the weight limit per minute (0 if it says none), rows left out by reason.

    `unknown_statuses` are those that klagg does not know.
    """

    instruments: list[Instrument]
    weight_limit: int
    left_out: dict[str, int]
    unknown_statuses: frozenset[str]


_INFO_DECODER: Final = msgspec.json.Decoder(_ExchangeInfo)
_SYMBOL_DECODER: Final = msgspec.json.Decoder(_Symbol)


def parse_exchange_info(body: bytes, market: Market) -> SymbolList:
    """The symbol list of a market. A row that cannot be read is left out, counted and named in the log.

    Raises:
        MalformedMessage: the body is not a symbol list at all.
    """
    try:
        info = _INFO_DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MalformedMessage(f"exchangeInfo of {market} cannot be read ({error})") from error
    instruments: dict[str, Instrument] = {}
    left_out: Counter[str] = Counter()
    unknown: set[str] = set()
    for raw in info.symbols:
        try:
            row = _SYMBOL_DECODER.decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            left_out["unreadable"] += 1
            _tell_left_out(market, raw, str(error))
            continue
        if market is Market.USDM and _is_coin_margined(row):
            left_out["coin_margined"] += 1
            continue
        if not _is_name(row.symbol):
            left_out["odd_name"] += 1
            _tell_left_out(market, raw, "a name that no symbol can have")
            continue
        instrument = _instrument(row, market)
        if is_unknown(instrument):
            unknown.add(instrument.native_status)
        before = instruments.get(row.symbol)
        if before is not None:
            left_out["repeated"] += 1
            if before != instrument:
                _tell_left_out(market, raw, "a second row of its symbol, unlike the first")
            instrument = min(before, instrument, key=lambda one: _PREFERENCE.index(one.status))
        instruments[row.symbol] = instrument
    return SymbolList(list(instruments.values()), _weight_limit(info.rate_limits), dict(left_out), frozenset(unknown))


def is_unknown(instrument: Instrument) -> bool:
    """Whether the exchange's word for what a symbol is doing is none that klagg knows."""
    return instrument.native_status not in STATUSES[instrument.market]


def _tell_left_out(market: Market, raw: msgspec.Raw, reason: str) -> None:
    row_text = bytes(raw)[:80].decode("utf-8", "replace")
    log.warning("symbols.row_unreadable", market=market.value, reason=reason, row=row_text)


def _is_name(symbol: str) -> bool:
    """Whether a symbol can be asked for by its name: on the command line, in an address, in the name of a stream."""
    plain = symbol.translate({ord(char): None for char in "_-."})
    letters = all(unicodedata.category(char)[0] in "LMN" for char in plain)
    return 0 < len(plain) <= len(symbol) <= LONGEST_NAME and letters and symbol == symbol.upper()


def _is_coin_margined(row: _Symbol) -> bool:
    if row.st:
        return bool(row.st == COIN_MARGINED)
    if row.contract_status is not None and not row.status:
        return True
    return bool(row.margin_asset) and bool(row.margin_asset == row.base_asset)


def _instrument(row: _Symbol, market: Market) -> Instrument:
    filters = [one for one in row.filters if isinstance(one, dict)] if isinstance(row.filters, list) else []
    status = _text(row.status)
    return Instrument(
        market=market,
        symbol=row.symbol,
        status=STATUSES[market].get(status, Status.HALTED),
        price_scale=_scale(filters, "PRICE_FILTER", "tickSize"),
        qty_scale=_scale(filters, "LOT_SIZE", "stepSize"),
        base=_text(row.base_asset),
        quote=_text(row.quote_asset),
        listed_ms=_time(row.onboard_date),
        native_status=status,
        extra=_extra(row, market, filters),
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _time(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < _LATEST_MS else 0


def _precision(value: object) -> int | None:
    return value if isinstance(value, int) and 0 <= value <= MAX_SCALE else None


def _extra(row: _Symbol, market: Market, filters: list[dict[str, Any]]) -> dict[str, Any]:
    """What klagg itself has no use for, and hands on to those who read it as they read the exchange."""
    if market is Market.SPOT:
        return {"filters": filters}
    return {
        "contract_type": _text(row.contract_type),
        "underlying_type": _text(row.underlying_type),
        "margin_asset": _text(row.margin_asset),
        "delivery_ms": _time(row.delivery_date),
        "price_precision": _precision(row.price_precision),
        "qty_precision": _precision(row.quantity_precision),
        "filters": filters,
    }


def _scale(filters: list[dict[str, Any]], filter_type: str, key: str) -> int:
    """The fractional digits of a grid; 0 where there is none that can be read (the first trade will widen it)."""
    for entry in filters:
        if entry.get("filterType") == filter_type:
            text = entry.get(key, "0")
            if not isinstance(text, str):
                return 0  # a number of JSON has gone through a float
            try:
                parse(text)
            except NumberError:
                return 0
            return min(digits_of(text), MAX_SCALE)
    return 0


def _weight_limit(rows: object) -> int:
    """REQUEST_WEIGHT per minute; the strictest where there are several, 0 where none can be read."""
    limits = []
    for row in rows if isinstance(rows, list) else []:
        try:
            told = msgspec.convert(row, _RateLimit)
        except msgspec.MsgspecError:
            continue
        if told.rate_limit_type == "REQUEST_WEIGHT" and told.interval == "MINUTE" and told.interval_num > 0:
            limits.append(told.limit // told.interval_num)
    return min((limit for limit in limits if limit > 0), default=0)


def renames(before: Mapping[str, Instrument], now: Mapping[str, Instrument], before_ms: int) -> dict[str, str]:
    """The symbols that go on under another name between two whole lists fetched one after the other: new name by old.

    The exchange links no names: it lets one symbol go and lists another. Only a listing time proves that both are one contract:
    a name that was in no list at `before_ms`, yet says that it was listed before, continues a symbol that has vanished from the
    list (not one that is still there, settled) and had the same listing time, quote, margin and kind, and it must be the only
    such pair. Spot tells no listing times, so there a rename is a retirement and a listing.
    """
    gone = Counter(_contract(one) for symbol, one in before.items() if symbol not in now)
    came = Counter(_contract(one) for symbol, one in now.items() if symbol not in before)
    old = {_contract(one): symbol for symbol, one in before.items() if symbol not in now}
    return {
        old[_contract(one)]: symbol
        for symbol, one in now.items()
        if symbol not in before and 0 < one.listed_ms < before_ms and gone[_contract(one)] == came[_contract(one)] == 1
    }


def _contract(instrument: Instrument) -> tuple[object, ...]:
    kind = (instrument.extra.get(name) for name in ("contract_type", "underlying_type", "margin_asset"))
    return (instrument.listed_ms, instrument.quote, *kind)
