"""Ticks as state: the boundary is now B. A tick that is skipped or merged by a slow reader costs nothing."""

import asyncio


class Boundary:
    """The last minute boundary that the exchange's clock has passed; many may wait for it to move."""

    def __init__(self, boundary_ms: int) -> None:
        self._boundary_ms = boundary_ms
        self._moved = asyncio.Event()

    @property
    def boundary_ms(self) -> int:
        """The boundary now."""
        return self._boundary_ms

    def move(self, boundary_ms: int) -> None:
        """The exchange's clock has passed `boundary_ms`; it never goes back."""
        assert boundary_ms >= self._boundary_ms
        self._boundary_ms = boundary_ms
        self._moved.set()
        self._moved = asyncio.Event()

    async def beyond(self, boundary_ms: int) -> int:
        """Wait until the boundary is later than `boundary_ms`; returns it."""
        while self._boundary_ms <= boundary_ms:
            await self._moved.wait()
        return self._boundary_ms
