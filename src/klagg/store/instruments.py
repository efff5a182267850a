"""The instruments of the database: identifiers for ever, scales that only widen, and the lives of a symbol."""
# ruff: noqa: S608  # statements are built from names that stand in this package; values are bound

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from klagg.errors import MalformedRow
from klagg.fixed import MAX_SCALE
from klagg.interval import INTERVALS, Interval
from klagg.model import VIRTUAL_SHARDS, Instrument, Ints, Market, Status, virtual_shard
from klagg.store import changes
from klagg.store.database import Database
from klagg.store.validate import FAR_MS

MARKETS: Final = tuple(Market)


@dataclass(frozen=True, slots=True)
class StoredInstrument:
    """An instrument with its identifier; `retired_ms` is when it left trading for good, None while it trades.

    The scales are the widest it ever had.
    """

    id: int
    instrument: Instrument
    retired_ms: int | None


@dataclass(frozen=True, slots=True)
class Life:
    """One listing of a symbol: `retired_ms` is None while it lasts."""

    listed_ms: int
    retired_ms: int | None


_COLUMNS: Final = "id, market, symbol, status, price_scale, qty_scale, base, quote, listed_ms, native_status, extra, retired_ms, shard"


def put(database: Database, instruments: Iterable[Instrument], at_ms: int) -> dict[str, int]:
    """Insert or update the instruments of one market as the exchange lists them at `at_ms`: the id of each symbol."""
    wanted = list(instruments)
    assert len({instrument.market for instrument in wanted}) <= 1, "one market at a time"
    if not wanted:
        return {}
    with database.transaction():
        known = {stored.instrument.symbol: stored for stored in read(database, wanted[0].market)}
        latest = changes.latest(database, wanted[0].market)
        ids = {}
        for instrument in wanted:
            instrument_id, listed_ms = _put_one(database, instrument, known.get(instrument.symbol), at_ms)
            told = replace(instrument, listed_ms=listed_ms)
            changes.note(database, instrument_id, told, latest.get(instrument_id), at_ms)
            ids[instrument.symbol] = instrument_id
        return ids


def _put_one(database: Database, instrument: Instrument, known: StoredInstrument | None, at_ms: int) -> tuple[int, int]:
    """The identifier of an instrument now stored, and when its present life began."""
    retired = instrument.status is Status.RETIRED
    if known is None:
        retired_ms = at_ms if retired else None
        row = database.all(
            "INSERT INTO instrument (market, symbol, status, price_scale, qty_scale, base, quote, listed_ms, native_status, "
            "extra, retired_ms, shard) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
            (
                instrument.market.value,
                instrument.symbol,
                *_facts(instrument, instrument.price_scale, instrument.qty_scale, instrument.listed_ms, retired_ms),
                virtual_shard(instrument.market, instrument.symbol),
            ),
        )
        instrument_id = int(row[0][0])
        database.execute("INSERT INTO life VALUES (?, 0, ?, ?)", (instrument_id, instrument.listed_ms, retired_ms))
        return instrument_id, instrument.listed_ms
    before = known.instrument
    relisted = known.retired_ms is not None and not retired
    retired_ms = (known.retired_ms or at_ms) if retired else None
    listed_ms = instrument.listed_ms or before.listed_ms
    if relisted and known.retired_ms is not None:
        # The exchange may still tell the first listing; the new life began when it was seen again.
        listed_ms = instrument.listed_ms if instrument.listed_ms >= known.retired_ms else at_ms
        database.execute(
            "INSERT INTO life SELECT ?1, max(number) + 1, ?2, NULL FROM life WHERE instrument = ?1",
            (known.id, listed_ms),
        )
    elif before.listed_ms and known.retired_ms is None and _number_of_lives(database, known.id) > 1:
        listed_ms = max(listed_ms, before.listed_ms)
    scales = max(before.price_scale, instrument.price_scale), max(before.qty_scale, instrument.qty_scale)
    database.execute(
        "UPDATE instrument SET status = ?, price_scale = ?, qty_scale = ?, base = ?, quote = ?, listed_ms = ?, "
        "native_status = ?, extra = ?, retired_ms = ? WHERE id = ?",
        (*_facts(instrument, *scales, listed_ms, retired_ms), known.id),
    )
    database.execute(
        "UPDATE life SET listed_ms = ?2, retired_ms = ?3 "
        "WHERE instrument = ?1 AND number = (SELECT max(number) FROM life WHERE instrument = ?1)",
        (known.id, listed_ms, retired_ms),
    )
    return known.id, listed_ms


