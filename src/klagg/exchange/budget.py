"""The request weight that the exchange allows an address per minute, shared by everything in this and in other processes.

The book-keeping is pure: it is told the time (exchange time, UTC ms) and what was answered. Windows are UTC clock minutes.
What counts as used is the larger of what was taken here and what the exchange reports (its count includes other programs
on this address) with what is still on its way. With a ledger no request is sent but on weight that was claimed there before, so
that processes which know nothing of one another stay within the limit together, and a ban outlives the process that met it.
A ledger that cannot be used is done without: the budget is then the process's own.
"""

import asyncio
import math
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from enum import IntEnum
from typing import Final, Protocol, TypeVar

import structlog

from klagg.clock import Clock
from klagg.errors import ExchangeError, StoreError
from klagg.interval import MINUTE_MS
from klagg.model import Market

DEFAULT_LIMITS: Final = {Market.USDM: 2_400, Market.SPOT: 6_000}
"""Weight per minute until the exchange's symbol list has told the real one."""
USED_WEIGHT_HEADER: Final = "x-mbx-used-weight-1m"
LONGEST_BAN_MS: Final = 4 * 86_400_000
"""Bans grow to three days; a longer one is a misread."""
POLL_MS: Final = 1_000
"""The longest single sleep of a waiter, so that it sees a budget that grew and a clock that was corrected."""

LUMP_SHARE: Final = 0.02
"""How much of the limit is claimed of the ledger at a time: some dozen requests, so that little is claimed in vain."""
LOOK_S: Final = 5.0
"""How old what the ledger said may be: a ban that another process met is known after this."""
PATIENCE_S: Final = 2.0
"""Real seconds in which the ledger has to answer. The clock's and other live requests wait for it too."""
ALONE_S: Final = 10.0
"""After a ledger that could not be used the budget is the process's own for this long."""

log = structlog.get_logger()
Answer = TypeVar("Answer")

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


class BudgetLedger(Protocol):
    """Where processes of one address claim weight and leave word of bans; a `StoreError` says that it cannot be used now."""

    async def claim(
        self, *, process: str, minute: int, used: int, wanted: int, ceiling: int, in_flight: int
    ) -> tuple[int, int, int]:
        """Claim weight of a minute, as far as all claims stay within `ceiling`; what is claimed now, and `banned`."""
        ...

    async def ban(self, until_ms: int, wait_ms: int) -> None:
        """Say that the address is banned until an instant, `wait_ms` from now."""
        ...

    async def banned(self) -> tuple[int, int]:
        """The `until_ms` and `wait_ms` of the latest ban; zeros for none."""
        ...


def host_utc_ms() -> int:
    """The host's time, which stands in for the exchange's where that is not known yet."""
    return time.time_ns() // 1_000_000


