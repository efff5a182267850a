"""Time: the host's clocks, the exchange's calibrated clock, and the minute ticks made from it (design, section 2.1).

Nobody in klagg asks the host what time it is. A `Clock` counts and sleeps; `ExchangeClock` turns its count into the
exchange's UTC by samples of the exchange's time endpoint; `MinuteTicker` turns that into boundaries. The host's wall
clock is never read, so it may jump as it likes.
"""

import asyncio
import heapq
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Literal, Protocol

import numpy as np
import numpy.typing as npt
import structlog

from klagg.errors import ClockError, KlaggError, RateLimited, RestrictedLocation
from klagg.interval import MINUTE
from klagg.model import Market

log = structlog.get_logger()

NS_PER_MS: Final = 1_000_000

VALIDITY_MS: Final = 300_000
"""A calibration not confirmed for this long is no calibration: ticks are held and the alarm is raised."""
STEP_LIMIT_NS: Final = 250 * NS_PER_MS
"""An error above this is not slewed: the clock steps forward at once, or stands still where it would go back."""
SLEW_DIVISOR: Final = 200
"""Small corrections move the clock by at most 1/200 of the time that passes: 5 ms a second, 250 ms in 50 s."""
DRIFT_DIVISOR: Final = 10_000
"""The host's oscillator is trusted to 1/10,000 (100 ppm): what an aging calibration's uncertainty grows by."""
POLL_S: Final = 1.0
"""The longest single sleep of the waits below, so that a step, a suspension or a lost calibration is seen within it."""


class Clock(Protocol):
    """A host clock: a count that includes suspended time, and a sleep that a cancellation interrupts at once."""

    def monotonic_ns(self) -> int:
        """Nanoseconds since an arbitrary instant; never goes back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after that many of this clock's seconds (at once, but through the event loop, if not positive)."""
        ...


class SystemClock:
    """The host's clock that counts suspended time, where the platform has one."""

    # macOS counts sleep in CLOCK_MONOTONIC; Windows has neither constant and its monotonic clock counts it.
    _clock_id: Final[int | None] = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))

    def monotonic_ns(self) -> int:
        """Nanoseconds since the host was started."""
        return time.monotonic_ns() if self._clock_id is None else time.clock_gettime_ns(self._clock_id)

    async def sleep(self, seconds: float) -> None:
        """Sleep on the event loop."""
        await asyncio.sleep(max(seconds, 0.0))


class ScaledClock:
    """A clock that runs `speed` times as fast as its base: a day of market in minutes, for end-to-end tests."""

    def __init__(self, speed: float, base: Clock | None = None) -> None:
        assert speed > 0
        self._speed = speed
        self._base = base or SystemClock()
        self._start_ns = self._base.monotonic_ns()

    def monotonic_ns(self) -> int:
        """Scaled nanoseconds since the clock was made."""
        return int((self._base.monotonic_ns() - self._start_ns) * self._speed)

    async def sleep(self, seconds: float) -> None:
        """Sleep `seconds / speed` real seconds."""
        await self._base.sleep(seconds / self._speed)


class ManualClock:
    """A clock that a test moves by hand."""

    SETTLE_ROUNDS: Final = 25
    """How often `advance` lets the event loop turn after each wake, so that the woken tasks reach their next wait."""

    def __init__(self, start_ns: int = 0) -> None:
        self._now_ns = start_ns
        self._order = itertools.count()
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []

    def monotonic_ns(self) -> int:
        """The count as it was last set."""
        return self._now_ns

    @property
    def sleepers(self) -> int:
        """How many tasks sleep on this clock."""
        return sum(not future.done() for _, _, future in self._sleepers)

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock has been moved `seconds` on."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        wake_ns = self._now_ns + max(1, round(seconds * 1e9))
        heapq.heappush(self._sleepers, (wake_ns, next(self._order), future))
        await future

    async def advance(self, ms: float) -> None:
        """Move on by `ms`, stopping at each sleeper's instant in order to wake it and let it run on."""
        target_ns = self._now_ns + round(ms * NS_PER_MS)
        await self._settle()
        while self._sleepers and self._sleepers[0][0] <= target_ns:
            wake_ns, _, future = heapq.heappop(self._sleepers)
            if future.done():
                continue
            self._now_ns = max(self._now_ns, wake_ns)
            future.set_result(None)
            await self._settle()
        self._now_ns = max(self._now_ns, target_ns)

    def jump(self, ms: float) -> None:
        """Move on by `ms` at once, as a suspended host does; every sleeper that is due wakes at the new instant."""
        self._now_ns += round(ms * NS_PER_MS)
        while self._sleepers and self._sleepers[0][0] <= self._now_ns:
            _, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                future.set_result(None)

    async def _settle(self) -> None:
        for _ in range(self.SETTLE_ROUNDS):
            await asyncio.sleep(0)