def begin_life(database: Database, instrument_id: int, ended_ms: int, begun_ms: int) -> None:
    """Say that an instrument's trades of before `ended_ms` and those from `begun_ms` on are of two lives.

    Only where its present life holds both: what the exchange's list told of its lives stands.
    """
    with database.transaction():
        row = database.one(
            "SELECT number, listed_ms, retired_ms FROM life WHERE instrument = ? ORDER BY number DESC LIMIT 1",
            (instrument_id,),
        )
        if row is None or row[1] > ended_ms or (row[2] is not None and row[2] < begun_ms):
            return
        database.execute(
            "UPDATE life SET retired_ms = ? WHERE instrument = ? AND number = ?", (ended_ms, instrument_id, row[0])
        )
        database.execute("INSERT INTO life VALUES (?, ?, ?, ?)", (instrument_id, row[0] + 1, begun_ms, row[2]))
        database.execute("UPDATE instrument SET listed_ms = ? WHERE id = ?", (begun_ms, instrument_id))


def widen(database: Database, instrument_id: int, price_scale: int, qty_scale: int) -> None:
    """Make room for the digits of candles from elsewhere; what the exchange's list said is untouched."""
    with database.transaction():
        database.execute(
            "UPDATE instrument SET price_scale = max(price_scale, ?), qty_scale = max(qty_scale, ?) WHERE id = ?",
            (price_scale, qty_scale, instrument_id),
        )


def _facts(
    instrument: Instrument, price_scale: int, qty_scale: int, listed_ms: int, retired_ms: int | None
) -> tuple[str | int | None, ...]:
    return (
        instrument.status.value,
        price_scale,
        qty_scale,
        instrument.base,
        instrument.quote,
        listed_ms,
        instrument.native_status,
        json.dumps(instrument.extra, sort_keys=True, default=str),
        retired_ms,
    )


def _number_of_lives(database: Database, instrument_id: int) -> int:
    return int(database.all("SELECT count(*) FROM life WHERE instrument = ?", (instrument_id,))[0][0])


def read(database: Database, market: Market | None) -> list[StoredInstrument]:
    """The instruments of a market, or all, by id.

    Raises:
        MalformedRow: an unknown market or status, a scale out of range.

    """
    where, parameters = ("", ()) if market is None else (" WHERE market = ?", (market.value,))
    found = []
    for row in database.rows(f"SELECT {_COLUMNS} FROM instrument{where} ORDER BY id", parameters):
        (
            number,
            market_name,
            symbol,
            status,
            price_scale,
            qty_scale,
            base,
            quote,
            listed_ms,
            native,
            extra,
            retired_ms,
            shard,
        ) = row
        for name, value, valid in (
            ("market", market_name, market_name in {known.value for known in Market}),
            ("status", status, status in {known.value for known in Status}),
            ("price_scale", price_scale, 0 <= price_scale <= MAX_SCALE),
            ("qty_scale", qty_scale, 0 <= qty_scale <= MAX_SCALE),
            ("id", number, number > 0),
            ("symbol", symbol, bool(symbol)),
            ("listed_ms", listed_ms, 0 <= listed_ms < FAR_MS),
            ("retired_ms", retired_ms, retired_ms is None or 0 <= retired_ms < FAR_MS),
            ("shard", shard, 0 <= shard < VIRTUAL_SHARDS),
        ):
            if not valid:
                raise MalformedRow(
                    f"{database.path}: table instrument, symbol {symbol}: {name} is {value!r}: correct it, or restore a copy"
                )
        instrument = Instrument(
            Market(market_name),
            symbol,
            Status(status),
            price_scale,
            qty_scale,
            base,
            quote,
            listed_ms,
            native,
            changes.extra_of(database, symbol, extra),
        )
        found.append(StoredInstrument(number, instrument, retired_ms))
    return found


