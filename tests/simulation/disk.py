"""The store off the event loop, as the service uses it, on virtual time and with the faults of a disk."""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from klagg.errors import StoreError, StoreUnavailable
from klagg.store import Commit, CommitResult, SqliteStore
from klagg.store.database import open_database
from simulation.exchange import Exchange
from simulation.plan import Plan
from simulation.power import Synced

CALL_S = 0.0007
MAX_WAITING_CALLS = 256


class Disk:
    """Stands for `StoreThread`: one call at a time, in order, commits before all others.

    `due` is told before a call begins, at each of its statements, and after it has ended: each may be the last.
    """

    def __init__(self, plan: Plan, exchange: Exchange, path: Path, life: str) -> None:
        full = plan.world == "power_full"
        self._database = open_database(path, "create", "FULL" if full else "NORMAL")
        self.synced = Synced(path, full=full)
        self.store = SqliteStore(self._database)
        self.due: Callable[[], None] = _nothing
        self.committed: Callable[[Commit, CommitResult], None] = _ignore
        self._plan = plan
        self._exchange = exchange
        self._chance = random.Random(f"{plan.seed} disk {life}")
        self._commits: deque[tuple[Callable[[], Any], asyncio.Future[Any], bool]] = deque()
        self._calls: deque[tuple[Callable[[], Any], asyncio.Future[Any], bool]] = deque()
        self._places = asyncio.Semaphore(MAX_WAITING_CALLS)
        self._wake = asyncio.Event()
        self._closing = False
        self._fails_at = -1
        self._statements = 0
        for name in ("execute", "executemany"):
            setattr(self._database, name, self._counted(getattr(self._database, name)))
        self._worker = asyncio.get_running_loop().create_task(self._run())

    # What the service calls

    async def call(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        async with self._places:
            return await self._submit(self._calls, lambda: fn(*args, **kwargs), is_commit=False)

    async def commit(self, batch: Commit) -> CommitResult:
        return await self._submit(self._commits, lambda: self._commit(batch), is_commit=True)

    async def commit_all(self, batches: Sequence[Commit]) -> CommitResult:
        return await self._submit(self._commits, lambda: self.store.commit_all(batches), is_commit=True)

    async def checkpoint(self) -> None:
        await asyncio.sleep(CALL_S)
        if self._plan.world.startswith("power"):
            self.store.checkpoint()
            self.synced.checkpointed()

    async def close(self) -> None:
        self._closing = True
        self._wake.set()
        await self._worker

    @property
    def waiting(self) -> int:
        return len(self._commits) + len(self._calls)

    def tear(self) -> None:
        """The process is gone: the system closes its files, and what was not committed is rolled back."""
        if self._worker.done():
            self._worker.exception()
        self.store.close()

    # The thread

    def _commit(self, batch: Commit) -> CommitResult:
        result = self.store.commit(batch)
        self.committed(batch, result)
        return result

    async def _submit(self, queue: deque, run: Callable[[], Any], *, is_commit: bool) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._closing:
            raise StoreError(f"{self.store.path}: the store is closed")
        queue.append((run, future, is_commit))
        self._wake.set()
        return await future

    async def _run(self) -> None:
        while True:
            queue = self._commits or self._calls
            if not queue:
                if self._closing:
                    break
                self._wake.clear()
                await self._wake.wait()
                continue
            run, future, is_commit = queue.popleft()
            if future.cancelled():
                continue
            slow = self._exchange.active("disk_slow")
            await asyncio.sleep(CALL_S if slow is None else slow.value * 4 * self._chance.random())
            self.due()
            try:
                result, error = self._faulty(run, is_commit=is_commit), None
            except Exception as raised:  # noqa: BLE001 - it is the caller's, whatever it is
                result, error = None, raised
            self.due()
            if not future.cancelled():
                if error is None:
                    future.set_result(result)
                else:
                    future.set_exception(error)
        self.store.close()

    def _faulty(self, run: Callable[[], Any], *, is_commit: bool) -> Any:
        exchange, path = self._exchange, self.store.path
        if exchange.active("disk_locked") is not None:
            raise StoreUnavailable(f"{path}: the database is locked by another process: it will be tried again")
        if exchange.active("disk_full") is not None:
            raise StoreUnavailable(f"{path}: the database cannot grow, the disk is full: free some space")
        if is_commit and exchange.strikes("commit_fails"):
            raise StoreUnavailable(f"{path}: the database met an input or output error: check the disk")
        self._statements = 0
        self._fails_at = self._chance.randrange(1, 12) if exchange.strikes("statement_fails") else -1
        try:
            result = run()
        finally:
            self._fails_at = -1
        if is_commit and exchange.strikes("commit_lost_answer"):
            # It is on the disk, but the answer was an error.
            raise StoreUnavailable(f"{path}: the database met an input or output error: check the disk")
        return result

    def _counted(self, statement: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any) -> Any:
            self.due()
            self._statements += 1
            if self._statements == self._fails_at:
                raise StoreUnavailable(f"{self.store.path}: the database met an input or output error: check the disk")
            return statement(*args)

        return counted


def _nothing() -> None:
    pass


def _ignore(*_: object) -> None:
    pass