@dataclass(frozen=True, slots=True)
class TimeSample:
    """One answer of the exchange's time endpoint; `sent_ns` and `received_ns` are of the host clock."""

    sent_ns: int
    received_ns: int
    server_ms: int

    @property
    def round_trip_ns(self) -> int:
        """How long the request took."""
        return self.received_ns - self.sent_ns


class Correction(StrEnum):
    """What a burst of samples did to the exchange clock."""

    SET = "set"
    """The first calibration."""
    CONFIRM = "confirm"
    """It agrees with a better calibration, which stays."""
    SLEW = "slew"
    STEP = "step"
    HOLD = "hold"


class ExchangeClock:
    """The exchange's UTC time: the host clock plus a measured offset; pure, and never runs backwards.

    The offset of a sample is the server's time less the midpoint of its request; half its round trip is its
    uncertainty, which grows with age by the drift allowed to the host. The best sample of a burst replaces the
    calibration unless that one is still sharper and agrees with it.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._target_ns: int | None = None
        self._half_trip_ns = 0
        self._measured_ns = 0
        self._confirmed_ns = 0
        self._last_host_ns = 0
        self._last_now_ns = 0
        self._holding = False

    def add_samples(self, samples: Sequence[TimeSample]) -> Correction:
        """Take a burst of samples (at least one); the one with the smallest round trip counts."""
        best = min(samples, key=lambda sample: sample.round_trip_ns)
        half_trip_ns = max(best.round_trip_ns, 0) // 2
        offset_ns = best.server_ms * NS_PER_MS - (best.sent_ns + half_trip_ns)
        host_ns = self._clock.monotonic_ns()
        if self._target_ns is None:
            self._last_host_ns, self._last_now_ns = host_ns, host_ns + offset_ns
            self._adopt(offset_ns, half_trip_ns, best.received_ns)
            return Correction.SET
        now_ns = self._now_ns()
        held_ns = self._calibration_error_ns()
        self._confirmed_ns = best.received_ns
        if held_ns < half_trip_ns and abs(offset_ns - self._target_ns) <= held_ns + half_trip_ns:
            return Correction.CONFIRM
        self._adopt(offset_ns, half_trip_ns, best.received_ns)
        error_ns = host_ns + offset_ns - now_ns
        self._holding = error_ns < -STEP_LIMIT_NS
        if error_ns > STEP_LIMIT_NS:
            self._last_now_ns = host_ns + offset_ns
            return Correction.STEP
        return Correction.HOLD if self._holding else Correction.SLEW

    def now_ms(self) -> int:
        """The exchange's time, UTC ms; keeps running on an old calibration (ask `is_valid`).

        Raises:
            ClockError: there has been no sample yet.

        """
        return self._now_ns() // NS_PER_MS

    def earliest_ms(self) -> int:
        """What the exchange's clock surely has reached: the calibrated time less its uncertainty.

        Raises:
            ClockError: there has been no sample yet.

        """
        now_ns = self._now_ns()
        assert self._target_ns is not None
        return (min(now_ns, self._last_host_ns + self._target_ns) - self._calibration_error_ns()) // NS_PER_MS

    def last_boundary_ms(self) -> int:
        """The last minute boundary that is surely past: where a ticker begins.

        Raises:
            ClockError: there has been no sample yet.

        """
        return MINUTE.open_at(self.earliest_ms())

    @property
    def uncertainty_ms(self) -> float:
        """How far `now_ms` may be off: half the round trip, the drift since, and what is not yet slewed."""
        if self._target_ns is None:
            return float("inf")
        now_ns = self._now_ns()
        pending_ns = abs(self._last_host_ns + self._target_ns - now_ns)
        return (self._calibration_error_ns() + pending_ns) / NS_PER_MS

    @property
    def half_round_trip_ms(self) -> float:
        """The uncertainty of the calibration when it was measured."""
        return self._half_trip_ns / NS_PER_MS

    def offset_ms(self, host_utc_ms: float) -> float:
        """For display: how far the exchange is ahead of a host's own UTC reading of now."""
        return self._now_ns() / NS_PER_MS - host_utc_ms

    def is_valid(self) -> bool:
        """Whether the exchange has confirmed the calibration within its validity."""
        return self._target_ns is not None and self.age_ms <= VALIDITY_MS

    @property
    def age_ms(self) -> float:
        """Time since the exchange last confirmed the calibration (infinite before the first)."""
        if self._target_ns is None:
            return float("inf")
        return (self._clock.monotonic_ns() - self._confirmed_ns) / NS_PER_MS

    def _adopt(self, offset_ns: int, half_trip_ns: int, measured_ns: int) -> None:
        self._target_ns, self._half_trip_ns = offset_ns, half_trip_ns
        self._measured_ns = self._confirmed_ns = measured_ns

    def _calibration_error_ns(self) -> int:
        return self._half_trip_ns + max(self._clock.monotonic_ns() - self._measured_ns, 0) // DRIFT_DIVISOR

    def _now_ns(self) -> int:
        if self._target_ns is None:
            raise ClockError("the exchange's time is not known yet: calibrate first")
        host_ns = max(self._clock.monotonic_ns(), self._last_host_ns)
        passed_ns = host_ns - self._last_host_ns
        estimate_ns = host_ns + self._target_ns
        if self._holding:
            self._holding = estimate_ns < self._last_now_ns
            now_ns = max(estimate_ns, self._last_now_ns)
        else:
            now_ns = self._last_now_ns + passed_ns
            slew_ns = passed_ns // SLEW_DIVISOR
            if slew_ns == 0 and now_ns != estimate_ns:
                return now_ns  # too soon to correct: leave the passed time to a later reading
            now_ns += min(max(estimate_ns - now_ns, -slew_ns), slew_ns)
        self._last_host_ns, self._last_now_ns = host_ns, now_ns
        return now_ns


