"""The load at the start: the newest candle of every series, at a cost that only the number of series decides."""
# ruff: noqa: S608  # statements are built from names that stand in this package; values are bound

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from klagg.errors import MalformedRow
from klagg.fixed import MANTISSA_LIMIT, MAX_SCALE
from klagg.interval import Interval
from klagg.model import LAST_TRADE, Candles, Flag, Ints, Market, no_candles
from klagg.store.database import Database
from klagg.store.instruments import MARKETS, Directory
from klagg.store.rows import integers
from klagg.store.schema import SERIES_INTERVALS, VALUES
from klagg.store.validate import FAR_MS, check_candles, check_narrow, check_together


@dataclass(frozen=True, slots=True, eq=False)
class Newest:
    """The seeds of a computation.

    `candles[n]` (`CANDLE`, `slot` 0) belongs to `instrument_ids[n]`; `last_trades[m]` (`LAST_TRADE`, `slot` 0) belongs to
    `last_trade_instrument_ids[m]`. Ascending by instrument, then interval. A series without a row is simply not there.
    """

    instrument_ids: Ints
    candles: Candles
    last_trade_instrument_ids: Ints
    last_trades: np.ndarray[tuple[int], np.dtype[np.void]]


MAX_ID: Final = 1 << 62
"""No id of a trade is as high as this."""

# Fetching an integer into Python costs more than SQLite's own work, so the small columns travel in one. The bits of all
# columns of a group together are within the bound only if each column is; a row that does not fit (-1) is fetched whole.
_SMALL: Final = (5, ("origin", "price_scale", "qty_scale"))
_HIGH_WORDS: Final = (11, ("volume_hi", "quote_hi", "taker_volume_hi", "taker_quote_hi"))
_PACKED_BITS: Final = tuple((name, bits) for bits, names in (_SMALL, _HIGH_WORDS) for name in names)
_PLAIN: Final = tuple(name for name in VALUES if name not in dict(_PACKED_BITS))


def _packing() -> str:
    fits = " AND ".join(
        f"({' | '.join(f'c.{name}' for name in names)}) BETWEEN 0 AND {(1 << bits) - 1}"
        for bits, names in (_SMALL, _HIGH_WORDS)
    )
    shifted, shift = [], 0
    for name, bits in _PACKED_BITS:
        shifted.append(f"(c.{name} << {shift})")
        shift += bits
    assert shift < 63
    return f"CASE WHEN {fits} THEN {' | '.join(shifted)} ELSE -1 END"


_SELECT: Final = f"SELECT c.series, c.open_ms, {', '.join(f'c.{name}' for name in _PLAIN)}, {_packing()}"
_WIDTH: Final = len(_PLAIN) + 3
_WHOLE: Final = f"SELECT {', '.join(name for name, _ in _PACKED_BITS)} FROM {{table}} WHERE series = ? AND open_ms = ?"

_OPEN: Final = f"{_SELECT} FROM open_candle c ORDER BY c.series"
_CLOSED: Final = f"""{_SELECT}, c.verified
  FROM instrument i CROSS JOIN json_each(?2) k CROSS JOIN candle c
  WHERE i.market = ?1 AND c.series = i.id * {SERIES_INTERVALS} + k.value
    AND c.open_ms = (SELECT max(open_ms) FROM candle WHERE series = i.id * {SERIES_INTERVALS} + k.value)"""


