"""The exchange's limits: request weight per market minute, bans, and messages per second."""

from dataclasses import dataclass, field
from typing import Final

from klagg.sim.calendar import DAY_MS, MINUTE_MS
from klagg.sim.settings import ExchangeSettings

LONGEST_BAN_MS: Final = 3 * DAY_MS


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that is not served: the HTTP status, the exchange's message, and when it may be tried again."""

    status: int
    message: str
    retry_at_ms: int


class WeightWindow:
    """Request weight of one client address, counted in UTC minutes of the market's clock.

    Past the limit requests get 429; a client that goes on gets 418 until a ban ends, each ban twice the last.
    """

    def __init__(self, settings: ExchangeSettings, limit: int) -> None:
        self._settings = settings
        self._limit = limit
        self._minute_ms = 0
        self._over = 0
        self._bans = 0
        self._banned_until_ms = 0
        self.used = 0

    def charge(self, weight: int, now_ms: int) -> Refusal | None:
        """Count a request; what it gets instead of an answer, if anything."""
        minute_ms = now_ms // MINUTE_MS * MINUTE_MS
        if minute_ms != self._minute_ms:
            self._minute_ms, self.used, self._over = minute_ms, 0, 0
        self.used += weight
        if now_ms < self._banned_until_ms:
            return self._ban()
        if self.used <= self._limit:
            return None
        self._over += 1
        if self._over > self._settings.ban_after:
            length_ms = min(LONGEST_BAN_MS, self._settings.ban_ms * 2**self._bans)
            self._bans += 1
            self._banned_until_ms = now_ms + length_ms
            return self._ban()
        if self._settings.is_spot:
            message = (
                f"Too much request weight used; current limit is {self._limit} request weight per 1 MINUTE. "
                "Please use WebSocket Streams for live updates to avoid polling the API."
            )
        else:
            message = f"Too many requests; current limit is {self._limit} requests per minute."
        return Refusal(429, message, minute_ms + MINUTE_MS)

    def _ban(self) -> Refusal:
        what = "Way too much request weight used" if self._settings.is_spot else "Way too many requests"
        until = self._banned_until_ms
        return Refusal(418, f"{what}; IP banned until {until}. Please use the websocket for live updates.", until)


@dataclass(slots=True)
class TokenBucket:
    """A rate with a burst: `take` is false once there were more messages than both allow."""

    per_second: float
    burst: int
    _tokens: float = field(init=False)
    _at_ms: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Start full."""
        self._tokens = float(self.burst)

    def take(self, now_ms: int) -> bool:
        """Count one message at an instant."""
        if self._at_ms:
            gained = max(0, now_ms - self._at_ms) * self.per_second / 1000
            self._tokens = min(float(self.burst), self._tokens + gained)
        self._at_ms = now_ms
        self._tokens -= 1
        return self._tokens >= 0
