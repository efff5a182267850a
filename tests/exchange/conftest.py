"""What the exchange's tests share."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from exchange.venue import Venue


@pytest.fixture
async def venue() -> AsyncIterator[Venue]:
    venue = Venue()
    await venue.start()
    yield venue
    await venue.stop()


async def _until(condition: Callable[[], bool], *, push: Callable | None = None, seconds: float = 8.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        if push is not None:
            await push()
        await asyncio.sleep(0.01)


@pytest.fixture
def until() -> Callable:
    """Wait (bounded) until a condition holds, pushing meanwhile."""
    return _until