def newest_open(database: Database, directory: Directory, market: Market, intervals: Iterable[Interval]) -> Newest:
    """The open snapshot of every series, and each instrument's last trade.

    Raises:
        MalformedRow: a row contradicts itself or belongs to no instrument.

    """
    table = integers(database.rows(_OPEN), _WIDTH)
    ids = _owners(database, directory, table[:, 0] // SERIES_INTERVALS, "open_candle")
    of_market = directory.markets[ids] == MARKETS.index(market)
    kept = np.isin(table[:, 0] % SERIES_INTERVALS, [interval.code for interval in intervals])
    unknown = table[:, 0] % SERIES_INTERVALS == SERIES_INTERVALS - 1
    table = table[of_market & (kept | unknown)]
    candles = _candles(database, directory, table, "open_candle")
    trade_ids, last_trades = _last_trades(database, directory, market)
    return Newest(table[:, 0] // SERIES_INTERVALS, candles, trade_ids, last_trades)


def newest_closed(database: Database, directory: Directory, market: Market, intervals: Iterable[Interval]) -> Newest:
    """The newest closed candle of every series, by one index seek each, and each instrument's last trade.

    Raises:
        MalformedRow: a row contradicts itself.

    """
    codes = sorted({interval.code for interval in intervals})
    table = integers(database.rows(_CLOSED, (market.value, str(codes))), _WIDTH + 1)
    table = table[np.argsort(table[:, 0], kind="stable")]
    _owners(database, directory, table[:, 0] // SERIES_INTERVALS, "candle")
    candles = _candles(database, directory, table, "candle")
    candles["flags"] = Flag.CLOSED.value | np.where(table[:, -1] != 0, Flag.VERIFIED.value, 0)
    trade_ids, last_trades = _last_trades(database, directory, market)
    return Newest(table[:, 0] // SERIES_INTERVALS, candles, trade_ids, last_trades)


def _candles(database: Database, directory: Directory, table: Ints, name: str) -> Candles:
    """The checked candles of rows as `_SELECT` gives them."""
    series, packed = table[:, 0], table[:, _WIDTH - 1]
    where = f"{database.path}: table {name}"
    columns: dict[str, Ints] = {}
    shift = 0
    for column, bits in _PACKED_BITS:
        columns[column] = (packed >> shift) & ((1 << bits) - 1)
        shift += bits
    for number in np.flatnonzero(packed < 0).tolist():
        row = database.one(_WHOLE.format(table=name), (int(series[number]), int(table[number, 1])))
        assert row is not None
        for (column, _), value in zip(_PACKED_BITS, row, strict=True):
            columns[column][number] = value
    check_narrow(series, columns, directory.name, where)
    candles = no_candles(len(table))
    candles["interval"] = series % SERIES_INTERVALS
    candles["open_ms"] = table[:, 1]
    for position, column in enumerate(_PLAIN, 2):
        candles[column] = table[:, position]
    for column, values in columns.items():
        candles[column] = values
    check_candles(series, candles, directory.name, where)
    check_together(series, candles, directory.name, where)
    return candles


def _owners(database: Database, directory: Directory, ids: Ints, table: str) -> Ints:
    """The same ids, all known."""
    known = directory.known(ids)
    if not known.all():
        orphan = int(ids[np.argmin(known)])
        raise MalformedRow(
            f"{database.path}: table {table}: a row belongs to instrument {orphan}, which is missing in table instrument: "
            "delete the row, or restore a copy"
        )
    return ids


def _last_trades(
    database: Database, directory: Directory, market: Market
) -> tuple[Ints, np.ndarray[tuple[int], np.dtype[np.void]]]:
    names = ("price_scale", "agg_id", "time_ms", "price")
    rows = database.rows(
        f"SELECT t.instrument, {', '.join(f't.{name}' for name in names)} FROM last_trade t JOIN instrument i "
        "ON i.id = t.instrument WHERE i.market = ? ORDER BY t.instrument",
        (market.value,),
    )
    table = integers(rows, 5)
    ids = table[:, 0]
    columns = {name: table[:, position] for position, name in enumerate(names, 1)}
    seen = columns["agg_id"] >= 0
    for name, bad in (
        ("price_scale", (columns["price_scale"] < 0) | (columns["price_scale"] > MAX_SCALE)),
        ("agg_id", (columns["agg_id"] < -1) | (columns["agg_id"] > MAX_ID)),
        ("time_ms", seen & ((columns["time_ms"] < 0) | (columns["time_ms"] > FAR_MS))),
        ("price", (columns["price"] < 0) | (columns["price"] >= MANTISSA_LIMIT) | (seen & (columns["price"] == 0))),
    ):
        if bad.any():
            number = int(np.argmax(bad))
            raise MalformedRow(
                f"{database.path}: table last_trade: {directory.name(int(ids[number]))}: {name} is {columns[name][number]}, "
                "which cannot be: delete the row, or restore a copy"
            )
    last_trades = np.zeros(len(table), LAST_TRADE)
    for name, values in columns.items():
        last_trades[name] = values
    return ids, last_trades
