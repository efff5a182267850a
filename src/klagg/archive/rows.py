"""One row of a trade CSV, read plainly: the judge of every row the kernel does not take, and its twin in the tests."""

import csv
import re
from decimal import Decimal, InvalidOperation
from typing import Final, NamedTuple

from klagg import fixed
from klagg.archive.layout import Layout, Role
from klagg.errors import NumberError
from klagg.model import TradeKind
from klagg.rules import NO_MARKET_ORDERS

TRADE_EVENTS: Final = {"trade", "aggTrade"}
MAX_ID: Final = 2**63 - 1

_EXPONENT: Final = re.compile(r"[+-]?\d+(?:\.\d*)?[eE][+-]?\d{1,3}", re.ASCII)
_FLOAT: Final = re.compile(r"-?\d{1,19}(?:\.\d{0,18})?(?:[eE][+-]?\d{1,2})?", re.ASCII)
_INTEGER: Final = re.compile(r"-?\d{1,19}", re.ASCII)


class BadRow(Exception):
    """A row that cannot be read; the message is the reason."""


class Row(NamedTuple):
    """The values of one trade, as the columns of `TRADE` have them; `receive_ms` is -1 where the row does not say."""

    symbol: str
    price_scale: int
    qty_scale: int
    buyer_is_maker: bool
    kind: TradeKind
    agg_id: int
    price: int
    qty: int
    first_id: int
    last_id: int
    time_ms: int
    receive_ms: int


def plain(text: str, what: str) -> str:
    """A number without an exponent, which data frames and recorders that went through floats write.

    Raises:
        BadRow: the exponent is none of a price or an amount.

    """
    if not _EXPONENT.fullmatch(text):
        return text
    try:
        return format(Decimal(text), "f")
    except InvalidOperation as error:  # pragma: no cover - the pattern admits only what Decimal reads
        raise BadRow(f"{what} {text!r} is not a number") from error


def exact(text: str, what: str) -> tuple[int, int]:
    """The mantissa and scale of a price or quantity; recorders that went through floats may have written an exponent.

    Raises:
        BadRow: not a number, negative, or more digits than can be held exactly.

    """
    try:
        mantissa, scale = fixed.parse(plain(text, what))
    except NumberError as error:
        raise BadRow(f"{what} {error}") from error
    if mantissa < 0:
        raise BadRow(f"{what} {text} is negative")
    return mantissa, scale


def time_ms_of(value: int, what: str = "time") -> int:
    """UTC milliseconds of an exchange time in milliseconds (13 digits) or microseconds (16 digits), floored.

    Raises:
        BadRow: it has another number of digits.

    """
    if 10**12 <= value < 10**13:
        return value
    if 10**15 <= value < 10**16:
        return value // 1000
    raise BadRow(f"{what} {value} is neither milliseconds (13 digits) nor microseconds (16 digits)")


def integer(text: str, what: str) -> int:
    """A whole number of at most 63 bits.

    Raises:
        BadRow: it is none.

    """
    if _FLOAT.fullmatch(text) and (number := Decimal(text)) == number.to_integral_value():
        # A data frame that had a gap in the column writes whole numbers as 7.0 or 1.7e+12.
        text = str(int(number))
    if not _INTEGER.fullmatch(text) or abs(value := int(text)) > MAX_ID:
        raise BadRow(f"{what} {text[:40]!r} is not a whole number")
    return value


def _boolean(text: str) -> bool:
    known = {"true": True, "1": True, "false": False, "0": False}.get(text.lower())
    if known is None:
        raise BadRow(f"is_buyer_maker {text[:40]!r} is neither true nor false")
    return known


def trade_kind(price: int, qty: int, order_type: str) -> TradeKind:
    """What a trade is: its order type is one that klagg knows, and a market trade has a price and a quantity."""
    if order_type in NO_MARKET_ORDERS:
        return TradeKind.OTHER
    return TradeKind.MARKET if price and qty and order_type == "MARKET" else TradeKind.UNPROVEN


def parse_row(line: str, layout: Layout, symbol: str) -> Row | str:
    """One row of a CSV of trades (without its line end), or the name of the event it is of where that is no trade.

    Args:
        line: the row's text.
        layout: the file's columns.
        symbol: the symbol where the rows do not say it.

    Raises:
        BadRow: the row cannot be read; the message is the reason.

    """
    cells = [cell.strip() for cell in (next(csv.reader([line])) if '"' in line else line.split(","))]
    roles = layout.roles
    if len(cells) != len(roles):
        raise BadRow(f"{len(cells)} columns where {len(roles)} are expected")
    texts: dict[Role, str] = {role: cell for role, cell in zip(roles, cells, strict=True) if role is not Role.SKIP}
    event = texts.get(Role.EVENT, "trade")
    if event not in TRADE_EVENTS:
        return event or "unnamed"
    return _row_of(texts, symbol)


def _row_of(texts: dict[Role, str], symbol: str) -> Row:
    price, price_scale = exact(texts[Role.PRICE], "price")
    qty, qty_scale = exact(texts[Role.QTY], "quantity")
    agg_id = integer(texts[Role.ID], "trade id")
    if agg_id < 0:
        raise BadRow(f"trade id {agg_id} is negative")
    first_id = integer(texts[Role.FIRST_ID], "first trade id") if Role.FIRST_ID in texts else agg_id
    last_id = integer(texts[Role.LAST_ID], "last trade id") if Role.LAST_ID in texts else agg_id
    if last_id < first_id:
        raise BadRow(f"last trade id {last_id} is before the first, {first_id}")
    name = texts.get(Role.SYMBOL, symbol)
    if not name:
        raise BadRow("the symbol is empty")
    return Row(
        name,
        price_scale,
        qty_scale,
        _boolean(texts[Role.MAKER]),
        trade_kind(price, qty, texts.get(Role.ORDER_TYPE, "MARKET")),
        agg_id,
        price,
        qty,
        first_id,
        last_id,
        time_ms_of(integer(texts[Role.TIME], "time")),
        time_ms_of(integer(texts[Role.RECEIVE], "receive time"), "receive time") if Role.RECEIVE in texts else -1,
    )
