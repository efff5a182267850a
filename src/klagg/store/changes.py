"""What was known of an instrument and from when on it held: any past minute can be read with its own symbol list and scales.

One row is one change. It has two times: `at_ms` is the exchange's time at which klagg was told; `effective_ms` is from when on
it holds: where the exchange states one (the listing, the delivery), that, else `at_ms`. What was known first of a symbol is taken
to have held since its listing, or always where the exchange states none. Effective times of an instrument never fall.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

from klagg.errors import MalformedRow
from klagg.model import Instrument, Market, Status
from klagg.store.database import Database

_DORMANT = frozenset({Status.PENDING, Status.RETIRED})


@dataclass(frozen=True, slots=True)
class PastInstrument:
    """An instrument as it was at an instant: status, scales, listing and extra are those of then.

    `since_ms` is from when on it was so (0: not known), `told_ms` when klagg was told, which may be later than the instant.
    """

    id: int
    instrument: Instrument
    since_ms: int
    told_ms: int


@dataclass(frozen=True, slots=True)
class Rename:
    """An instrument that goes on under another name: `[.., at_ms)` is `instrument_id`'s, `[at_ms, ..)` is `successor_id`'s."""

    instrument_id: int
    successor_id: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Change:
    """One row of the table, without its times: what it says of the instrument."""

    status: Status
    native_status: str
    price_scale: int
    qty_scale: int
    listed_ms: int
    extra: str

    @staticmethod
    def of(instrument: Instrument, before: "Change | None") -> "Change":
        """What the exchange's list says. Of a symbol that has left nothing new is believed but that."""
        told = Change(
            instrument.status,
            instrument.native_status,
            instrument.price_scale,
            instrument.qty_scale,
            instrument.listed_ms,
            json.dumps(instrument.extra, sort_keys=True, default=str),
        )
        if before is None or instrument.status is not Status.RETIRED:
            return told
        return replace(told, price_scale=before.price_scale, qty_scale=before.qty_scale, listed_ms=before.listed_ms)


@dataclass(frozen=True, slots=True)
class Latest:
    """The newest change of an instrument."""

    number: int
    effective_ms: int
    change: Change


def latest(database: Database, market: Market) -> dict[int, Latest]:
    """The newest change of each instrument of a market."""
    rows = database.rows(
        "SELECT c.instrument, c.number, c.effective_ms, c.status, c.native_status, c.price_scale, c.qty_scale, c.listed_ms, "
        "c.extra FROM instrument i JOIN instrument_change c ON c.instrument = i.id "
        "AND c.number = (SELECT max(number) FROM instrument_change WHERE instrument = i.id) WHERE i.market = ?",
        (market.value,),
    )
    return {
        instrument_id: Latest(number, effective_ms, Change(_status(database, instrument_id, status), *facts))
        for instrument_id, number, effective_ms, status, *facts in rows
    }


def _status(database: Database, instrument_id: int, text: str) -> Status:
    try:
        return Status(text)
    except ValueError:
        raise MalformedRow(
            f"{database.path}: table instrument_change, instrument {instrument_id}: status is {text!r}: correct it, or restore "
            "a copy"
        ) from None


def extra_of(database: Database, symbol: str, text: str) -> dict[str, object]:
    """What else the exchange says of a symbol, as stored.

    Raises:
        MalformedRow: it is no JSON object.

    """
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise MalformedRow(
            f"{database.path}: table instrument, symbol {symbol}: extra is {text[:40]!r}, not a JSON object: correct it"
        )
    return value


def note(database: Database, instrument_id: int, instrument: Instrument, before: Latest | None, at_ms: int) -> None:
    """Keep what the exchange's list says of an instrument at `at_ms`, if it is anything new; part of the caller's transaction."""
    change = Change.of(instrument, None if before is None else before.change)
    if before is not None and change == before.change:
        return
    number = 0 if before is None else before.number + 1
    for effective_ms, row in _steps(instrument, change, before, at_ms):
        database.execute(
            "INSERT INTO instrument_change VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                instrument_id,
                number,
                at_ms,
                effective_ms,
                row.status.value,
                row.native_status,
                row.price_scale,
                row.qty_scale,
                row.listed_ms,
                row.extra,
            ),
        )
        number += 1


def _steps(instrument: Instrument, change: Change, before: Latest | None, at_ms: int) -> Iterator[tuple[int, Change]]:
    """The rows of one change, each with its effective time; two where a symbol is first seen after it has left."""
    listed_ms = min(instrument.listed_ms, at_ms)
    if change.status is Status.RETIRED:
        delivery_ms = instrument.extra.get("delivery_ms")
        told = isinstance(delivery_ms, int) and 0 < delivery_ms <= at_ms
        left_ms = delivery_ms if told and isinstance(delivery_ms, int) else at_ms
        if before is None and listed_ms < left_ms:
            yield listed_ms, replace(change, status=Status.TRADING, native_status="")
        yield max(left_ms, 0 if before is None else before.effective_ms), change
    elif before is None:
        yield (at_ms if change.status is Status.PENDING else listed_ms), change
    elif before.change.status in _DORMANT and change.status not in _DORMANT and instrument.listed_ms > 0:
        yield max(listed_ms, before.effective_ms), change
    else:
        yield max(at_ms, before.effective_ms), change


def at(database: Database, market: Market, t_ms: int) -> list[PastInstrument]:
    """The instruments that the market's list had at an instant and that had not left trading by then, by id."""
    rows = database.rows(
        "SELECT i.id, i.symbol, i.base, i.quote, c.effective_ms, c.at_ms, c.status, c.native_status, c.price_scale, "
        "c.qty_scale, c.listed_ms, c.extra FROM instrument i JOIN instrument_change c ON c.instrument = i.id "
        "AND c.number = (SELECT max(number) FROM instrument_change WHERE instrument = i.id AND effective_ms <= ?) "
        "WHERE i.market = ? AND c.status <> ? ORDER BY i.id",
        (t_ms, market.value, Status.RETIRED.value),
    )
    return [
        PastInstrument(
            number,
            Instrument(
                market,
                symbol,
                _status(database, number, status),
                price_scale,
                qty_scale,
                base,
                quote,
                listed_ms,
                native,
                extra_of(database, symbol, extra),
            ),
            since_ms,
            told_ms,
        )
        for number, symbol, base, quote, since_ms, told_ms, status, native, price_scale, qty_scale, listed_ms, extra in rows
    ]


def count(database: Database, market: Market) -> int:
    """How many changes of a market's instruments are kept, their first appearances included."""
    row = database.one(
        "SELECT count(*) FROM instrument_change c JOIN instrument i ON i.id = c.instrument WHERE i.market = ?",
        (market.value,),
    )
    return int(row[0]) if row else 0


def put_rename(database: Database, instrument_id: int, successor_id: int, at_ms: int) -> None:
    """Say that an instrument goes on as another; what was said first stays."""
    with database.transaction():
        database.execute("INSERT OR IGNORE INTO rename VALUES (?, ?, ?)", (instrument_id, successor_id, at_ms))


def renames(database: Database, market: Market) -> list[Rename]:
    """The renames of a market on record, oldest first."""
    rows = database.rows(
        "SELECT r.instrument, r.successor, r.at_ms FROM rename r JOIN instrument i ON i.id = r.instrument "
        "WHERE i.market = ? ORDER BY r.at_ms, r.instrument",
        (market.value,),
    )
    return [Rename(*row) for row in rows]
