"""The request weight of a command, shared with the processes that work on the same database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from klagg.errors import StoreError
from klagg.exchange.budget import WeightBudget
from klagg.model import Market
from klagg.store import open_store, parse_db_url
from klagg.store.budget import WeightLedger
from klagg.store.thread import StoreThread

log = structlog.get_logger()


@asynccontextmanager
async def sharing(budget: WeightBudget, db: str, market: Market, address: str) -> AsyncIterator[None]:
    """Share a command's weight over a connection of its own, from its first request to its last.

    A database that does not exist yet has nobody to share with; one that cannot be written is read without sharing.
    """
    if not parse_db_url(db).exists():
        yield
        return
    try:
        thread = StoreThread(open_store(db, mode="write"))
    except StoreError as error:
        log.warning("budget.alone", reason=str(error))
        yield
        return
    budget.share(WeightLedger(thread, market, address))
    try:
        yield
    finally:
        await thread.close()
