"""How often the exchange is approached: reconnection backoff, and the limit on connection attempts."""

import random
from collections import deque
from typing import Final

import structlog

from klagg.clock import Clock

log = structlog.get_logger()

ATTEMPTS_PER_WINDOW: Final = 250
"""Connection attempts per window: spot allows 300 per address, the rest is left to other programs; USDT-M has published no
limit and is treated alike."""
ATTEMPT_WINDOW_S: Final = 300.0


class Backoff:
    """Delays that double up to a ceiling, with full jitter, so that connections cut together do not return together."""

    def __init__(self, rng: random.Random, first_s: float = 0.5, last_s: float = 30.0) -> None:
        self._rng = rng
        self._first_s = first_s
        self._last_s = last_s
        self.failures = 0
        """Failures since the last success."""

    def next_s(self, floor_s: float = 0.0) -> float:
        """The delay after one more failure, `floor_s` at least."""
        ceiling_s = min(self._last_s, self._first_s * 2 ** min(self.failures, 16))
        self.failures += 1
        return floor_s + self._rng.uniform(0.0, ceiling_s)

    def reset(self) -> None:
        """Begin anew after a success."""
        self.failures = 0


class ConnectGate:
    """Lets at most so many connection attempts through per window; one gate per market and process."""

    def __init__(self, clock: Clock, attempts: int = ATTEMPTS_PER_WINDOW, window_s: float = ATTEMPT_WINDOW_S) -> None:
        self._clock = clock
        self._attempts = attempts
        self._window_ns = int(window_s * 1e9)
        self._passed_ns: deque[int] = deque()

    async def enter(self) -> None:
        """Wait until an attempt is allowed, and count it."""
        while (wait_ns := self._wait_ns()) > 0:
            log.warning("stream.connect_limit", wait_ms=wait_ns // 1_000_000, attempts=self._attempts)
            await self._clock.sleep(wait_ns / 1e9)
        self._passed_ns.append(self._clock.monotonic_ns())

    def is_open(self) -> bool:
        """Whether an attempt would pass at once."""
        return self._wait_ns() == 0

    def _wait_ns(self) -> int:
        now_ns = self._clock.monotonic_ns()
        while self._passed_ns and self._passed_ns[0] <= now_ns - self._window_ns:
            self._passed_ns.popleft()
        if len(self._passed_ns) < self._attempts:
            return 0
        return self._passed_ns[0] + self._window_ns - now_ns