BURST: Final = 5
"""Samples of one calibration: enough for one without queueing, at weight 1 each."""
PERIOD_S: Final = 30.0
START_ATTEMPTS: Final = 5
START_PATIENCE_S: Final = 90.0
"""A start waits out a ban that ends within this: more than the minute after which used weight is forgotten."""
BACKOFF_FIRST_S: Final = 0.5
BACKOFF_LAST_S: Final = 30.0
FETCH_TIMEOUT_S: Final = 10.0
"""Real seconds that one sample may take; a slower one would be of no use."""

Fetch = Callable[[], Awaitable[TimeSample]]


class Calibrator:
    """Keeps an `ExchangeClock` calibrated: bursts of samples, bounded retries at the start, endless ones later."""

    def __init__(
        self,
        clock: Clock,
        exchange_clock: ExchangeClock,
        fetch: Fetch,
        *,
        burst: int = BURST,
        period_s: float = PERIOD_S,
        start_attempts: int = START_ATTEMPTS,
        chance: random.Random | None = None,
    ) -> None:
        self._clock = clock
        self._exchange_clock = exchange_clock
        self._fetch = fetch
        self._burst = burst
        self._period_s = period_s
        self._start_attempts = start_attempts
        self._alarmed = False
        self._jitter = chance or random.Random()  # noqa: S311 - spreads retries, guards nothing
        self.failures = 0
        """Bursts that brought no sample at all."""

    async def start(self) -> None:
        """Calibrate for the first time.

        Raises:
            ClockError: the exchange's time could not be read within the bounded attempts.
            RestrictedLocation: the exchange refuses this location; trying again would not help.

        """
        for attempt in range(1, self._start_attempts + 1):
            try:
                await self.calibrate()
            except RestrictedLocation:
                raise
            except (KlaggError, OSError) as error:
                reason = _one_line(error)
                log.warning("clock.calibration_failed", attempt=attempt, attempts=self._start_attempts, reason=reason)
                if attempt == self._start_attempts or _ban_s(error) > START_PATIENCE_S:
                    # The exchange adapter's errors say what to do; the host's do not.
                    advice = "" if isinstance(error, KlaggError) else ": check the network and --rest-url"
                    raise ClockError(
                        f"the exchange's time cannot be read after {attempt} attempts: {reason}{advice}"
                    ) from error
                await self._clock.sleep(max(self._backoff_s(attempt), _ban_s(error)))
            else:
                return

    async def run(self) -> None:
        """Recalibrate for ever; failures are retried with backoff, and raise the alarm once when validity runs out."""
        failed = 0
        while True:
            await self._wait(self._backoff_s(failed) if failed else self._period_s)
            try:
                await self.calibrate()
            except (KlaggError, OSError) as error:
                failed += 1
                if failed == 1:
                    log.warning("clock.calibration_failed", attempt=failed, reason=_one_line(error))
                self._raise_alarm(failed, error)
            else:
                if failed:
                    log.info("clock.recovered", attempts=failed)
                failed, self._alarmed = 0, False

    async def calibrate(self) -> Correction:
        """Take one burst of samples; a few of them may fail.

        Raises:
            KlaggError | OSError: none succeeded; the last sample's error.

        """
        samples: list[TimeSample] = []
        last_error: KlaggError | OSError | None = None
        for _ in range(self._burst):
            try:
                async with asyncio.timeout(FETCH_TIMEOUT_S):
                    samples.append(await self._fetch())
            except (KlaggError, OSError) as error:
                last_error = error
                if not samples:
                    break
        if not samples:
            self.failures += 1
            assert last_error is not None
            raise last_error
        correction = self._exchange_clock.add_samples(samples)
        report = log.warning if correction in {Correction.STEP, Correction.HOLD} else log.debug
        report(
            "clock.calibrated",
            correction=correction.value,
            samples=len(samples),
            half_round_trip_ms=self._exchange_clock.half_round_trip_ms,
            uncertainty_ms=round(self._exchange_clock.uncertainty_ms, 3),
        )
        return correction

    def _raise_alarm(self, failed: int, error: BaseException) -> None:
        """Say once that the calibration is no longer valid."""
        if self._alarmed or self._exchange_clock.is_valid():
            return
        self._alarmed = True
        age_ms = round(min(self._exchange_clock.age_ms, 1e12))
        log.error("clock.invalid", age_ms=age_ms, attempts=failed, reason=_one_line(error))

    async def _wait(self, seconds: float) -> None:
        """Wait in short sleeps against the count: an event loop's own timers stand while the host is suspended."""
        end_ns = self._clock.monotonic_ns() + int(seconds * 1e9)
        while (left_ns := end_ns - self._clock.monotonic_ns()) > 0:
            await self._clock.sleep(min(left_ns / 1e9, POLL_S))

    def _backoff_s(self, failed: int) -> float:
        ceiling = min(BACKOFF_FIRST_S * 2.0 ** min(failed - 1, 10), BACKOFF_LAST_S)
        return ceiling * self._jitter.uniform(0.5, 1.0)


