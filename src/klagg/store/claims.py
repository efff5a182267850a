"""Ownership: who may close candles, by an epoch in the database and a lock of the operating system beside it.

Source of the rules: one owner per virtual shard; each claim raises the epoch; every fenced transaction proves its epoch
first. The lock only shortens the wait after a crash: it is free the moment its holder dies, whatever the lease says.
"""
# ruff: noqa: S608  # statements are built from names that stand in this package; values are bound

import fcntl
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np

from klagg.errors import ClaimLost, ClaimRefused, StoreError
from klagg.model import VIRTUAL_SHARDS, Ints, Market
from klagg.store.database import Database

LEASE_MS: Final = 15_000
"""How long a claim stays fresh without being renewed."""


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """The ownership of all virtual shards of a market.

    `closed_upto` (int64[256]) is what each shard's minutes were closed up to when the claim was made; 0 for never.
    """

    market: Market
    epoch: int
    owner: str
    lease_ms: int
    closed_upto: Ints


@dataclass(frozen=True, slots=True)
class Ownership:
    """Who owns a market's shards, as the database says: `owner` is empty after a release."""

    owner: str
    epoch: int
    lease_until_ms: int


class OwnerLock:
    """The operating system's lock of one market of one database: the file `<db>-lock-<market>`, holding the owner's name.

    The file stays when the lock is given back (removing it would let two processes hold two files of one name).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Take the lock if it is free; whether this process holds it now."""
        if self._descriptor is not None:
            return True
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreError(
                f"{self.path}: the lock cannot be opened: {error.strerror}: check the directory"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def last_owner(self) -> str:
        """The name its last holder wrote; only while the lock is held."""
        assert self._descriptor is not None
        return os.pread(self._descriptor, 4096, 0).decode(errors="replace")

    def write_owner(self, owner: str) -> None:
        """Say who holds it, if this process does."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, owner.encode(), 0)

    def release(self) -> None:
        """Give the lock back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def claim(
    database: Database, lock: OwnerLock, market: Market, *, owner: str, now_ms: int, lease_ms: int, take_over: bool
) -> Claim:
    """Become the owner of a market's shards: the epoch rises by one.

    Raises:
        ClaimRefused: another's lease is fresh, it is not known to be dead, and `take_over` is not given.

    """
    assert owner
    held_before = lock.acquire()
    claimed = False
    try:
        with database.transaction():
            rows = database.all(
                "SELECT epoch, owner, lease_until_ms FROM shard WHERE market = ? ORDER BY lease_until_ms DESC",
                (market.value,),
            )
            for _, other, lease_until_ms in rows[:1]:
                # Whoever wrote its name into the lock we now hold has lost it: that process is gone.
                gone = held_before and lock.last_owner() == other
                if other and lease_until_ms > now_ms and not gone and not take_over:
                    until = datetime.fromtimestamp(lease_until_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                    raise ClaimRefused(
                        f"{database.path}: market {market.value} is owned by {other} until {until}: "
                        "stop that process, wait, or take it over with --take-over"
                    )
            epoch = 1 + max((row[0] for row in rows), default=0)
            database.executemany(
                "INSERT INTO shard (market, id, epoch, owner, lease_until_ms, closed_upto_ms) VALUES (?, ?, ?, ?, ?, 0) "
                "ON CONFLICT DO UPDATE SET epoch = excluded.epoch, owner = excluded.owner, "
                "lease_until_ms = excluded.lease_until_ms",
                [(market.value, shard, epoch, owner, now_ms + lease_ms) for shard in range(VIRTUAL_SHARDS)],
            )
            closed_upto = np.array(
                [
                    row[0]
                    for row in database.rows("SELECT closed_upto_ms FROM shard WHERE market = ? ORDER BY id", (market,))
                ],
                np.int64,
            )
        claimed = True
    finally:
        if not claimed:
            lock.release()
    lock.write_owner(owner)
    return Claim(market, epoch, owner, lease_ms, closed_upto)


def ownership(database: Database, market: Market) -> Ownership | None:
    """The newest claim of a market; None where there never was one."""
    row = database.one(
        "SELECT owner, epoch, lease_until_ms FROM shard WHERE market = ? ORDER BY epoch DESC, lease_until_ms DESC LIMIT 1",
        (market.value,),
    )
    return Ownership(*row) if row else None


def fence(database: Database, held: Claim, shards: Sequence[int], closed_upto_ms: int, now_ms: int | None) -> None:
    """Prove the claim inside a transaction: move `closed_upto` (never back) and the lease where the epoch still matches.

    Raises:
        ClaimLost: a shard's epoch has moved on; the caller's transaction must roll back.

    """
    lease_until_ms = 0 if now_ms is None else now_ms + held.lease_ms
    everything = len(shards) == VIRTUAL_SHARDS
    moved = database.execute(
        "UPDATE shard SET closed_upto_ms = max(closed_upto_ms, ?), lease_until_ms = max(lease_until_ms, ?) "
        f"WHERE market = ? AND epoch = ?{'' if everything else ' AND id IN (SELECT value FROM json_each(?))'}",
        (
            closed_upto_ms,
            lease_until_ms,
            held.market.value,
            held.epoch,
            *(() if everything else (str([int(shard) for shard in shards]),)),
        ),
    ).rowcount
    if moved != len(shards):
        raise _lost(database, held)


def renew(database: Database, lock: OwnerLock, held: Claim, now_ms: int) -> None:
    """Extend the lease (and take the lock, where a taken-over owner held it at the claim).

    Raises:
        ClaimLost: another owner has taken over.

    """
    with database.transaction():
        fence(database, held, range(VIRTUAL_SHARDS), 0, now_ms)
    if lock.acquire():
        lock.write_owner(held.owner)


def release(database: Database, lock: OwnerLock, held: Claim) -> None:
    """End the lease at once, so that the next owner need not wait. A claim already lost is left alone."""
    try:
        with database.transaction():
            database.execute(
                "UPDATE shard SET owner = '', lease_until_ms = 0 WHERE market = ? AND epoch = ?",
                (held.market.value, held.epoch),
            )
    finally:
        lock.release()


def _lost(database: Database, held: Claim) -> ClaimLost:
    row = database.one(
        "SELECT owner, epoch FROM shard WHERE market = ? ORDER BY epoch DESC LIMIT 1", (held.market.value,)
    )
    owner, epoch = row or ("nobody", 0)
    return ClaimLost(
        f"{database.path}: market {held.market.value} was taken over by {owner} (epoch {epoch}, ours was {held.epoch}): "
        "this process must stop writing"
    )
