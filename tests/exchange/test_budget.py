"""The weight budget: never over the limit, whatever the order of requests; bans are obeyed."""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.venue import Venue
from klagg.clock import ManualClock
from klagg.errors import ExchangeError, RateLimited, StoreUnavailable
from klagg.exchange.budget import Purpose, WeightBudget
from klagg.exchange.endpoints import for_market
from klagg.exchange.rest import RestClient
from klagg.model import Market
from klagg.store import SqliteStore, open_store
from klagg.store.budget import WeightLedger
from klagg.store.thread import StoreThread

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


def test_an_answer_that_was_dated_ahead_before_the_time_was_known_does_not_stop_the_minutes() -> None:
    used = budget(100)
    used.take_unclocked(1)
    used.observe({HEADER: "1"}, 200, b"", START_MS + 600 * 86_400_000)
    used.settle(1)
    for minute in range(3):
        now_ms = START_MS + minute * MINUTE_MS
        assert used.wait_ms(80, Purpose.REPAIR, now_ms) == 0
        used.take(80, now_ms)
        used.settle(80)
        assert used.wait_ms(80, Purpose.REPAIR, now_ms + 1) == MINUTE_MS - 1


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


# Shared with other processes

SMALL = st.tuples(
    st.sampled_from(list(Purpose)),
    st.integers(1, 25),
    st.just(0),
    st.integers(0, 3_000),
    st.integers(0, 3_000),
    st.booleans(),
)

ADDRESS = "https://exchange"


