import asyncio
import threading

import numpy as np
import pytest

from klagg.errors import StoreError
from klagg.interval import MINUTE, MINUTE_MS
from klagg.model import Market
from klagg.store import Commit
from klagg.store.thread import MAX_WAITING_CALLS, StoreThread
from store.samples import SHARDS, T0, candle


async def until(holds):
    while not holds():  # noqa: ASYNC110  # it waits for another thread
        await asyncio.sleep(0)


@pytest.fixture
async def thread(owned):
    thread = StoreThread(owned.store)
    yield thread
    await thread.close()


async def test_calls_run_in_one_other_thread_and_bring_results_and_errors_back(thread, owned):
    first = await thread.call(threading.current_thread)
    assert first is not threading.current_thread()
    assert await thread.call(threading.current_thread) is first
    assert await thread.call(owned.store.closed_upto, Market.USDM) is None
    with pytest.raises(ZeroDivisionError):
        await thread.call(divmod, 1, 0)


async def test_commits_go_before_waiting_calls(thread, owned):
    gate, store, found = threading.Event(), owned.store, []
    running = asyncio.create_task(thread.call(gate.wait))
    await until(lambda: not thread.waiting and thread._places._value < MAX_WAITING_CALLS)
    reading = asyncio.create_task(thread.call(lambda: found.append(len(store.read(owned.btc, MINUTE, 0, 2**60)))))
    await until(lambda: thread.waiting == 1)
    batch = Commit(owned.claim, SHARDS, T0 + MINUTE_MS, np.array([owned.btc]), candle())
    commit = asyncio.create_task(thread.commit(batch))
    await until(lambda: thread.waiting == 2)
    gate.set()
    await asyncio.gather(running, reading, commit)
    assert found == [1], "the read that came first saw no commit that came second"


async def test_the_queue_is_bounded_and_a_withdrawn_call_never_runs(thread):
    gate, ran = threading.Event(), []
    running = asyncio.create_task(thread.call(gate.wait))
    many = [asyncio.create_task(thread.call(ran.append, n)) for n in range(MAX_WAITING_CALLS + 10)]
    await until(lambda: thread.waiting == MAX_WAITING_CALLS - 1)
    for _ in range(5):
        await asyncio.sleep(0)
    assert thread.waiting <= MAX_WAITING_CALLS
    many[0].cancel()
    await asyncio.sleep(0)
    gate.set()
    await running
    await asyncio.gather(*many, return_exceptions=True)
    assert ran == list(range(1, MAX_WAITING_CALLS + 10))


async def test_the_loop_goes_on_while_the_store_works(thread):
    gate = threading.Event()
    working = asyncio.create_task(thread.call(gate.wait))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not working.done()
    gate.set()
    assert await working


async def test_closing_runs_what_waits_and_refuses_the_rest(owned):
    thread = StoreThread(owned.store)
    batch = Commit(owned.claim, SHARDS, T0 + MINUTE_MS, np.array([owned.btc]), candle())
    commit = asyncio.create_task(thread.commit(batch))
    await asyncio.sleep(0)
    await thread.close()
    assert (await commit).written == 1
    with pytest.raises(StoreError, match="closed"):
        await thread.call(int)


async def test_a_checkpoint_of_its_own_connection_moves_the_log(thread, owned, db):
    batch = Commit(owned.claim, SHARDS, T0 + MINUTE_MS, np.array([owned.btc]), candle())
    await thread.commit(batch)
    before = db.stat().st_mtime_ns
    await thread.checkpoint()
    assert db.stat().st_mtime_ns > before
    assert (await thread.commit(batch)).refused == 0
