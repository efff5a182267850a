"""The clocks, the calibration and the ticks, all on time moved by hand."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from klagg.clock import (
    AUTO_START_MS,
    NS_PER_MS,
    VALIDITY_MS,
    Calibrator,
    Correction,
    ExchangeClock,
    ManualClock,
    Margin,
    MinuteTicker,
    ScaledClock,
    SystemClock,
    TimeSample,
)
from klagg.errors import ClockError, ExchangeError, RestrictedLocation
from klagg.interval import MINUTE_MS
from klagg.model import Market

START_MS = 1_753_900_000_000 // MINUTE_MS * MINUTE_MS


class Exchange:
    """An exchange's clock as a function of the host's count, and a time endpoint with an asymmetric path to it."""

    def __init__(self, clock: ManualClock, start_ms: float = START_MS, drift_ppm: int = 0, seed: int = 0) -> None:
        self.clock = clock
        self.base_ns = round(start_ms * NS_PER_MS) - clock.monotonic_ns()
        self.drift_ppm = drift_ppm
        self.random = random.Random(seed)
        self.there_ms: tuple[float, float] = (5, 5)
        self.back_ms: tuple[float, float] = (5, 5)
        self.failing: Exception | None = None
        self.calls = 0

    def now_ns(self) -> int:
        host_ns = self.clock.monotonic_ns()
        return self.base_ns + host_ns + host_ns * self.drift_ppm // 1_000_000

    async def fetch(self) -> TimeSample:
        self.calls += 1
        if self.failing is not None:
            raise self.failing
        sent_ns = self.clock.monotonic_ns()
        await self.clock.sleep(self.random.uniform(*self.there_ms) / 1_000)
        server_ms = self.now_ns() // NS_PER_MS
        await self.clock.sleep(self.random.uniform(*self.back_ms) / 1_000)
        return TimeSample(sent_ns, self.clock.monotonic_ns(), server_ms)


def sample(clock: ManualClock, server_ms: int, round_trip_ms: float = 0) -> TimeSample:
    now_ns = clock.monotonic_ns()
    return TimeSample(now_ns - round(round_trip_ms * NS_PER_MS), now_ns, server_ms)


def calibrated(clock: ManualClock, at_ms: int = START_MS) -> ExchangeClock:
    exchange_clock = ExchangeClock(clock)
    exchange_clock.add_samples([sample(clock, at_ms)])
    return exchange_clock


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


# Host clocks


async def test_manual_clock_wakes_sleepers_in_the_order_of_their_time() -> None:
    clock = ManualClock()
    woken: list[tuple[str, int]] = []

    async def sleeper(name: str, *seconds: float) -> None:
        for pause in seconds:
            await clock.sleep(pause)
            woken.append((name, clock.monotonic_ns() // NS_PER_MS))

    async with asyncio.TaskGroup() as group:
        group.create_task(sleeper("slow", 0.5))
        group.create_task(sleeper("quick", 0.2, 0.2, 0.2))
        await clock.advance(450)
        assert woken == [("quick", 200), ("quick", 400)]
        assert clock.sleepers == 2
        await clock.advance(150)
    assert woken[2:] == [("slow", 500), ("quick", 600)]


async def test_manual_clock_jump_wakes_everyone_at_the_new_instant() -> None:
    clock = ManualClock()
    task = asyncio.create_task(clock.sleep(1))
    await asyncio.sleep(0)
    clock.jump(600_000)
    await task
    assert clock.monotonic_ns() == 600_000 * NS_PER_MS


async def test_a_cancelled_sleeper_is_forgotten() -> None:
    clock = ManualClock()
    task = asyncio.create_task(clock.sleep(1))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert clock.sleepers == 0
    await clock.advance(2_000)


async def test_scaled_clock_counts_faster_and_sleeps_shorter() -> None:
    base = ManualClock()
    scaled = ScaledClock(60, base)
    task = asyncio.create_task(scaled.sleep(120))
    await base.advance(1_999)
    assert not task.done()
    await base.advance(1)
    await task
    assert scaled.monotonic_ns() == 120_000 * NS_PER_MS


async def test_system_clock_counts_and_returns_at_once_from_a_negative_sleep() -> None:
    clock = SystemClock()
    before_ns = clock.monotonic_ns()
    await clock.sleep(-1)
    assert 0 <= clock.monotonic_ns() - before_ns < 10**9


# The exchange clock


def test_before_the_first_sample_there_is_no_time() -> None:
    exchange_clock = ExchangeClock(ManualClock())
    assert not exchange_clock.is_valid()
    with pytest.raises(ClockError, match="not known yet"):
        exchange_clock.now_ms()


def test_the_smallest_round_trip_wins_and_its_half_is_the_uncertainty() -> None:
    clock = ManualClock(10**12)
    exchange_clock = ExchangeClock(clock)
    near = sample(clock, START_MS, round_trip_ms=20)
    far = sample(clock, START_MS + 500, round_trip_ms=300)
    assert exchange_clock.add_samples([far, near]) is Correction.SET
    assert exchange_clock.now_ms() == START_MS + 10
    assert exchange_clock.uncertainty_ms == pytest.approx(10)
    assert exchange_clock.earliest_ms() == START_MS


async def test_uncertainty_grows_with_age_by_the_allowed_drift() -> None:
    clock = ManualClock()
    exchange_clock = calibrated(clock)
    await clock.advance(100_000)
    assert exchange_clock.uncertainty_ms == pytest.approx(10)


def test_small_corrections_are_slewed_in_both_directions() -> None:
    for error_ms in (-200, 200):
        clock = ManualClock()
        exchange_clock = calibrated(clock)
        assert exchange_clock.add_samples([sample(clock, START_MS + error_ms)]) is Correction.SLEW
        assert exchange_clock.now_ms() == START_MS
        assert exchange_clock.uncertainty_ms == pytest.approx(200)
        clock.jump(10_000)
        assert exchange_clock.now_ms() - START_MS - 10_000 == (50 if error_ms > 0 else -50)
        clock.jump(30_001)
        assert exchange_clock.now_ms() - START_MS - 40_001 == error_ms


def test_slewing_does_not_depend_on_how_often_the_time_is_read() -> None:
    clock = ManualClock()
    exchange_clock = calibrated(clock)
    exchange_clock.add_samples([sample(clock, START_MS + 100)])
    for _ in range(1_000):
        clock.jump(0.000_15)  # below one nanosecond of correction each
        exchange_clock.now_ms()
        clock.jump(9.999_85)
        exchange_clock.now_ms()
    assert exchange_clock.now_ms() - START_MS - 10_000 == pytest.approx(50, abs=1)


def test_a_large_error_steps_forward_at_once() -> None:
    clock = ManualClock()
    exchange_clock = calibrated(clock)
    assert exchange_clock.add_samples([sample(clock, START_MS + 251)]) is Correction.STEP
    assert exchange_clock.now_ms() == START_MS + 251


def test_a_large_error_back_holds_until_true_time_has_caught_up() -> None:
    clock = ManualClock()
    exchange_clock = calibrated(clock)
    assert exchange_clock.add_samples([sample(clock, START_MS - 5_000)]) is Correction.HOLD
    clock.jump(4_000)
    assert exchange_clock.now_ms() == START_MS
    assert exchange_clock.earliest_ms() <= START_MS - 1_000
    clock.jump(1_500)
    assert exchange_clock.now_ms() == START_MS + 500


def test_a_worse_sample_that_agrees_confirms_and_one_that_disagrees_replaces() -> None:
    clock = ManualClock()
    exchange_clock = calibrated(clock)
    clock.jump(VALIDITY_MS)
    later_ms = START_MS + VALIDITY_MS
    assert exchange_clock.add_samples([sample(clock, later_ms - 50, round_trip_ms=400)]) is Correction.CONFIRM
    assert exchange_clock.now_ms() == later_ms
    clock.jump(1)
    assert exchange_clock.is_valid()
    assert exchange_clock.add_samples([sample(clock, later_ms + 9_000, round_trip_ms=400)]) is Correction.STEP


def test_validity_ends_after_five_minutes() -> None:
    clock = ManualClock()
    exchange_clock = calibrated(clock)
    clock.jump(VALIDITY_MS)
    assert exchange_clock.is_valid()
    clock.jump(1)
    assert not exchange_clock.is_valid()


def test_a_jump_of_the_wall_clock_moves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    exchange_clock = calibrated(clock)
    monkeypatch.setattr("time.time", lambda: 0.0)
    monkeypatch.setattr("time.time_ns", lambda: 0)
    assert exchange_clock.now_ms() == START_MS
    assert exchange_clock.offset_ms(START_MS - 40.0) == pytest.approx(40)


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 90_000), st.integers(-2_000, 2_000), st.integers(0, 900)), min_size=1, max_size=30
    )
)
def test_the_time_never_runs_backwards(steps: list[tuple[int, int, int]]) -> None:
    clock = ManualClock()
    exchange_clock = calibrated(clock)
    last_ms = exchange_clock.now_ms()
    for wait_ms, error_ms, round_trip_ms in steps:
        for part in range(4):
            clock.jump(wait_ms / 4)
            if part == 3:
                true_ms = START_MS + clock.monotonic_ns() // NS_PER_MS
                exchange_clock.add_samples([sample(clock, true_ms + error_ms, round_trip_ms)])
            now_ms = exchange_clock.now_ms()
            assert now_ms >= last_ms
            last_ms = now_ms


# Calibration


async def test_start_gives_up_with_one_clear_line_after_bounded_attempts() -> None:
    clock = ManualClock()
    exchange = Exchange(clock)
    exchange.failing = ExchangeError("connection refused by fapi.example:443")
    task = asyncio.create_task(Calibrator(clock, ExchangeClock(clock), exchange.fetch, start_attempts=3).start())
    await clock.advance(60_000)
    with pytest.raises(ClockError, match=r"after 3 attempts: connection refused by fapi.example:443$") as raised:
        await task
    assert "\n" not in str(raised.value)
    assert exchange.calls == 3


async def test_start_does_not_repeat_a_refusal_by_location() -> None:
    clock = ManualClock()
    exchange = Exchange(clock)
    exchange.failing = RestrictedLocation("451")
    with pytest.raises(RestrictedLocation):
        await Calibrator(clock, ExchangeClock(clock), exchange.fetch).start()
    assert exchange.calls == 1


async def test_start_retries_and_then_knows_the_time() -> None:
    clock = ManualClock()
    exchange, exchange_clock = Exchange(clock), ExchangeClock(clock)
    exchange.failing = ConnectionRefusedError("no")
    task = asyncio.create_task(Calibrator(clock, exchange_clock, exchange.fetch).start())
    await clock.advance(100)
    exchange.failing = None
    await clock.advance(10_000)
    await task
    assert abs(exchange_clock.now_ms() - exchange.now_ns() // NS_PER_MS) <= 1


async def test_running_it_tries_for_ever_and_recovers() -> None:
    clock = ManualClock()
    exchange, exchange_clock = Exchange(clock), calibrated(clock)
    task = asyncio.create_task(Calibrator(clock, exchange_clock, exchange.fetch).run())
    exchange.failing = ExchangeError("down")
    await clock.advance(2 * VALIDITY_MS)
    assert not exchange_clock.is_valid()
    assert exchange.calls >= 10
    exchange.failing = None
    await clock.advance(31_000)
    assert exchange_clock.is_valid()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_burst_counts_although_some_of_it_failed() -> None:
    clock = ManualClock()
    exchange, exchange_clock = Exchange(clock), ExchangeClock(clock)

    async def flaky() -> TimeSample:
        if exchange.calls == 2:
            exchange.calls += 1
            raise TimeoutError
        return await exchange.fetch()

    task = asyncio.create_task(Calibrator(clock, exchange_clock, flaky).calibrate())
    await clock.advance(1_000)
    assert await task is Correction.SET
    assert exchange_clock.is_valid()


# Margin


def test_margin_defaults_by_market() -> None:
    assert Margin.of(Market.SPOT, None).value_ms == 10
    assert Margin.of(Market.USDM, None).value_ms == AUTO_START_MS
    assert Margin.of(Market.USDM, 35).value_ms == 35


def learn(margin: Margin, lags_ms: Any) -> None:
    """Lags between two turns that are on time."""
    margin.turned(0)
    margin.observe(lags_ms)
    margin.turned(0)


def test_auto_margin_is_the_quantile_within_its_limits() -> None:
    margin = Margin("auto")
    learn(margin, np.full(100, 900))
    assert margin.value_ms == AUTO_START_MS  # too few to say
    margin = Margin("auto")
    learn(margin, np.concatenate([np.full(9_980, 150), np.full(20, 420)]))
    assert margin.value_ms == 420
    for lag_ms, expected_ms in ((-3_000, 10), (0, 10), (60_000, 1_000)):
        margin = Margin("auto")
        learn(margin, np.full(5_000, lag_ms))
        assert margin.value_ms == expected_ms


def test_auto_margin_forgets() -> None:
    margin = Margin("auto")
    for _ in range(10):
        learn(margin, np.full(50_000, 800))
    assert margin.value_ms == 800
    for _ in range(60):
        learn(margin, np.full(50_000, 150))
    assert margin.value_ms == 150


def test_a_fixed_margin_learns_nothing() -> None:
    margin = Margin(10)
    learn(margin, np.full(10_000, 500))
    assert margin.value_ms == 10


async def test_auto_margin_does_not_learn_our_own_stalls() -> None:
    clock, margin = ManualClock(), Margin("auto")
    task = asyncio.create_task(margin.learn(clock))
    for stall_ms in (0, 900, 0, 0, 300, 0, 0):
        await clock.advance(60)
        margin.observe(np.full(10_000, 150))
        await clock.advance(60)
        clock.jump(
            stall_ms
        )  # nothing turns meanwhile; then the sockets bring what has waited, before or after the timers
        if stall_ms:
            margin.observe(np.full(10_000, stall_ms))
            await clock.advance(1)
            margin.observe(np.full(10_000, stall_ms))
    await clock.advance(200)
    assert margin.value_ms == 150
    task.cancel()


async def test_auto_margin_does_not_learn_what_waited_for_the_start() -> None:
    clock, margin = ManualClock(), Margin("auto")
    margin.observe(np.full(10_000, 1_000))
    task = asyncio.create_task(margin.learn(clock))
    await clock.advance(50)
    margin.observe(np.full(10_000, 180))
    await clock.advance(50)
    assert margin.value_ms == 180
    task.cancel()


# Ticks


class Ticks:
    """A ticker run beside a moving clock; each tick is kept with the true exchange time at which it came."""

    def __init__(self, clock: ManualClock, exchange: Exchange, ticker: MinuteTicker) -> None:
        self.clock, self.exchange, self.ticker = clock, exchange, ticker
        self.seen: list[tuple[int, float]] = []

    async def run(self) -> None:
        while True:
            boundary_ms = await self.ticker.next()
            self.seen.append((boundary_ms, self.exchange.now_ns() / NS_PER_MS))

    @property
    def boundaries(self) -> list[int]:
        return [boundary_ms for boundary_ms, _ in self.seen]


async def started(clock: ManualClock, exchange: Exchange, margin: Margin) -> tuple[ExchangeClock, Ticks, list[Any]]:
    exchange_clock = ExchangeClock(clock)
    calibrator = Calibrator(clock, exchange_clock, exchange.fetch)
    task = asyncio.create_task(calibrator.start())
    await clock.advance(4_000)
    await task
    ticks = Ticks(clock, exchange, MinuteTicker(clock, exchange_clock, margin, exchange_clock.last_boundary_ms()))
    return exchange_clock, ticks, [asyncio.create_task(calibrator.run()), asyncio.create_task(ticks.run())]


async def stop(tasks: list[Any]) -> None:
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(result, asyncio.CancelledError), result


async def test_a_tick_comes_margin_after_the_boundary() -> None:
    clock = ManualClock()
    exchange = Exchange(clock, START_MS + 30_000)
    exchange.there_ms = exchange.back_ms = (0, 0)
    _, ticks, tasks = await started(clock, exchange, Margin(40))
    await clock.advance(2 * MINUTE_MS)
    await stop(tasks)
    assert ticks.boundaries == [START_MS + MINUTE_MS, START_MS + 2 * MINUTE_MS]
    for boundary_ms, at_ms in ticks.seen:
        assert 39 <= at_ms - boundary_ms <= 60


async def test_boundaries_slept_through_come_all_and_in_order() -> None:
    clock = ManualClock()
    exchange = Exchange(clock, START_MS + 30_000)
    _, ticks, tasks = await started(clock, exchange, Margin(10))
    clock.jump(4 * MINUTE_MS)
    await clock.advance(1)
    assert ticks.boundaries == [START_MS + n * MINUTE_MS for n in (1, 2, 3, 4)]
    await stop(tasks)


async def test_ticks_hold_while_the_clock_is_invalid_and_catch_up_in_order() -> None:
    clock = ManualClock()
    exchange = Exchange(clock, START_MS + 30_000)
    exchange_clock, ticks, tasks = await started(clock, exchange, Margin(10))
    exchange.failing = ExchangeError("down")
    await clock.advance(10 * MINUTE_MS)
    assert not exchange_clock.is_valid()
    held = len(ticks.seen)
    assert held < 8
    await clock.advance(5 * MINUTE_MS)
    assert len(ticks.seen) == held
    exchange.failing = None
    await clock.advance(MINUTE_MS)
    await stop(tasks)
    assert ticks.boundaries == [START_MS + n * MINUTE_MS for n in range(1, 17)]


async def test_cancellation_interrupts_the_wait_at_once() -> None:
    clock = ManualClock()
    exchange_clock = calibrated(clock, START_MS)
    task = asyncio.create_task(MinuteTicker(clock, exchange_clock, Margin(10), START_MS).next())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert clock.monotonic_ns() == 0


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32),
    drift_ppm=st.integers(-99, 99),
    paths=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400)), min_size=1, max_size=4),
    pauses=st.lists(st.tuples(st.integers(1, 200), st.integers(0, 400)), min_size=1, max_size=5),
    margin_ms=st.integers(0, 300),
)
def test_never_early_once_and_in_order(
    seed: int,
    drift_ppm: int,
    paths: list[tuple[int, int]],
    pauses: list[tuple[int, int]],
    margin_ms: int,
) -> None:
    """Drift of the host, asymmetric and changing paths, and a process that is suspended for a while."""

    async def main() -> None:
        clock = ManualClock(seed)
        exchange = Exchange(clock, START_MS + seed % MINUTE_MS, drift_ppm, seed)
        exchange.there_ms, exchange.back_ms = (0, paths[0][0]), (0, paths[0][1])
        _, ticks, tasks = await started(clock, exchange, Margin(margin_ms))
        first_ms = ticks.ticker.last_tick_ms
        for index, (run_s, pause_s) in enumerate(pauses):
            there_ms, back_ms = paths[index % len(paths)]
            exchange.there_ms, exchange.back_ms = (there_ms / 2, there_ms), (back_ms / 2, back_ms)
            await clock.advance(run_s * 1_000)
            clock.jump(pause_s * 1_000)
        await clock.advance(65_000)
        await stop(tasks)
        end_ms = exchange.now_ns() // NS_PER_MS
        assert ticks.boundaries == [first_ms + n * MINUTE_MS for n in range(1, len(ticks.seen) + 1)]
        for boundary_ms, at_ms in ticks.seen:
            assert at_ms >= boundary_ms
        assert ticks.ticker.last_tick_ms >= end_ms - MINUTE_MS - 2_000

    run(main)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(jumps_ms=st.lists(st.integers(-200_000, 200_000), min_size=1, max_size=5), seed=st.integers(0, 1_000))
def test_once_and_in_order_although_the_exchange_clock_leaps(jumps_ms: list[int], seed: int) -> None:
    async def main() -> None:
        clock = ManualClock()
        exchange = Exchange(clock, START_MS, seed=seed)
        _, ticks, tasks = await started(clock, exchange, Margin(10))
        first_ms = ticks.ticker.last_tick_ms
        for jump_ms in jumps_ms:
            exchange.base_ns += jump_ms * NS_PER_MS
            await clock.advance(100_000)
        await clock.advance(1_000_000)
        await stop(tasks)
        assert ticks.boundaries == [first_ms + n * MINUTE_MS for n in range(1, len(ticks.seen) + 1)]
        assert ticks.ticker.last_tick_ms >= exchange.now_ns() // NS_PER_MS - MINUTE_MS - 1_000

    run(main)