def _ban_s(error: BaseException) -> float:
    """For how long the exchange has asked to be left alone."""
    return error.wait_s if isinstance(error, RateLimited) else 0.0


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text or ("timed out" if isinstance(error, TimeoutError) else type(error).__name__)


MARGIN_FLOOR_MS: Final = 10
MARGIN_CEILING_MS: Final = 1_000
SPOT_MARGIN_MS: Final = 10
AUTO_START_MS: Final = 250
"""The automatic margin until enough lags are known: futures trades arrive some 150 ms after they were made."""
AUTO_QUANTILE: Final = 0.999
AUTO_MIN_LAGS: Final = 2_000
"""Fewer lags say nothing about the 99.9th percentile."""
AUTO_WINDOW_LAGS: Final = 200_000
"""Past this many lags all counts are halved: the newest weigh most, and the memory stays one histogram."""
TURN_S: Final = 0.05
"""How often the event loop proves that it turns, while the margin learns."""
LATE_TURN_MS: Final = 25
"""A turn later than this has made the trades wait for us: what they seemed to lag says nothing of the exchange."""

MarginSetting = int | Literal["auto"]


class Margin:
    """How long after a boundary the tick waits for the minute's last trades: fixed, or learned from their lags.

    Lags count once the event loop has turned on time before and after them: a loop that stood still would learn its own
    delay, and wait for it ever after.
    """

    def __init__(self, setting: MarginSetting) -> None:
        self._fixed_ms = None if setting == "auto" else setting
        self._counts = np.zeros(MARGIN_CEILING_MS + 1, np.int64)
        self._unproven = np.zeros(MARGIN_CEILING_MS + 1, np.int64)
        self._was_late = True
        self._learned_ms: int | None = None

    @classmethod
    def of(cls, market: Market, setting: MarginSetting | None) -> "Margin":
        """The margin of a market; without a setting 10 ms on spot and `auto` on usdm."""
        if setting is None:
            setting = SPOT_MARGIN_MS if market is Market.SPOT else "auto"
        return cls(setting)

    def observe(self, lags_ms: npt.NDArray[Any]) -> None:
        """Take lags of live trades (receive time less T, whole ms); out of range ones count as the nearest.

        They wait for the next turn to tell whether they count.
        """
        if self._fixed_ms is not None or lags_ms.size == 0:
            return
        clipped = np.clip(lags_ms, 0, MARGIN_CEILING_MS).astype(np.int64)
        self._unproven += np.bincount(clipped, minlength=MARGIN_CEILING_MS + 1)

    def turned(self, late_ms: float) -> None:
        """The event loop has turned, so late: count the lags since the last turn if both were on time, else forget them."""
        is_late = late_ms > LATE_TURN_MS
        if not (is_late or self._was_late):
            self._counts += self._unproven
            while int(self._counts.sum()) > AUTO_WINDOW_LAGS:
                self._counts //= 2
            self._learned_ms = None
        self._unproven[:] = 0
        self._was_late = is_late

    async def learn(self, clock: Clock) -> None:
        """Until cancelled, watch the event loop turn; a fixed margin has nothing to learn."""
        before_ns = clock.monotonic_ns()
        while self._fixed_ms is None:
            await clock.sleep(TURN_S)
            now_ns = clock.monotonic_ns()
            self.turned((now_ns - before_ns) / NS_PER_MS - TURN_S * 1e3)
            before_ns = now_ns

    @property
    def value_ms(self) -> int:
        """The margin now."""
        if self._fixed_ms is not None:
            return self._fixed_ms
        if self._learned_ms is None:
            self._learned_ms = self._quantile_ms()
        return self._learned_ms

    def _quantile_ms(self) -> int:
        total = int(self._counts.sum())
        if total < AUTO_MIN_LAGS:
            return AUTO_START_MS
        lag_ms = int(np.searchsorted(np.cumsum(self._counts), AUTO_QUANTILE * total))
        return min(max(lag_ms, MARGIN_FLOOR_MS), MARGIN_CEILING_MS)