class Direct:
    """Stands for the store's thread: the same calls, one turn of the loop later, in the loop's own order."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.away = False
        self.calls = 0

    async def call(self, fn, *args, **kwargs):
        await asyncio.sleep(0)
        self.calls += 1
        if self.away:
            raise StoreUnavailable("the disk is full")
        return fn(*args, **kwargs)


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Direct]:
    with closing(open_store(str(tmp_path_factory.mktemp("ledger") / "k.db"), mode="create")) as store:
        yield Direct(store)


@pytest.fixture
def thread(direct: Direct) -> Direct:
    direct.away, direct.calls = False, 0
    for table in ("request_weight", "request_ban"):
        direct.store._database.execute(f"DELETE FROM {table}")
    return direct


def shared(
    thread: Direct, clock: ManualClock, limit: int = 100, *, host_ms=lambda: START_MS, known=True
) -> WeightBudget:
    return WeightBudget(
        limit,
        clock=clock,
        now_ms=lambda: START_MS + clock.monotonic_ns() // 1_000_000 if known else 0,
        ledger=WeightLedger(thread, Market.USDM, ADDRESS),
        host_ms=host_ms,
    )


def test_processes_that_know_only_the_ledger_stay_within_the_limit_together(direct: Direct) -> None:
    """Any interleaving of their requests, which overlap, arrive late and in the next minute; one process ends and begins anew."""

    @settings(max_examples=25, deadline=None)
    @given(
        st.lists(st.tuples(st.integers(0, 2), st.integers(0, 90_000), SMALL), min_size=3, max_size=20),
        st.integers(60, 100),
    )
    def play(requests: list, limit: int) -> None:
        for table in ("request_weight", "request_ban"):
            direct.store._database.execute(f"DELETE FROM {table}")
        direct.away = False
        counted, done = asyncio.run(run(requests, limit))
        assert done == len(requests)
        assert all(total <= limit for total in counted.values()), counted

    async def run(requests: list, limit: int) -> tuple[Counter[int], int]:
        clock = ManualClock()
        # The third is the second after a restart: it knows nothing of what the second has used and has on its way.
        budgets = [shared(direct, clock, limit) for _ in range(3)]
        counted: Counter[int] = Counter()
        done = 0

        def now_ms() -> int:
            return START_MS + clock.monotonic_ns() // 1_000_000

        async def ask(used: WeightBudget, at_ms: int, request: tuple) -> None:
            nonlocal done
            purpose, weight, _, there_ms, back_ms, tells = request
            await clock.sleep(at_ms / 1e3)
            await used.acquire(weight, purpose)
            await clock.sleep(there_ms / 1e3)
            counted[now_ms() // MINUTE_MS] += weight
            told = {HEADER: str(counted[now_ms() // MINUTE_MS])} if tells else {}
            at_minute_ms = now_ms()
            await clock.sleep(back_ms / 1e3)
            if at_minute_ms // MINUTE_MS == now_ms() // MINUTE_MS:
                used.observe(told, 200, b"", now_ms())
            used.settle(weight)
            done += 1

        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(ask(budgets[process], at_ms, request)) for process, at_ms, request in requests]
            for _ in range(60):
                await clock.advance(20_000)
                if done == len(requests):
                    break
            for task in asked:
                task.cancel()
        return counted, done

    play()


async def test_what_was_used_survives_a_restart(thread: Direct) -> None:
    clock = ManualClock()
    before = shared(thread, clock, 1_000)
    for _ in range(70):
        await before.acquire(10, Purpose.BACKFILL)
        before.settle(10)
    after = shared(thread, clock, 1_000)
    waiting = asyncio.create_task(after.acquire(110, Purpose.BACKFILL))
    await clock.advance(1_000)
    assert not waiting.done(), "700 of 800 are used"
    await asyncio.wait_for(after.acquire(110, Purpose.LIVE), 10)
    await clock.advance(60_000)
    assert waiting.done()


async def test_live_requests_of_one_process_are_not_starved_by_the_backfill_of_another(thread: Direct) -> None:
    clock = ManualClock()
    greedy, live = shared(thread, clock, 1_000), shared(thread, clock, 1_000)
    backfill = [asyncio.create_task(greedy.acquire(10, Purpose.BACKFILL)) for _ in range(200)]
    repair = [asyncio.create_task(greedy.acquire(10, Purpose.REPAIR)) for _ in range(200)]
    for _ in range(3_000):
        await asyncio.sleep(0)
    assert sum(task.done() for task in backfill + repair) == 90, "repair may reach 90 % of the limit"
    for _ in range(5):
        await asyncio.wait_for(live.acquire(10, Purpose.LIVE), 10)
    for task in backfill + repair:
        task.cancel()
    await asyncio.gather(*backfill, *repair, return_exceptions=True)


async def test_what_is_on_its_way_at_the_turn_of_the_minute_counts_for_the_others_too(thread: Direct) -> None:
    clock = ManualClock()
    one, other = shared(thread, clock, 1_000), shared(thread, clock, 1_000)
    clock.jump(59_900)
    for _ in range(90):
        await one.acquire(10, Purpose.LIVE)
    clock.jump(200)
    asked = [asyncio.create_task(other.acquire(10, Purpose.LIVE)) for _ in range(20)]
    for _ in range(1_000):
        await asyncio.sleep(0)
    assert sum(task.done() for task in asked) <= 5, "900 may arrive in the new minute, and 950 may be used"
    for task in asked:
        task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)


async def test_the_ledger_is_asked_for_some_requests_at_a_time(thread: Direct) -> None:
    used = shared(thread, ManualClock(), 2_400)
    for _ in range(1_900):
        await used.acquire(1, Purpose.BACKFILL)
        used.settle(1)
    assert thread.calls == 40


@pytest.mark.parametrize("known", [True, False])
async def test_a_ban_outlives_the_process_that_met_it(thread: Direct, known: bool) -> None:
    clock = ManualClock()
    before = shared(thread, clock, known=known)
    before.observe({"retry-after": "120"}, 418, b"", before._now_ms() or None)
    await before.publish()
    clock.jump(20_000)
    after = shared(thread, clock, host_ms=lambda: START_MS + 20_000, known=known)
    await after.look()
    assert after.banned_s == 100
    waiting = asyncio.create_task(after.acquire(1, Purpose.LIVE))
    await clock.advance(99_000)
    assert not waiting.done()
    await clock.advance(2_000)
    assert waiting.done()


async def test_a_ban_that_another_process_meets_is_known_within_seconds(thread: Direct) -> None:
    clock = ManualClock()
    one, other = shared(thread, clock), shared(thread, clock)
    await other.acquire(1, Purpose.LIVE)
    one.observe({"retry-after": "300"}, 429, b"", START_MS)
    await one.publish()
    await clock.advance(6_000)
    waiting = asyncio.create_task(other.acquire(1, Purpose.LIVE))
    await clock.advance(1_000)
    assert not waiting.done()
    assert other.banned_s > 290
    waiting.cancel()


async def test_a_wrong_host_clock_does_not_make_a_ban_longer(thread: Direct) -> None:
    clock = ManualClock()
    one = shared(thread, clock)
    one.observe({"retry-after": "60"}, 429, b"", START_MS)
    await one.publish()
    behind = shared(thread, clock, host_ms=lambda: START_MS - 86_400_000, known=False)
    await behind.look()
    assert behind.banned_s == 60


async def test_a_new_process_asks_nothing_while_the_address_is_banned(venue: Venue, tmp_path: Path) -> None:
    store = StoreThread(open_store(str(tmp_path / "k.db"), mode="create"))
    ledger = WeightLedger(store, Market.USDM, ADDRESS)
    clock = ManualClock()
    met = WeightBudget(100, clock=clock, now_ms=lambda: START_MS, ledger=ledger)
    met.observe({"retry-after": "600"}, 418, b"", START_MS)
    await met.publish()
    anew = WeightBudget(100, clock=clock, now_ms=lambda: 0, ledger=ledger, host_ms=lambda: START_MS + 1_000)
    endpoints = for_market(Market.USDM, rest_url=f"http://127.0.0.1:{venue.port}")
    async with RestClient(endpoints, clock=clock, now_ms=lambda: 0, budget=anew) as rest:
        with pytest.raises(RateLimited, match="wait 599 s"):
            await rest.server_time()
    assert venue.calls == []
    await store.close()


async def test_a_ledger_that_is_away_is_done_without_and_used_again(thread: Direct) -> None:
    clock = ManualClock()
    used = shared(thread, clock)
    thread.away = True
    for _ in range(8):
        await used.acquire(10, Purpose.BACKFILL)
        used.settle(10)
    assert (used.is_shared, thread.calls) == (False, 1), "it is not asked at every request"
    waiting = asyncio.create_task(used.acquire(10, Purpose.BACKFILL))
    await clock.advance(5_000)
    assert not waiting.done(), "the process's own budget still holds"
    thread.away = False
    await clock.advance(60_000)
    assert waiting.done()
    assert used.is_shared


async def test_rows_that_cannot_be_are_ignored(thread: Direct) -> None:
    minute = START_MS // MINUTE_MS
    with closing(sqlite3.connect(thread.store.path)) as connection, connection:
        connection.executemany(
            "INSERT INTO request_weight VALUES ('usdm', ?, ?, ?, ?, ?)",
            [
                (ADDRESS, "negative", minute, -5, 0),
                (ADDRESS, "huge", minute, 1 << 60, 0),
                (ADDRESS, "far", minute + 10_000, 90, 90),
                (ADDRESS, "long ago", minute - 3, 90, 90),
                ("elsewhere", "other", minute, 90, 0),
                (ADDRESS, "sound", minute, 30, 0),
            ],
        )
        connection.execute("INSERT INTO request_ban VALUES ('usdm', ?, ?, ?)", (ADDRESS, 1 << 61, 1 << 60))
    clock = ManualClock()
    used = shared(thread, clock)
    await asyncio.wait_for(used.acquire(50, Purpose.BACKFILL), 10)
    assert used.banned_s == 0
    waiting = asyncio.create_task(used.acquire(1, Purpose.BACKFILL))
    await clock.advance(1_000)
    assert not waiting.done()
    waiting.cancel()
