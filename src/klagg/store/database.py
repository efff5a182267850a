"""One connection to one database file: opening it, its transactions, and its errors in klagg's words."""

import os
import sqlite3
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

from klagg.errors import StoreError, StoreUnavailable
from klagg.store import schema
from klagg.store.integrity import check_tables

Mode = Literal["create", "write", "read"]
Synchronous = Literal["NORMAL", "FULL"]

BUSY_TIMEOUT_MS: Final = 500
"""How long a statement waits for another process's transaction before `StoreUnavailable`; the caller retries."""
CACHE_KIB: Final = 64 * 1024
"""Page cache: the newest page of each of some 10,000 series stays in memory."""
AUTOCHECKPOINT_PAGES: Final = 16_384
"""64 MiB of log: a safety net for writers that never call `checkpoint`; those that do stay below it."""
KEPT_LOG_BYTES: Final = 64 * 1024 * 1024
"""The log file is cut back to this after a checkpoint that emptied it."""

_UNAVAILABLE: Final = {
    sqlite3.SQLITE_BUSY: "is locked by another process: it will be tried again, or stop that process",
    sqlite3.SQLITE_LOCKED: "is locked by another connection: it will be tried again",
    sqlite3.SQLITE_FULL: "cannot grow, the disk is full: free some space",
    sqlite3.SQLITE_IOERR: "met an input or output error: check the disk",
}
_UNUSABLE: Final = {
    sqlite3.SQLITE_READONLY: "is read-only: check the permissions of the file and its directory",
    sqlite3.SQLITE_PERM: "may not be used: check the permissions of the file and its directory",
    sqlite3.SQLITE_AUTH: "may not be used: check the permissions of the file and its directory",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened: check the permissions of the file and its directory",
    sqlite3.SQLITE_NOTADB: "is no database (or it is encrypted): name another file with --db",
    sqlite3.SQLITE_CORRUPT: "is damaged: restore it from a copy, or name another file with --db",
}


