"""Bodies on their way out: large ones in pieces, within a bound that all of them share."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, Self

from litestar import Response
from litestar.response import Stream

from klagg.serve.native.problem import Problem

SMALL: Final = 256 * 1024
"""Bytes of a body that is sent at once and not counted."""
MOST_BYTES: Final = 256 * 2**20
"""Bytes of large bodies that wait for their readers; another one gets 503."""
PIECE: Final = 64 * 1024
SENT_WITHIN_S: Final = 60.0
"""How long a reader may take for a large body."""
MADE_AT_ONCE: Final = 4
"""Answers that are made at a time, so that many greedy readers together hold no more than these in memory."""
MOST_WAITING: Final = 256
"""Requests that wait for their answer to be made; another one gets 503."""


class Room:
    """What all answers share."""

    def __init__(self) -> None:
        self._bytes = 0
        self._waiting = 0
        self._making = asyncio.Semaphore(MADE_AT_ONCE)

    async def __aenter__(self) -> Self:
        """Wait until an answer may be made.

        Raises:
            Problem: too many wait.

        """
        if self._waiting >= MOST_WAITING:
            raise _busy()
        self._waiting += 1
        try:
            await self._making.acquire()
        finally:
            self._waiting -= 1
        return self

    async def __aexit__(self, *_: object) -> None:
        self._making.release()

    def send(self, body: bytes, media_type: str, headers: Mapping[str, str] | None = None) -> Response[Any]:
        """The response with a body.

        Raises:
            Problem: the readers of other bodies are slow, and there is no room.

        """
        if len(body) <= SMALL:
            return Response(body, media_type=media_type, headers=dict(headers or {}))
        if self._bytes + len(body) > MOST_BYTES:
            raise _busy()
        return Stream(
            self._pieces(body), media_type=media_type, headers={"Content-Length": str(len(body)), **(headers or {})}
        )

    async def _pieces(self, body: bytes) -> AsyncIterator[bytes]:
        self._bytes += len(body)
        try:
            async with asyncio.timeout(SENT_WITHIN_S):
                for at in range(0, len(body), PIECE):
                    yield body[at : at + PIECE]
        finally:
            self._bytes -= len(body)


def _busy() -> Problem:
    return Problem("busy", "Too many large answers are under way: try again soon.", 503)
