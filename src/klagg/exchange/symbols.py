"""The exchange's symbol list (`exchangeInfo`): typed, tolerant of what is new, and turned into instruments.

Grids are PRICE_FILTER's tick and LOT_SIZE's step; `pricePrecision` and `quantityPrecision` are something else. Unknown
statuses, contract types and fields appear without notice and must not matter.
"""

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
"""What the exchange's statuses mean; one that is not here means HALTED: known to the exchange, nothing said for good."""

COIN_MARGINED: Final = 2
"""The `st` of COIN-M rows, which since 2026-06-30 may appear among USDT-M's."""


class _RateLimit(msgspec.Struct):
    rate_limit_type: str = msgspec.field(name="rateLimitType", default="")
    interval: str = ""
    interval_num: int = msgspec.field(name="intervalNum", default=1)
    limit: int = 0


class _Symbol(msgspec.Struct, rename="camel"):
    symbol: str
    status: str = ""
    base_asset: str = ""
    quote_asset: str = ""
    margin_asset: str = ""
    contract_type: str = ""
    underlying_type: str = ""
    contract_status: str | None = None
    onboard_date: int = 0
    delivery_date: int = 0
    price_precision: int | None = None
    quantity_precision: int | None = None
    st: int = 0
    filters: list[dict[str, Any]] = []


class _ExchangeInfo(msgspec.Struct, rename="camel"):
    symbols: list[msgspec.Raw]
    rate_limits: list[msgspec.Raw] = []


@dataclass(frozen=True, slots=True)
class SymbolList:
    """What `exchangeInfo` holds: instruments, the weight limit per minute (0 if it says none), rows left out by reason.

    `unknown_statuses` are those that klagg takes as HALTED because it does not know them.
    """

    instruments: list[Instrument]
    weight_limit: int
    left_out: dict[str, int]
    unknown_statuses: frozenset[str]


_INFO_DECODER: Final = msgspec.json.Decoder(_ExchangeInfo)
_SYMBOL_DECODER: Final = msgspec.json.Decoder(_Symbol)
_LIMIT_DECODER: Final = msgspec.json.Decoder(_RateLimit)


def parse_exchange_info(body: bytes, market: Market) -> SymbolList:
    """The symbol list of a market. A row that cannot be read is left out, counted and named in the log.

    Raises:
        MalformedMessage: the body is not a symbol list at all.
    """
    try:
        info = _INFO_DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MalformedMessage(f"exchangeInfo of {market} cannot be read ({error})") from error
    instruments: list[Instrument] = []
    left_out: dict[str, int] = {}
    unknown: set[str] = set()
    for raw in info.symbols:
        try:
            row = _SYMBOL_DECODER.decode(raw)
            if market is Market.USDM and _is_coin_margined(row):
                left_out["coin_margined"] = left_out.get("coin_margined", 0) + 1
                continue
            instrument = _instrument(row, market)
        except (msgspec.MsgspecError, NumberError, UnicodeDecodeError) as error:
            left_out["unreadable"] = left_out.get("unreadable", 0) + 1
            row_text = bytes(raw)[:80].decode("utf-8", "replace")
            log.warning("symbols.row_unreadable", market=market.value, reason=str(error), row=row_text)
            continue
        if row.status not in STATUSES[market]:
            unknown.add(row.status)
        instruments.append(instrument)
    return SymbolList(instruments, _weight_limit(info.rate_limits), left_out, frozenset(unknown))


def _is_coin_margined(row: _Symbol) -> bool:
    if row.st:
        return row.st == COIN_MARGINED
    if row.contract_status is not None and not row.status:
        return True
    return bool(row.margin_asset) and row.margin_asset == row.base_asset


def _instrument(row: _Symbol, market: Market) -> Instrument:
    price_scale, qty_scale = _scale(row, "PRICE_FILTER", "tickSize"), _scale(row, "LOT_SIZE", "stepSize")
    return Instrument(
        market=market,
        symbol=row.symbol,
        status=STATUSES[market].get(row.status, Status.HALTED),
        price_scale=price_scale,
        qty_scale=qty_scale,
        base=row.base_asset,
        quote=row.quote_asset,
        listed_ms=max(row.onboard_date, 0),
        native_status=row.status,
        extra=_extra(row, market),
    )


def _extra(row: _Symbol, market: Market) -> dict[str, Any]:
    """What klagg itself has no use for, and hands on to those who read it as they read the exchange."""
    if market is Market.SPOT:
        return {"filters": row.filters}
    return {
        "contract_type": row.contract_type,
        "underlying_type": row.underlying_type,
        "margin_asset": row.margin_asset,
        "delivery_ms": row.delivery_date,
        "price_precision": row.price_precision,
        "qty_precision": row.quantity_precision,
        "filters": row.filters,
    }


def _scale(row: _Symbol, filter_type: str, key: str) -> int:
    """The fractional digits of a grid; 0 where there is none (the first trade will widen it)."""
    for entry in row.filters:
        if entry.get("filterType") == filter_type:
            text = entry.get(key, "0")
            if not isinstance(text, str):
                return 0  # a number of JSON has gone through a float
            parse(text)
            return min(digits_of(text), MAX_SCALE)
    return 0


def _weight_limit(rows: list[msgspec.Raw]) -> int:
    """REQUEST_WEIGHT per minute; the strictest where there are several."""
    limits = []
    for raw in rows:
        try:
            row = _LIMIT_DECODER.decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        if row.rate_limit_type == "REQUEST_WEIGHT" and row.interval == "MINUTE" and row.interval_num > 0:
            limits.append(row.limit // row.interval_num)
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