def translated(error: sqlite3.Error, path: Path) -> StoreError:
    """The error of klagg for one of SQLite's: `StoreUnavailable` where the same write may succeed later."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in _UNAVAILABLE:
        return StoreUnavailable(f"{path}: the database {_UNAVAILABLE[code]}")
    if code in _UNUSABLE:
        return StoreError(f"{path}: the database {_UNUSABLE[code]}")
    return StoreError(f"{path}: the database refused a statement: {error}")


class Database:
    """A connection whose errors are klagg's, used by one thread at a time."""

    def __init__(self, connection: sqlite3.Connection, path: Path, mode: Mode) -> None:
        self.connection = connection
        self.path = path
        self.mode = mode

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        """One statement."""
        try:
            return self.connection.execute(statement, parameters)
        except sqlite3.DatabaseError as error:
            raise translated(error, self.path) from error

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]]) -> int:
        """One statement for many rows: how many rows it changed."""
        try:
            return self.connection.executemany(statement, rows).rowcount
        except sqlite3.DatabaseError as error:
            raise translated(error, self.path) from error

    def rows(self, statement: str, parameters: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """The rows of a query, as they come."""
        try:
            # Not `yield from`: closing the generator early would close the cursor, and that may fail.
            for row in self.connection.execute(statement, parameters):  # noqa: UP028
                yield row
        except sqlite3.DatabaseError as error:
            raise translated(error, self.path) from error

    def all(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        try:
            return self.connection.execute(statement, parameters).fetchall()
        except sqlite3.DatabaseError as error:
            raise translated(error, self.path) from error

    def one(self, statement: str, parameters: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        """The first row of a query."""
        found = self.all(statement, parameters)
        return found[0] if found else None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A write transaction, taken at once (never upgraded later); inside another it is part of that one."""
        if self._in_transaction():
            yield
            return
        if self.mode == "read":
            raise StoreError(f"{self.path}: the database was opened for reading only")
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.execute("COMMIT")
        except BaseException:
            # A full disk or an input/output error may have rolled back already.
            if self._in_transaction():
                self.connection.rollback()
            raise

    def _in_transaction(self) -> bool:
        return self.connection.in_transaction

    def close(self) -> None:
        """Close the connection; what is not committed is rolled back."""
        self.connection.close()


def open_database(path: Path, mode: Mode, synchronous: Synchronous) -> Database:
    """Open a klagg database, making or migrating it as the mode allows.

    Raises:
        StoreError: no such file, not a file, no database, not klagg's, of a newer version, no permission.
        StoreUnavailable: locked, or the disk is full.

    """
    _check_file(path, mode)
    try:
        connection = _connect(path, mode)
    except sqlite3.DatabaseError as error:
        raise translated(error, path) from error
    database = Database(connection, path, mode)
    try:
        version = _identify(database)
        if mode == "read":
            _check_current(path, version)
        else:
            _configure(database, synchronous)
            _migrate(database)
        check_tables(database)
    except BaseException:
        connection.close()
        raise
    return database


def _check_file(path: Path, mode: Mode) -> None:
    """What can be said without SQLite, whose own words for these are one "unable to open"."""
    try:
        kind = path.stat().st_mode
    except FileNotFoundError:
        if mode != "create":
            raise StoreError(
                f"{path}: there is no such database: klagg run or klagg backfill makes one, or name another with --db"
            ) from None
        if not path.absolute().parent.is_dir():
            raise StoreError(
                f"{path}: the directory {path.absolute().parent} does not exist: make it, or name another with --db"
            ) from None
        if not os.access(path.absolute().parent, os.W_OK):
            raise StoreError(
                f"{path}: the directory {path.absolute().parent} may not be written: name another with --db"
            ) from None
        return
    except OSError as error:
        raise StoreError(f"{path}: the database cannot be opened: {error.strerror}") from error
    if stat.S_ISDIR(kind):
        raise StoreError(f"{path}: is a directory, not a database: name a file in it with --db")
    if not stat.S_ISREG(kind):
        raise StoreError(f"{path}: is not a regular file: name a database file with --db")
    # The file itself is never opened here: closing it would drop the locks that SQLite holds on it in this process.
    if not os.access(path, os.R_OK):
        raise StoreError(f"{path}: the database may not be read: check its permissions")
    # The log lies beside the file, so that a writer needs the directory too.
    if mode != "read" and not (os.access(path, os.W_OK) and os.access(path.absolute().parent, os.W_OK)):
        raise StoreError(f"{path}: the database {_UNUSABLE[sqlite3.SQLITE_READONLY]}")


def _connect(path: Path, mode: Mode) -> sqlite3.Connection:
    access = {"create": "rwc", "write": "rw", "read": "ro"}[mode]
    uri = path.absolute().as_uri()
    connection = _connect_uri(f"{uri}?mode={access}")
    if mode == "read" and not path.with_name(f"{path.name}-wal").exists():
        try:
            connection.execute("PRAGMA schema_version").fetchone()
        except sqlite3.OperationalError as error:
            connection.close()
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
                raise
            # A directory that cannot be written (a mounted snapshot) has no place for the log's index; without a log
            # nobody is writing, and the file can be read as it lies.
            connection = _connect_uri(f"{uri}?mode=ro&immutable=1")
    return connection


def _connect_uri(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(
        uri,
        uri=True,
        timeout=BUSY_TIMEOUT_MS / 1000,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )


def _identify(database: Database) -> int:
    """The version of a klagg database; 0 for an empty one, which only mode `create` may find."""
    path = database.path
    application_id, version = (database.all(f"PRAGMA {name}")[0][0] for name in ("application_id", "user_version"))
    if application_id != schema.APPLICATION_ID:
        empty = application_id == 0 and version == 0 and not database.one("SELECT 1 FROM sqlite_master LIMIT 1")
        if empty and database.all("PRAGMA page_count")[0][0] == 0 and path.stat().st_size > 0:
            # SQLite takes a file of some bytes for an empty database, and would write over it.
            raise StoreError(f"{path}: the database {_UNUSABLE[sqlite3.SQLITE_NOTADB]}")
        if empty and database.mode == "create":
            return 0
        if empty:
            raise StoreError(
                f"{path}: the database is empty: klagg run or klagg backfill fills one, or name another with --db"
            )
        raise StoreError(
            f"{path}: is a database of something else, without klagg's tables: name another file with --db"
        )
    known = len(schema.MIGRATIONS)
    if version > known:
        raise StoreError(f"{path}: the database has version {version}, this klagg knows {known}: use a newer klagg")
    return int(version)


def _check_current(path: Path, version: int) -> None:
    """A reader cannot migrate."""
    if version < len(schema.MIGRATIONS):
        raise StoreError(
            f"{path}: the database has the older version {version}, this klagg reads {len(schema.MIGRATIONS)}: "
            "open it once with a command that writes (klagg run, klagg backfill) to bring it up to date"
        )


def _configure(database: Database, synchronous: Synchronous) -> None:
    journal = database.all("PRAGMA journal_mode = WAL")[0][0]
    if journal != "wal":
        raise StoreError(
            f"{database.path}: the file system cannot hold a shared log (WAL): put the database on a local disk"
        )
    database.execute(f"PRAGMA synchronous = {synchronous}")
    database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    database.execute(f"PRAGMA wal_autocheckpoint = {AUTOCHECKPOINT_PAGES}")
    database.execute(f"PRAGMA journal_size_limit = {KEPT_LOG_BYTES}")
    database.execute("PRAGMA secure_delete = OFF")


def _migrate(database: Database) -> None:
    """Bring the database to the current version, all steps in one transaction."""
    if _version(database) == len(schema.MIGRATIONS):
        return
    with database.transaction():
        version = _version(database)  # another process may have migrated while this one waited
        for script in schema.MIGRATIONS[version:]:
            for statement in script.split(";\n"):
                if statement.strip():
                    database.execute(statement)
        database.execute(f"PRAGMA user_version = {len(schema.MIGRATIONS)}")
        database.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")


def _version(database: Database) -> int:
    return int(database.all("PRAGMA user_version")[0][0])
