"""The columns of trade files: which column of a CSV is the price, which the time, and so on.

Sources: headers of data.binance.vision (`trades`, `aggTrades` of spot, USDT-M and COIN-M) and of a known stream recorder.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Literal

from klagg.model import Market

FileMarket = Market | Literal["coinm"]
"""The market a file is of; klagg keeps no COIN-M candles of its own, the name is for people."""


class Role(IntEnum):
    """What a CSV column is to a trade."""

    SKIP = 0
    ID = 1
    PRICE = 2
    QTY = 3
    FIRST_ID = 4
    LAST_ID = 5
    TIME = 6
    MAKER = 7
    ORDER_TYPE = 8
    SYMBOL = 9
    EVENT = 10
    RECEIVE = 11


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of one CSV file: a `Role` each, what kind of trades they are, and the market where they tell."""

    roles: tuple[Role, ...]
    kind: Literal["trades", "aggTrades"]
    market: FileMarket | None
    header: bytes = b""

    @property
    def says_symbol(self) -> bool:
        """Whether every row names its symbol."""
        return Role.SYMBOL in self.roles


_SINGLE_LETTERS: Final = {
    "a": "agg",
    "t": "id",
    "p": "price",
    "q": "qty",
    "f": "first",
    "l": "last",
    "T": "time",
    "m": "maker",
    "X": "order_type",
    "s": "symbol",
    "e": "event",
    "E": "",
    "M": "best",
}
_NAMES: Final = {
    "aggtradeid": "agg",
    "aggregatetradeid": "agg",
    "id": "id",
    "tradeid": "id",
    "price": "price",
    "quantity": "qty",
    "qty": "qty",
    "firsttradeid": "first",
    "lasttradeid": "last",
    "transacttime": "time",
    "transactiontime": "time",
    "tradetime": "time",
    "time": "time",
    "timestamp": "timestamp",
    "isbuyermaker": "maker",
    "isbuyermarketmaker": "maker",
    "wasbuyermaker": "maker",
    "xunknownparameter": "order_type",
    "ordertype": "order_type",
    "symbol": "symbol",
    "eventtype": "event",
    "timestampofreceive": "receive",
    "receivetime": "receive",
    "isbestmatch": "best",
    "wasbestprice": "best",
    "munknownparameter": "best",
    "baseqty": "base_qty",
}
_ROLE: Final = {
    "price": Role.PRICE,
    "qty": Role.QTY,
    "first": Role.FIRST_ID,
    "last": Role.LAST_ID,
    "time": Role.TIME,
    "maker": Role.MAKER,
    "order_type": Role.ORDER_TYPE,
    "symbol": Role.SYMBOL,
    "event": Role.EVENT,
    "receive": Role.RECEIVE,
}
_NEEDED: Final = {"price": "price", "qty": "quantity", "time": "trade time", "maker": "is_buyer_maker"}

_TRADES: Final = (Role.ID, Role.PRICE, Role.QTY, Role.SKIP, Role.TIME, Role.MAKER)
_AGG_TRADES: Final = (
    Role.ID,
    Role.PRICE,
    Role.QTY,
    Role.FIRST_ID,
    Role.LAST_ID,
    Role.TIME,
    Role.MAKER,
)
_BOOLEANS: Final = {"true", "false"}


class UnknownLayout(Exception):
    """The first line fits no file klagg knows; the message is the reason."""


def headerless(line: str) -> Layout:
    """The layout of an archive file without a header, told by its first row.

    Raises:
        UnknownLayout: it is none of them.

    """
    cells = [cell.strip().strip('"').strip().lower() for cell in line.split(",")]
    count = len(cells)
    if count in {6, 7} and cells[5] in _BOOLEANS:
        best = count == 7
        return Layout(_TRADES + (Role.SKIP,) * best, "trades", Market.SPOT if best else None)
    if count in {7, 8} and cells[6] in _BOOLEANS:
        best = count == 8
        return Layout(_AGG_TRADES + (Role.SKIP,) * best, "aggTrades", Market.SPOT if best else None)
    raise UnknownLayout(
        f"a row of {count} columns without a header above it is neither trades (id, price, qty, quote_qty, time, "
        "is_buyer_maker) nor aggTrades"
    )


def from_header(line: str) -> Layout:
    """The layout that a header line names.

    Raises:
        UnknownLayout: a needed column is not named, or one is named twice.

    """
    names = []
    for cell in line.split(","):
        name = cell.strip().strip('"')
        known = _SINGLE_LETTERS.get(name) if len(name) == 1 else _NAMES.get(name.lower().replace("_", ""))
        names.append(known or "")
    if "timestamp" in names:
        # The trade's time where nothing else is; beside a trade time it is somebody's own clock.
        names[names.index("timestamp")] = "" if "time" in names else "time"
    for name in {*names} - {""}:
        if names.count(name) > 1:
            raise UnknownLayout(f"the header names two columns for {name!r}")
    # In a single trade `a` is the seller's order, in an aggregate it is the aggregate's id.
    aggregates = "agg" in names and ("first" in names or "id" not in names)
    id_name = "agg" if aggregates else "id"
    needed = {id_name: "trade id"} | _NEEDED
    if aggregates:
        needed |= {"first": "first trade id", "last": "last trade id"}
    missing = [text for name, text in needed.items() if name not in names]
    if missing:
        raise UnknownLayout(f"the header names no column for {', '.join(missing)}: not a file of trades")
    roles = tuple(Role.ID if name == id_name else _ROLE.get(name, Role.SKIP) for name in names)
    market: FileMarket | None = None
    if "best" in names and "order_type" not in names:
        market = Market.SPOT
    elif "base_qty" in names:
        market = "coinm"
    return Layout(roles, "aggTrades" if aggregates else "trades", market, line.encode())
