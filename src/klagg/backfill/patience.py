"""A busy database is waited for: other processes commit to it, and their transactions end."""

import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import structlog

from klagg.clock import Clock
from klagg.errors import StoreUnavailable

log = structlog.get_logger()

Returned = TypeVar("Returned")

RETRY_S: Final = 1.0
ATTEMPTS: Final = 60
"""A busy database, or a full disk, is given a minute before it ends a backfill."""


async def patiently(clock: Clock, call: Callable[[], Awaitable[Returned]]) -> Returned:
    """Repeat a call while the database is busy.

    Raises:
        StoreUnavailable: it stayed so.

    """
    for _ in range(ATTEMPTS):
        try:
            return await call()
        except StoreUnavailable as error:
            log.warning("backfill.store_busy", reason=str(error))
            await clock.sleep(RETRY_S)
    return await call()


def patiently_blocking(call: Callable[[], Returned]) -> Returned:
    """The same where nothing else runs in the thread meanwhile.

    Raises:
        StoreUnavailable: it stayed so.

    """
    for _ in range(ATTEMPTS):
        try:
            return call()
        except StoreUnavailable as error:
            log.warning("backfill.store_busy", reason=str(error))
            time.sleep(RETRY_S)
    return call()
