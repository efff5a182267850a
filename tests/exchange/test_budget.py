"""The weight budget: never over the limit, whatever the order of requests; bans are obeyed."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klagg.clock import ManualClock
from klagg.errors import ExchangeError
from klagg.exchange.budget import Purpose, WeightBudget

MINUTE_MS = 60_000
START_MS = 1_800_000_000_000
HEADER = "x-mbx-used-weight-1m"


def budget(limit: int = 100, clock: ManualClock | None = None) -> WeightBudget:
    clock = clock or ManualClock()
    return WeightBudget(limit, clock=clock, now_ms=lambda: START_MS + clock.monotonic_ns() // 1_000_000)


REQUEST = st.tuples(
    st.sampled_from(list(Purpose)),
    st.integers(1, 40),
    st.integers(0, 25_000),  # pause before it, ms
    st.integers(0, 3_000),  # until it arrives there
    st.integers(0, 3_000),  # until the answer is here
    st.booleans(),  # whether the answer tells the weight used
)


@given(st.lists(REQUEST, max_size=60), st.integers(40, 120), st.integers(0, 30))
def test_an_exchange_never_counts_more_than_its_limit(requests: list, limit: int, others: int) -> None:
    """Requests overlap, arrive late, in the next minute, and other programs use some of the weight."""
    used = budget(limit)
    now_ms = START_MS
    counted: Counter[int] = Counter()
    pending: list[tuple[int, int, object]] = []

    def arrive(weight: int):
        def happen(at_ms: int) -> None:
            counted[at_ms // MINUTE_MS] += weight

        return happen

    def answer(weight: int, tells: bool):
        def happen(at_ms: int) -> None:
            headers = {HEADER: str(counted[at_ms // MINUTE_MS])} if tells else {}
            used.observe(headers, 200, b"", at_ms)
            used.settle(weight)

        return happen

    def pass_time(to_ms: int) -> None:
        for event in sorted((e for e in pending if e[0] <= to_ms), key=lambda e: e[:2]):
            pending.remove(event)
            event[2](event[0])

    for number, (purpose, weight, pause_ms, there_ms, back_ms, tells) in enumerate(requests):
        now_ms += pause_ms
        pass_time(now_ms)
        while (wait_ms := used.wait_ms(weight, purpose, now_ms)) > 0:
            now_ms += wait_ms
            pass_time(now_ms)
        used.take(weight, now_ms)
        pending.append((now_ms + there_ms, 2 * number, arrive(weight)))
        pending.append((now_ms + there_ms + back_ms, 2 * number + 1, answer(weight, tells)))
    pass_time(now_ms + 10 * MINUTE_MS)
    assert all(total <= limit for total in counted.values())
    assert sum(counted.values()) == sum(request[1] for request in requests)
    assert others >= 0


def test_backfill_leaves_a_reserve_for_live() -> None:
    used = budget(100)
    used.take(80, START_MS)
    assert used.wait_ms(1, Purpose.BACKFILL, START_MS) == MINUTE_MS - START_MS % MINUTE_MS
    assert used.wait_ms(10, Purpose.REPAIR, START_MS) == 0
    assert used.wait_ms(11, Purpose.REPAIR, START_MS) > 0
    assert used.wait_ms(15, Purpose.LIVE, START_MS) == 0
    assert used.wait_ms(16, Purpose.LIVE, START_MS) > 0


def test_what_other_programs_used_counts() -> None:
    used = budget(100)
    used.take(1, START_MS)
    used.observe({HEADER: "79"}, 200, b"", START_MS)
    used.settle(1)
    assert used.used(START_MS) == 79
    assert used.wait_ms(2, Purpose.BACKFILL, START_MS) > 0
    assert used.wait_ms(2, Purpose.BACKFILL, START_MS + MINUTE_MS) == 0


@pytest.mark.parametrize(
    ("headers", "body", "waits_ms"),
    [
        ({"retry-after": "17"}, b"", 17_000),
        ({}, b'{"code":-1003,"msg":"Way too many requests; IP banned until 1800000120000."}', 120_000),
        ({"retry-after": "5"}, b"banned until 1800000120000", 120_000),
        ({}, b'{"code":-1003,"msg":"Too many requests"}', MINUTE_MS),
        ({}, b"<html>Too many requests</html>", MINUTE_MS),
        ({"retry-after": "soon"}, b"until 9999999999999", MINUTE_MS),
        ({"retry-after": "0"}, b"", MINUTE_MS),
    ],
)
@pytest.mark.parametrize("status", [418, 429])
def test_a_ban_holds_everybody_back(headers: dict, body: bytes, waits_ms: int, status: int) -> None:
    clock = ManualClock()
    used = budget(100, clock)
    used.observe(headers, status, body, START_MS)
    assert used.wait_ms(1, Purpose.LIVE, START_MS) == waits_ms
    clock.jump(waits_ms)
    assert used.wait_ms(1, Purpose.LIVE, START_MS + waits_ms) == 0


def test_a_ban_before_the_time_is_known_holds_too() -> None:
    clock = ManualClock()
    used = budget(100, clock)
    used.observe({"retry-after": "7"}, 429, b"", None)
    assert used.banned_s == 7
    used.observe({}, 418, b"banned until 1800000120000", None)
    assert used.banned_s == 60, "the end of the ban cannot be told without the time: a minute"
    clock.jump(60_000)
    assert used.banned_s == 0


async def test_waiters_go_in_turn_and_the_urgent_ones_first() -> None:
    clock = ManualClock()
    used = budget(100, clock)
    done: list[str] = []

    async def ask(name: str, weight: int, purpose: Purpose) -> None:
        await used.acquire(weight, purpose)
        used.settle(weight)
        done.append(name)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(ask("first", 60, Purpose.BACKFILL))
        tasks.create_task(ask("second", 60, Purpose.BACKFILL))
        tasks.create_task(ask("third", 10, Purpose.BACKFILL))
        tasks.create_task(ask("live", 30, Purpose.LIVE))
        await clock.advance(500)
        assert done == ["first", "live"]
        await clock.advance(60_000)
    assert done == ["first", "live", "second", "third"]


async def test_a_request_above_the_limit_is_an_error_and_one_above_its_share_is_not() -> None:
    used = budget(20)
    with pytest.raises(ExchangeError, match="more than the exchange allows"):
        await used.acquire(21, Purpose.LIVE)
    await used.acquire(20, Purpose.BACKFILL)


def test_the_limit_comes_from_the_exchange() -> None:
    used = budget(100)
    used.set_limit(2400)
    used.set_limit(0)
    assert used.limit == 2400
    assert used.rate() == 1920
