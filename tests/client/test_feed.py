"""The feed by the Python API: nothing lost, nothing twice, plain and asynchronous, across restarts of the service."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

import klagg
from client.conftest import Served, serving
from client.made import END_MS, HOLE_MS, LEARNED_MS
from klagg.interval import MINUTE_MS

WAIT_S = 60.0


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("feed") / "klagg.db") as one:
        yield one


@pytest.fixture(params=["database", "service"])
def place(request: pytest.FixtureRequest, served: Served) -> str:
    return str(served.path) if request.param == "database" else served.url


def newest(served: Served) -> int:
    return served.owner.store.newest_seq()


def all_events(place: str, upto: int, **wanted: Any) -> list[klagg.Event]:
    """Everything that is kept, up to a number that is an event's."""
    with klagg.open(place) as reader:
        found = []
        for event in reader.feed(0, **wanted):
            found.append(event)
            if event.seq >= upto:
                return found
    raise AssertionError


def test_both_tell_the_same_from_the_beginning(served: Served) -> None:
    served.owner.close_minute()
    upto = newest(served)
    ours, theirs = all_events(str(served.path), upto), all_events(served.url, upto)
    assert ours == theirs
    with sqlite3.connect(f"file:{served.path}?mode=ro", uri=True) as connection:
        ((count,),) = connection.execute("SELECT sum(count) FROM event")
    assert [event.seq for event in ours] == list(range(1, count + 1))
    kinds = {event.kind for event in ours}
    assert {"candle_revised", "symbol_added", "symbol_retired", "gap", "barrier_durable"} <= kinds
    (gap,) = [event for event in ours if isinstance(event, klagg.GapEvent) and event.reason == "the disk was full"]
    assert (gap.symbol, gap.start_ms, gap.end_ms) == ("ETHUSDT", *HOLE_MS)


@pytest.mark.parametrize(
    "wanted",
    [
        {"symbols": "ETHUSDT"},
        {"symbols": "*SHIB*,BTC/USDT:USDT", "intervals": "1m"},
        {"kinds": ["candle_verified", "barrier_durable"]},
    ],
)
def test_both_choose_alike(served: Served, wanted: dict[str, Any]) -> None:
    served.owner.close_minute(verified=True)
    upto = newest(served)
    every = all_events(str(served.path), upto)
    barriers = [event.seq for event in every if event.kind == "barrier_durable"]
    ours, theirs = (all_events(place, barriers[-1], **wanted) for place in (str(served.path), served.url))
    assert ours == theirs
    assert 0 < len(ours) < len(every)


def test_it_begins_now_and_goes_on_with_what_comes(served: Served, place: str) -> None:
    with klagg.open(place) as reader:
        feed = reader.feed(newest(served), kinds=["barrier_durable"])
        for _ in range(2):
            # Each iteration goes on where the one before ended.
            boundary_ms = served.owner.upto_ms + MINUTE_MS
            served.owner.close_minute()
            (event,) = islice(feed, 1)
            assert isinstance(event, klagg.BarrierEvent)
            assert event.boundary_ms == boundary_ms
            assert feed.seq == event.seq


async def test_asynchronously(served: Served, place: str) -> None:
    with klagg.open(place) as reader:
        feed = reader.feed(newest(served), kinds=["candle_closed"])
        found: list[klagg.Event] = []

        async def read() -> None:
            async for event in feed:
                found.append(event)
                if len(found) == 2:
                    return

        async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as tasks:
            tasks.create_task(read())
            for _ in range(2):
                served.owner.close_minute()
                await asyncio.sleep(0)
        assert [event.market for event in found] == ["usdm", "usdm"]
        waiting = asyncio.create_task(read())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


