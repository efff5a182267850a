"""The durable store: candles under guard, instruments, ownership.

`open_store` is the way in, `filling` for commands that bring candles and end. The store is synchronous;
`klagg.store.thread.StoreThread` keeps it off the event loop.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from klagg.errors import KlaggError
from klagg.store.batches import Commit, CommitResult, WriteResult
from klagg.store.candles import UNVERIFIED
from klagg.store.changes import PastInstrument, Rename
from klagg.store.claims import LEASE_MS, Claim
from klagg.store.database import Mode, Synchronous, open_database
from klagg.store.events import Event, Kind, What
from klagg.store.gaps import GapRecord, GapState
from klagg.store.instruments import Life, StoredInstrument
from klagg.store.newest import Newest
from klagg.store.quarantine import Quarantined
from klagg.store.sqlite import CandleCount, SqliteStore
from klagg.store.states import States
from klagg.store.url import parse_db_url

__all__ = [
    "LEASE_MS",
    "UNVERIFIED",
    "CandleCount",
    "Claim",
    "Commit",
    "CommitResult",
    "Event",
    "GapRecord",
    "GapState",
    "Kind",
    "Life",
    "Mode",
    "Newest",
    "PastInstrument",
    "Quarantined",
    "Rename",
    "SqliteStore",
    "States",
    "StoredInstrument",
    "Synchronous",
    "What",
    "WriteResult",
    "filling",
    "open_store",
    "parse_db_url",
]


def open_store(url: str, *, mode: Mode, synchronous: Synchronous = "NORMAL") -> SqliteStore:
    """Open the database that a path or URL names.

    `create` makes it where there is none, `write` needs one, `read` changes nothing. `synchronous="NORMAL"` keeps what was
    committed through any end of the process; `"FULL"` also through a loss of power, at one disk flush per commit.

    Raises:
        UsageError: an unknown scheme.
        StoreError: one line that says what is wrong with the file and what to do.

    """
    return SqliteStore(open_database(parse_db_url(url), mode, synchronous))


@contextmanager
def filling(url: str) -> Iterator[SqliteStore]:
    """A database to fill, made where there is none; one made in vain goes again: it was left without any instrument.

    Raises:
        UsageError | StoreError: as `open_store`.

    """
    path = parse_db_url(url)
    is_new = not path.exists()
    try:
        store = open_store(url, mode="create")
    except KeyboardInterrupt:
        if is_new:
            _remove(path)
        raise
    try:
        yield store
    finally:
        store.close()
        if is_new and _is_empty(url):
            _remove(path)


def _remove(path: Path) -> None:
    for suffix in ("-wal", "-shm", ""):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _is_empty(url: str) -> bool:
    try:
        store = open_store(url, mode="read")
    except KlaggError:
        return False
    try:
        return not store.instruments()
    except KlaggError:
        return False
    finally:
        store.close()