class MinuteTicker:
    """The minute boundaries of the exchange's clock: never early, each exactly once, in order, none left out.

    It begins after `last_tick_ms` (see `ExchangeClock.last_boundary_ms`). While the calibration is not valid it holds;
    afterwards it catches up. A cancellation interrupts the wait at once.
    """

    def __init__(self, clock: Clock, exchange_clock: ExchangeClock, margin: Margin, last_tick_ms: int) -> None:
        assert MINUTE.is_open(last_tick_ms)
        self._clock = clock
        self._exchange_clock = exchange_clock
        self._margin = margin
        self._held = False
        self.last_tick_ms = last_tick_ms
        """The last boundary handed out."""

    async def next(self) -> int:
        """Wait for the next boundary and return it, UTC ms."""
        boundary_ms = MINUTE.next_open(self.last_tick_ms)
        while (wait_ms := self._wait_ms(boundary_ms)) > 0:
            await self._clock.sleep(min(wait_ms / 1_000, POLL_S))
        self.last_tick_ms = boundary_ms
        return boundary_ms

    def _wait_ms(self, boundary_ms: int) -> float:
        """How long until the boundary may be emitted, by what is known now; 0 for now."""
        valid = self._exchange_clock.is_valid()
        if valid == self._held:
            self._held = not valid
            event = "clock.ticks_resumed" if valid else "clock.ticks_held"
            log.warning(event, boundary_ms=boundary_ms, age_ms=round(min(self._exchange_clock.age_ms, 1e12)))
        if not valid:
            return POLL_S * 1_000
        margin_left_ms = boundary_ms + self._margin.value_ms - self._exchange_clock.now_ms()
        return max(margin_left_ms, boundary_ms - self._exchange_clock.earliest_ms(), 0)