def test_a_restart_of_the_service_loses_nothing(served: Served) -> None:
    upto = newest(served)
    with klagg.open(served.url) as reader:
        feed = iter(reader.feed(upto))
        served.owner.close_minute()
        found = [next(feed)]
        served.stop()
        served.owner.close_minute()
        back = threading.Thread(target=served.start)
        back.start()
        while found[-1].seq < newest(served):
            found.append(next(feed))
        back.join()
        served.owner.close_minute()
        while found[-1].seq < newest(served):
            found.append(next(feed))
    assert [event.seq for event in found] == list(range(upto + 1, newest(served) + 1))


def test_what_is_gone_is_told(tmp_path: Path, served: Served) -> None:
    """A log that has forgotten, and a number from another database."""
    copy = tmp_path / "copy.db"
    served.owner.store._database.execute("VACUUM INTO ?", (str(copy),))
    with sqlite3.connect(copy) as connection:
        ((first, count),) = connection.execute("SELECT seq, count FROM event ORDER BY seq LIMIT 1 OFFSET 2")
        connection.execute("DELETE FROM event WHERE seq < ?", (first,))
    for since, cut in [(1, klagg.CutEvent("cut", 1, first - 1, "too old")), (10**9, None)]:
        with klagg.open(copy) as reader:
            told, *_ = islice(reader.feed(since), 2 if cut else 1)
        if cut is None:
            assert isinstance(told, klagg.CutEvent)
            assert (told.from_seq, told.reason) == (10**9, "ahead")
            assert first + count <= told.seq < 10**9
        else:
            assert told == cut


def test_a_number_from_another_database_is_told_by_a_service_too(served: Served) -> None:
    with klagg.open(served.url) as reader:
        (told,) = islice(reader.feed(10**9), 1)
    assert told == klagg.CutEvent("cut", 10**9, newest(served), "ahead")


# Barriers


def test_a_barrier_that_has_passed(served: Served, place: str) -> None:
    with klagg.open(place) as reader:
        passed = reader.wait_barrier(served.owner.upto_ms, timeout=WAIT_S)
        assert passed == klagg.Barrier("usdm", served.owner.upto_ms, verified=False)
        # Of one that the log tells of, the boundary itself; of an older one, how far it has come.
        assert reader.wait_barrier(END_MS - MINUTE_MS, timeout=WAIT_S).boundary_ms >= END_MS


def close_minutes(served: Served) -> None:
    """As many as it takes for the first to be passed as verified: what stays open is waited for five minutes."""
    for _ in range(8):
        served.owner.close_minute(verified=True)


@pytest.mark.parametrize("verified", [False, True])
def test_a_barrier_is_waited_for(served: Served, place: str, verified: bool) -> None:
    boundary_ms = served.owner.upto_ms + MINUTE_MS
    with klagg.open(place) as reader, klagg.open(place) as watching:
        feed = iter(watching.feed(newest(served), kinds=["barrier_verified" if verified else "barrier_durable"]))
        closing = threading.Timer(0.2, close_minutes, [served])
        closing.start()
        passed = reader.wait_barrier(boundary_ms, verified=verified, timeout=WAIT_S)
        closing.join()
        if verified:
            assert passed.unverified is not None
        assert (passed.boundary_ms, passed.verified) == (boundary_ms, verified)
        assert any(isinstance(event, klagg.BarrierEvent) and event.boundary_ms == boundary_ms for event in feed)


async def test_a_barrier_is_waited_for_asynchronously(served: Served, place: str) -> None:
    boundary_ms = served.owner.upto_ms + MINUTE_MS
    with klagg.open(place) as reader:
        waiting = asyncio.create_task(reader.wait_barrier_async(boundary_ms, timeout=WAIT_S))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(served.owner.close_minute)
        assert (await waiting).boundary_ms == boundary_ms


def test_a_barrier_that_does_not_come(served: Served, place: str) -> None:
    with (
        klagg.open(place) as reader,
        pytest.raises(klagg.BarrierTimeout, match=r"were not durable within 0\.05 s") as raised,
    ):
        reader.wait_barrier(served.owner.upto_ms + MINUTE_MS, timeout=0.05)
    assert isinstance(raised.value, TimeoutError)
    assert time.time() * 1_000 > LEARNED_MS
