"""The store off the event loop: one thread owns it, calls wait in a bounded queue, commits go first."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, ParamSpec, TypeVar

from klagg.errors import StoreError
from klagg.store.batches import Commit, CommitResult
from klagg.store.database import open_database
from klagg.store.sqlite import SqliteStore

P = ParamSpec("P")
T = TypeVar("T")

MAX_WAITING_CALLS: Final = 256
"""Calls that wait or run at a time. Each is a statement or a batch its caller holds anyway, so this bounds the latency
that other calls can pile before one another, not memory. When full, the next caller waits in `call`; commits do not."""

_Job = tuple[Callable[[], object], "asyncio.Future[Any]", asyncio.AbstractEventLoop]


class StoreThread:
    """A thread that runs the calls of one store, one at a time, in order; commits before all others.

    Use it from one event loop. A caller that is cancelled while its call runs does not stop the call; one whose call has
    not begun withdraws it.
    """

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self._commits: deque[_Job] = deque()
        self._calls: deque[_Job] = deque()
        self._places = asyncio.Semaphore(MAX_WAITING_CALLS)
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"store {store.path.name}", daemon=True)
        self._thread.start()

    async def call(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `fn(*args)` in the store's thread: a method of `store`, or a function that uses it.

        Raises:
            StoreError: the thread is closed.
            Exception: whatever `fn` raises.

        """
        async with self._places:
            return await self._submit(self._calls, lambda: fn(*args, **kwargs))

    async def commit(self, batch: Commit) -> CommitResult:
        """`SqliteStore.commit`, before every call that waits."""
        return await self._submit(self._commits, lambda: self.store.commit(batch))

    async def commit_all(self, batches: Sequence[Commit]) -> CommitResult:
        """`SqliteStore.commit_all`, before every call that waits."""
        return await self._submit(self._commits, lambda: self.store.commit_all(batches))

    async def checkpoint(self) -> None:
        """Move the log into the database from another thread and connection, so that commits go on meanwhile."""
        await asyncio.to_thread(_checkpoint, self.store)

    async def close(self) -> None:
        """Run what waits, then close the store and end the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join)

    @property
    def waiting(self) -> int:
        """Calls and commits that have not begun."""
        return len(self._commits) + len(self._calls)

    async def _submit(self, queue: deque[_Job], run: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        with self._wake:
            if self._closing:
                raise StoreError(f"{self.store.path}: the store is closed")
            queue.append((run, future, loop))
            self._wake.notify()
        return await future

    def _run(self) -> None:
        while True:
            with self._wake:
                while not (self._commits or self._calls or self._closing):
                    self._wake.wait()
                queue = self._commits or self._calls
                if not queue:
                    break
                run, future, loop = queue.popleft()
            if future.cancelled():
                continue
            try:
                result, error = run(), None
            except BaseException as raised:  # noqa: BLE001  # it is the caller's, whatever it is
                result, error = None, raised
            try:
                loop.call_soon_threadsafe(_settle, future, result, error)
            except RuntimeError:  # the loop is closed: nobody waits any more
                continue
        self.store.close()


def _settle(future: "asyncio.Future[Any]", result: object, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def _checkpoint(store: SqliteStore) -> None:
    database = open_database(store.path, "write", "NORMAL")
    try:
        database.all("PRAGMA wal_checkpoint(PASSIVE)")
    finally:
        database.close()
