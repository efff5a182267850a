"""Where the feed reads, as a protocol."""

from typing import Protocol

from klagg.model import Market
from klagg.serve.feed.page import Page


class Log(Protocol):
    """The event log; never read on the event loop."""

    async def page(self, after_seq: int, limit: int, market: Market | None, *, full: bool) -> Page:
        """The first `limit` events after a number, of one market or all.

        Raises:
            StoreError: the database cannot be read.

        """
        ...

    async def newest_seq(self) -> int:
        """The number of the newest event; 0 before the first."""
        ...