class WeightBudget:
    """Weight used in the running minute, and bans."""

    def __init__(
        self,
        limit: int,
        *,
        clock: Clock,
        now_ms: Callable[[], int],
        shares: Mapping[Purpose, float] = SHARES,
        ledger: BudgetLedger | None = None,
        host_ms: Callable[[], int] = host_utc_ms,
    ) -> None:
        self._shares = dict(shares)
        self._ledger = ledger
        self._host_ms = host_ms
        self._process = uuid.uuid4().hex
        self._claimed = 0
        self._claiming = asyncio.Lock()
        self._looked_ns: int | None = None
        self._alone_until_ns = 0
        self._is_alone = False
        self._ban_to_tell: tuple[int, int] | None = None
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

    def share(self, ledger: BudgetLedger) -> None:
        """Share the weight from now on, by this ledger."""
        self._ledger = ledger
        self._looked_ns = None

    @property
    def is_shared(self) -> bool:
        """Whether other processes are heeded; not without a ledger, and not while that cannot be used."""
        return self._ledger is not None and not self._is_alone

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
            wait_ms = wait_ns // 1_000_000
            self._ban_to_tell = (now_ms or self._host_ms()) + wait_ms, wait_ms

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
            while True:
                now_ms = self._now_ms()
                wait_ms = self.wait_ms(weight, purpose, now_ms)
                if wait_ms == 0 and not self._has_claimed(weight):
                    await self._claim(weight, purpose)
                    now_ms = self._now_ms()
                    wait_ms = self.wait_ms(weight, purpose, now_ms)
                    if wait_ms == 0 and not self._has_claimed(weight):
                        wait_ms = (self._window + 1) * MINUTE_MS - now_ms
                if wait_ms <= 0:
                    break
                await self._clock.sleep(min(wait_ms, POLL_MS) / 1_000)
            self.take(weight, now_ms)

    def _turn_window(self, now_ms: int) -> None:
        window = now_ms // MINUTE_MS
        if window > self._window:
            # What is on its way may be counted in the new minute.
            self._taken, self._reported, self._claimed = self._in_flight, 0, 0
            self._window = window
        elif 0 < window < self._window:
            # Before the calibration a Date header stood in for the time, and was ahead. Left there, the minute would never turn.
            self._claimed, self._window = 0, window

    # The ledger

    def _has_claimed(self, weight: int) -> bool:
        """Whether a request may be sent as far as other processes are concerned; before the time is known nobody can tell."""
        now_ns = self._clock.monotonic_ns()
        if self._ledger is None or self._window == 0 or now_ns < self._alone_until_ns:
            return True
        fresh = self._looked_ns is not None and now_ns - self._looked_ns < LOOK_S * 1e9
        return fresh and self._taken + weight <= self._claimed

    async def _claim(self, weight: int, purpose: Purpose) -> None:
        """Claim weight for a request and some that may follow."""
        async with self._claiming:
            if self._ledger is None or self._has_claimed(weight):
                return
            window, taken = self._window, self._taken
            heaviest = weight if taken == 0 else 0
            answer = await self._told(
                self._ledger.claim(
                    process=self._process,
                    minute=window,
                    used=taken,
                    wanted=max(self._claimed, taken + max(weight, int(self._limit * LUMP_SHARE))),
                    ceiling=max(self.rate(purpose), heaviest),
                    in_flight=self._in_flight,
                )
            )
            if answer is None:
                return
            claimed, *ban = answer
            if self._window == window:
                self._claimed = max(self._claimed, claimed)
            self._hear(*ban)
            await self.publish()

    async def look(self) -> None:
        """Learn of a ban that another process has met, or one before this: for requests that wait for no turn."""
        now_ns = self._clock.monotonic_ns()
        old = self._looked_ns is None or now_ns - self._looked_ns >= LOOK_S * 1e9
        if self._ledger is not None and old and now_ns >= self._alone_until_ns:
            ban = await self._told(self._ledger.banned())
            if ban is not None:
                self._hear(*ban)

    async def publish(self) -> None:
        """Leave word of a ban that this process has just met."""
        if self._ledger is not None and self._ban_to_tell is not None:
            ban = self._ban_to_tell
            if await self._told(_done(self._ledger.ban(*ban))) and self._ban_to_tell == ban:
                self._ban_to_tell = None

    async def _told(self, answer: Awaitable[Answer]) -> Answer | None:
        """The ledger's answer; None where it cannot be used, which is said once."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                told = await answer
        except (StoreError, TimeoutError) as error:
            self._alone_until_ns = self._clock.monotonic_ns() + int(ALONE_S * 1e9)
            if not self._is_alone:
                self._is_alone = True
                log.warning("budget.alone", reason=str(error) or f"no answer within {PATIENCE_S:g} s")
            return None
        self._looked_ns = self._clock.monotonic_ns()
        if self._is_alone:
            self._is_alone = False
            log.info("budget.shared_again")
        return told

    def _hear(self, until_ms: int, wait_ms: int) -> None:
        """Take over a ban. It never lasts longer than it was to be waited for, whatever the two clocks say."""
        left_ms = min(until_ms - (self._now_ms() or self._host_ms()), wait_ms)
        if 0 < left_ms <= LONGEST_BAN_MS:
            self._blocked_until_ns = max(self._blocked_until_ns, self._clock.monotonic_ns() + left_ms * 1_000_000)


async def _done(answer: Awaitable[None]) -> bool:
    await answer
    return True


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
