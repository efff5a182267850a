"""What is to be asked for next, and what is on its way."""

import asyncio
from collections import deque
from collections.abc import Iterable

from klagg.repair.patience import Key
from klagg.repair.plan import Fetch, Why


class Agenda:
    """The fetches of one plan, the comparison at leisure last, newest first, taken one by one; nothing is on its way twice."""

    def __init__(self) -> None:
        self._next: deque[Fetch] = deque()
        self._flying: set[Fetch] = set()
        self._keys: set[Key] = set()
        self._filled = asyncio.Event()
        self._finished = asyncio.Event()
        self._finished.set()

    def __len__(self) -> int:
        return len(self._next)

    def is_flying(self, key: Key) -> bool:
        """Whether a candle is being asked for right now."""
        return key in self._keys

    @property
    def flying(self) -> int:
        """How many candles of the queue are being asked for right now."""
        return len(self._keys)

    def take_back(self) -> list[Fetch]:
        """What has not begun; it is no longer to be asked for."""
        left = list(self._next)
        self._next.clear()
        self._turn()
        return left

    def put(self, fetches: Iterable[Fetch]) -> None:
        """Have these asked for, newest first; what is compared at leisure waits for all others."""
        fresh = [fetch for fetch in fetches if fetch not in self._flying]
        self._next.extend(sorted(fresh, key=lambda fetch: (fetch.why is Why.LEISURE, -fetch.end_ms)))
        self._turn()

    async def next(self) -> Fetch:
        """The next fetch, as soon as there is one; `done` must follow."""
        while not self._next:
            await self._filled.wait()
        fetch = self._next.popleft()
        self._flying.add(fetch)
        self._keys |= fetch.keys
        self._turn()
        return fetch

    def done(self, fetch: Fetch) -> None:
        """A fetch has ended, whichever way."""
        self._flying.discard(fetch)
        self._keys -= fetch.keys
        self._turn()

    def span(self, fetch: Fetch) -> tuple[int, int]:
        """From when to when candles of the same symbol are to be asked for, this fetch included."""
        same = [fetch, *(other for other in self._next if other.instrument_id == fetch.instrument_id)]
        return min(other.start_ms for other in same), max(other.end_ms for other in same)

    async def finished(self) -> None:
        """Wait until nothing is left to ask for, and nothing on its way."""
        await self._finished.wait()

    def _turn(self) -> None:
        if self._next:
            self._filled.set()
        else:
            self._filled.clear()
        if self._next or self._flying:
            self._finished.clear()
        else:
            self._finished.set()
