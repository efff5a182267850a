"""The request weight that the exchange allows an address per minute, shared by everything in the process.

The book-keeping is pure: it is told the time (exchange time, UTC ms) and what was answered. Windows are UTC clock minutes.
What counts as used is the larger of what was taken here and what the exchange reports (its count includes other programs
on this address) with what is still on its way.
"""

import asyncio
import math
import re
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Final

from klagg.clock import Clock
from klagg.errors import ExchangeError
from klagg.interval import MINUTE_MS
from klagg.model import Market

DEFAULT_LIMITS: Final = {Market.USDM: 2_400, Market.SPOT: 6_000}
"""Weight per minute until the exchange's symbol list has told the real one."""
USED_WEIGHT_HEADER: Final = "x-mbx-used-weight-1m"
LONGEST_BAN_MS: Final = 4 * 86_400_000
"""Bans grow to three days; a longer one is a misread."""
POLL_MS: Final = 1_000
"""The longest single sleep of a waiter, so that it sees a budget that grew and a clock that was corrected."""

_BANNED_UNTIL: Final = re.compile(rb"until\s+(\d{13})\b")


class Purpose(IntEnum):
    """What a request is for, the most urgent first."""

    LIVE = 0
    """The clock, the symbol list, the join of history and stream."""
    REPAIR = 1
    BACKFILL = 2


SHARES: Final = {Purpose.LIVE: 0.95, Purpose.REPAIR: 0.9, Purpose.BACKFILL: 0.8}
"""How much of the limit may be used up when a request of this purpose has been counted: the rest is the reserve of more
urgent ones, and 5 % the reserve for the error of our clock against theirs at the turn of the minute."""


def shares(of_limit: float) -> dict[Purpose, float]:
    """The shares where backfill and repair together may use up so much of the limit; repair goes before backfill."""
    return {
        Purpose.LIVE: SHARES[Purpose.LIVE],
        Purpose.REPAIR: min(of_limit, SHARES[Purpose.REPAIR]),
        Purpose.BACKFILL: min(of_limit * 0.9, SHARES[Purpose.BACKFILL]),
    }


class WeightBudget:
    """Weight used in the running minute, and bans."""

    def __init__(
        self,
        limit: int,
        *,
        clock: Clock,
        now_ms: Callable[[], int],
        shares: Mapping[Purpose, float] = SHARES,
    ) -> None:
        self._shares = dict(shares)
        self._clock = clock
        self._now_ms = now_ms
        self._limit = limit
        self._window = 0
        self._taken = 0
        self._reported = 0
        self._in_flight = 0
        self._blocked_until_ns = 0
        self._turns = {purpose: asyncio.Lock() for purpose in Purpose}

    @property
    def limit(self) -> int:
        """Weight per minute as the exchange states it."""
        return self._limit

    def set_limit(self, limit: int) -> None:
        """Take over the limit of the exchange's symbol list."""
        if limit > 0:
            self._limit = limit

    @property
    def banned_s(self) -> float:
        """For how long nothing may be sent (429 or 418). On the host's clock: a ban may come before the time is known."""
        return max(self._blocked_until_ns - self._clock.monotonic_ns(), 0) / 1e9

    def rate(self, purpose: Purpose = Purpose.BACKFILL) -> int:
        """Weight per minute that this purpose may reach."""
        return int(self._limit * self._shares[purpose])

    def used(self, now_ms: int) -> int:
        """Weight used in the running minute."""
        self._turn_window(now_ms)
        return max(self._taken, self._reported + self._in_flight)

    def wait_ms(self, weight: int, purpose: Purpose, now_ms: int) -> int:
        """How long such a request must wait, by what is known now; 0 for not at all."""
        if (banned_s := self.banned_s) > 0:
            return math.ceil(banned_s * 1_000)
        used = self.used(now_ms)
        # A request heavier than its purpose's share gets a minute that nothing else has used.
        if used + weight <= max(self.rate(purpose), weight if used == 0 else 0):
            return 0
        return (self._window + 1) * MINUTE_MS - now_ms

    def take(self, weight: int, now_ms: int) -> None:
        """Count a request that is being sent now; `settle` or `observe` must follow."""
        self._turn_window(now_ms)
        self.take_unclocked(weight)

    def take_unclocked(self, weight: int) -> None:
        """Count a request sent before the exchange's time is known."""
        self._taken += weight
        self._in_flight += weight

    def settle(self, weight: int) -> None:
        """A request has ended, with an answer or without."""
        self._in_flight -= weight
        assert self._in_flight >= 0

    def observe(self, headers: Mapping[str, str], status: int, body: bytes, now_ms: int | None) -> None:
        """Take what an answer says of the weight used, and of a ban. `headers` must ignore case or be lower case.

        `now_ms` None: the exchange's time is not known yet, so only a ban is understood.
        """
        if now_ms is not None:
            self._turn_window(now_ms)
            used = headers.get(USED_WEIGHT_HEADER, "")
            if used.isascii() and used.isdigit():
                self._reported = max(self._reported, int(used))
        if status in {418, 429}:
            wait_ns = _ban_ms(headers, body, now_ms) * 1_000_000
            self._blocked_until_ns = max(self._blocked_until_ns, self._clock.monotonic_ns() + wait_ns)

    async def acquire(self, weight: int, purpose: Purpose) -> None:
        """Wait for the turn of such a request (first come, first served within a purpose) and count it.

        Raises:
            ExchangeError: the exchange's limit is below this one request.
        """
        if weight > self._limit:
            raise ExchangeError(
                f"a request of weight {weight} is more than the exchange allows in a minute ({self._limit}): ask for less"
            )
        async with self._turns[purpose]:
            while (wait_ms := self.wait_ms(weight, purpose, self._now_ms())) > 0:
                await self._clock.sleep(min(wait_ms, POLL_MS) / 1_000)
            self.take(weight, self._now_ms())

    def _turn_window(self, now_ms: int) -> None:
        window = now_ms // MINUTE_MS
        if window > self._window:
            self._window = window
            # What is on its way may be counted in the new minute.
            self._taken, self._reported = self._in_flight, 0


def _ban_ms(headers: Mapping[str, str], body: bytes, now_ms: int | None) -> int:
    """How long a refused address must not ask: Retry-After, else to the end of the ban in the text, else to the next minute.

    Futures are not documented to send Retry-After. Two sources that disagree: the longer one.
    """
    candidates = []
    retry_after = headers.get("retry-after", "")
    if retry_after.isascii() and retry_after.isdigit():
        candidates.append(int(retry_after) * 1_000)
    if now_ms is not None and (match := _BANNED_UNTIL.search(body)):
        candidates.append(int(match[1]) - now_ms)
    plausible = [wait_ms for wait_ms in candidates if 0 < wait_ms <= LONGEST_BAN_MS]
    return max(plausible, default=MINUTE_MS if now_ms is None else MINUTE_MS - now_ms % MINUTE_MS)
