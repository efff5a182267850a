"""Whether a database is as klagg makes one: its tables and columns, and the types of its values.

SQLite itself refuses a value of a wrong type and a second row of one key, as long as the tables are the strict ones that klagg
made. A table that somebody made anew without that is read through once, at the opening.
"""
# ruff: noqa: S608  # statements are built from names that stand in this package; values are bound

import sqlite3
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from klagg.errors import MalformedRow, StoreError
from klagg.interval import INTERVALS
from klagg.store import schema

if TYPE_CHECKING:
    from klagg.store.database import Database

_TABLES: Final = """
  SELECT t.name, c.name, c.type, c."notnull", c.pk, t.strict
  FROM pragma_table_list t JOIN pragma_table_info(t.name) c
  WHERE t.schema = 'main' AND t.type = 'table' AND t.name NOT LIKE 'sqlite_%'"""
_MEND: Final = "correct or delete the row, or restore a copy"


@dataclass(slots=True)
class _Table:
    """A table's columns (name to type and whether it may be NULL), its key, and whether SQLite guards the types."""

    columns: dict[str, tuple[str, bool]]
    key: set[str]
    strict: bool


def _tables(rows: list[tuple[Any, ...]]) -> dict[str, _Table]:
    found: dict[str, _Table] = {}
    for table, column, kind, not_null, key, strict in rows:
        one = found.setdefault(table, _Table({}, set(), strict=bool(strict)))
        one.columns[column] = kind, not (not_null or key)
        if key:
            one.key.add(column)
    return found


@cache
def _expected() -> dict[str, _Table]:
    """The tables of a new database."""
    connection = sqlite3.connect(":memory:")
    try:
        connection.executescript("".join(schema.MIGRATIONS))
        return _tables(connection.execute(_TABLES).fetchall())
    finally:
        connection.close()


def check_tables(database: "Database") -> None:
    """Check a database of the current version.

    Raises:
        StoreError: a table or a column is missing.
        MalformedRow: a value of a wrong type, or two rows of one key; names what it is of, field and value.

    """
    there = _tables(database.all(_TABLES))
    for name, expected in _expected().items():
        if name not in there:
            raise StoreError(
                f"{database.path}: klagg's table {name} is missing: restore a copy, or name another file with --db"
            )
        lacking = expected.columns.keys() - there[name].columns.keys()
        if lacking:
            raise StoreError(
                f"{database.path}: klagg's table {name} has no column {min(lacking)}: restore a copy, or name another "
                "file with --db"
            )
    for name, expected in _expected().items():
        if not there[name].strict or there[name].columns != expected.columns:
            _check_types(database, name, expected)
        if there[name].key != expected.key:
            _check_keys(database, name, expected)


def _check_types(database: "Database", name: str, expected: _Table) -> None:
    columns = list(expected.columns)
    wrong = [
        f"typeof({column}) NOT IN ('{kind.lower()}'{', ' + repr('null') if nullable else ''})"
        for column, (kind, nullable) in expected.columns.items()
    ]
    row = database.one(f"SELECT {', '.join(columns)} FROM {name} WHERE {' OR '.join(wrong)} LIMIT 1")
    if row is None:
        return
    types = {"INTEGER": int, "TEXT": str, "BLOB": bytes}
    for column, value in zip(columns, row, strict=True):
        kind, nullable = expected.columns[column]
        if type(value) is not types[kind] and not (value is None and nullable):
            shown = "NULL" if value is None else repr(value)[:60]
            what = {"INTEGER": "a whole number", "TEXT": "text", "BLOB": "bytes"}[kind]
            raise MalformedRow(
                f"{database.path}: table {name}: {_name(database, columns, row)}{column} is {shown}, not {what}: {_MEND}"
            )


def _check_keys(database: "Database", name: str, expected: _Table) -> None:
    key = [column for column in expected.columns if column in expected.key]
    row = database.one(f"SELECT {', '.join(key)} FROM {name} GROUP BY {', '.join(key)} HAVING count(*) > 1 LIMIT 1")
    if row is not None:
        values = " ".join(f"{column} {value}" for column, value in zip(key, row, strict=True))
        raise MalformedRow(
            f"{database.path}: table {name}: {_name(database, key, row)}there are several rows of {values}: delete all but "
            "one, or restore a copy"
        )


def _name(database: "Database", columns: list[str], row: tuple[Any, ...]) -> str:
    """Symbol, interval and open time of a row as far as it tells them, with a colon; or nothing."""
    values = dict(zip(columns, row, strict=True))
    words: list[str] = []
    series = values.get("series")
    if isinstance(series, int):
        words += [_symbol(database, series // schema.SERIES_INTERVALS)]
        code = series % schema.SERIES_INTERVALS
        words += [INTERVALS[code].name if code < len(INTERVALS) else f"interval code {code}"]
    elif "instrument" in values:
        words += [_symbol(database, values["instrument"])]
    else:
        words += [str(values[column]) for column in ("market", "symbol") if values.get(column)]
    if "open_ms" in values:
        words += [f"open_ms {values['open_ms']}"]
    return f"{' '.join(words)}: " if words else ""


def _symbol(database: "Database", instrument_id: object) -> str:
    row = database.one("SELECT market, symbol FROM instrument WHERE id = ?", (instrument_id,))
    return f"{row[0]} {row[1]}" if row else f"instrument {instrument_id} (missing in table instrument)"