def lives(database: Database, instrument_id: int) -> list[Life]:
    """The listings of an instrument, oldest first."""
    rows = database.rows(
        "SELECT listed_ms, retired_ms FROM life WHERE instrument = ? ORDER BY number", (instrument_id,)
    )
    return [Life(listed_ms, retired_ms) for listed_ms, retired_ms in rows]


def put_intervals(database: Database, market: Market, intervals: Iterable[Interval]) -> None:
    """Say which intervals a market keeps, in place of what was said before."""
    with database.transaction():
        database.execute("DELETE FROM kept_interval WHERE market = ?", (market.value,))
        database.executemany(
            "INSERT INTO kept_interval VALUES (?, ?)", [(market.value, code) for code in {i.code for i in intervals}]
        )


def read_intervals(database: Database, market: Market) -> tuple[Interval, ...]:
    """The intervals a market keeps, shortest first; none where nothing was said."""
    codes = [
        row[0]
        for row in database.rows("SELECT code FROM kept_interval WHERE market = ? ORDER BY code", (market.value,))
    ]
    unknown = [code for code in codes if not 0 <= code < len(INTERVALS)]
    if unknown:
        raise MalformedRow(
            f"{database.path}: table kept_interval, market {market.value}: unknown code {unknown[0]}: delete it"
        )
    return tuple(INTERVALS[code] for code in codes)


class Directory:
    """Market and virtual shard of every instrument by id, as arrays; neither ever changes, so only new ids are read."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.markets: Ints = np.full(1, -1, np.int64)
        """Position in `MARKETS` by instrument id, -1 for an id there is not."""
        self.shards: Ints = np.full(1, -1, np.int64)

    def cover(self, instrument_ids: Ints) -> None:
        """Know these ids. Passing one that is in no table is the caller's mistake."""
        assert self.known(instrument_ids).all(), "an instrument id that put_instruments never gave"

    def known(self, instrument_ids: Ints) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Which of these ids are in the table."""
        if len(instrument_ids) and not self._known(instrument_ids).all():
            self._read()
        return self._known(instrument_ids)

    def _known(self, instrument_ids: Ints) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        inside = (instrument_ids >= 0) & (instrument_ids < len(self.markets))
        found: np.ndarray[tuple[int], np.dtype[np.bool_]] = inside & (
            self.markets[np.where(inside, instrument_ids, 0)] >= 0
        )
        return found

    def forget(self) -> None:
        """Read again at the next use: a transaction that gave ids was rolled back."""
        self.markets = np.full(1, -1, np.int64)
        self.shards = np.full(1, -1, np.int64)

    def _read(self) -> None:
        rows = self._database.all("SELECT id, market, shard FROM instrument")
        size = max((row[0] for row in rows), default=0) + 1
        self.markets, self.shards = np.full(size, -1, np.int64), np.full(size, -1, np.int64)
        position = {market.value: index for index, market in enumerate(MARKETS)}
        for number, market, shard in rows:
            self.markets[number] = position.get(market, -1)
            self.shards[number] = shard

    def name(self, instrument_id: int) -> str:
        """`market symbol` of an instrument, for messages."""
        row = self._database.one("SELECT market || ' ' || symbol FROM instrument WHERE id = ?", (instrument_id,))
        return str(row[0]) if row else f"instrument {instrument_id} (missing in table instrument)"
