"""What a client may ask for: request weight per minute, messages per second, and what the system lets all of them hold open."""

import contextlib
import sys
from dataclasses import dataclass, field
from typing import Final

from klagg.interval import MINUTE_MS

MAX_WEIGHT: Final = 60_000
"""Request weight that one address may use in a minute, on each market: ten times and more what the exchange allows, since clients pace
themselves by the exchange's limit, and this one only keeps a runaway from starving the others. Past it a request gets 429."""
MAX_CLIENTS: Final = 10_000
"""Addresses whose weight is counted at a time; when full the counting begins anew, in favour of the clients."""

OWN_FILES: Final = 256
"""Files and sockets that the service itself needs: databases, connections to the exchange."""


def open_files(wanted: int) -> int:
    """Ask the system for so many open files and sockets; how many it allows."""
    if sys.platform == "win32":
        return wanted
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted and soft != resource.RLIM_INFINITY:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    return wanted if soft == resource.RLIM_INFINITY else soft


class Weights:
    """Request weight by client address, in whole minutes."""

    def __init__(self, limit: int = MAX_WEIGHT) -> None:
        self._limit = limit
        self._minute = 0
        self._used: dict[str, int] = {}

    def charge(self, client: str, weight: int, now_ms: int) -> tuple[int, bool]:
        """Count a request: the weight used in this minute, and whether it is too much."""
        minute = now_ms // MINUTE_MS
        if minute != self._minute or len(self._used) >= MAX_CLIENTS:
            self._minute = minute
            self._used.clear()
        used = self._used[client] = self._used.get(client, 0) + weight
        return used, used > self._limit


@dataclass(slots=True)
class Bucket:
    """A rate with a burst: `take` is false once there were more than both allow."""

    per_second: float
    burst: int
    _tokens: float = field(init=False)
    _at_s: float = field(default=-1.0, init=False)

    def __post_init__(self) -> None:
        """Start full."""
        self._tokens = float(self.burst)

    def take(self, now_s: float) -> bool:
        """Count one at an instant."""
        if self._at_s >= 0:
            self._tokens = min(float(self.burst), self._tokens + (now_s - self._at_s) * self.per_second)
        self._at_s = now_s
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
