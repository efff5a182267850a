"""Commits handed to those who follow them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from klagg.serve.source import Committed

MAX_WAITING_COMMITS: Final = 1_000
"""Commits that a follower has not taken yet (minutes of them). When full the oldest is forgotten: its closing pushes are not sent."""


class Followers:
    """Commits handed to whoever follows them, each at its own pace."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[Committed]] = set()

    def tell(self, committed: Committed) -> None:
        """Hand a commit to all."""
        for queue in self._queues:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(committed)

    async def follow(self) -> AsyncIterator[Committed]:
        """Every commit from now on."""
        queue: asyncio.Queue[Committed] = asyncio.Queue(MAX_WAITING_COMMITS)
        self._queues.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._queues.discard(queue)
