"""The beginning and the end of a service: a signal is heard at any stage, and the end does not wait for ever."""

import asyncio
import sqlite3
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from klagg.clock import ScaledClock, SystemClock
from klagg.config.settings import Settings
from klagg.errors import KlaggError, StoreError
from klagg.interval import Interval
from klagg.model import Candles, Instrument, Market, Status, no_candles
from klagg.service import market as market_module
from klagg.service.departures import Departures
from klagg.service.market import joined_late
from klagg.service.run import Service, serve_until
from klagg.sim import ExchangeSettings, OfflineExchange
from klagg.store import open_store
from klagg.store.thread import StoreThread

NOBODY = "127.0.0.1:9"


async def test_a_signal_is_heard_while_the_exchange_cannot_be_reached(tmp_path: Path) -> None:
    settings = Settings(db=str(tmp_path / "k.db"), rest_url=(f"http://{NOBODY}",), ws_url=(f"ws://{NOBODY}",))
    store = StoreThread(open_store(settings.db, mode="create"))
    stopped = asyncio.Event()
    running = asyncio.create_task(Service(settings, SystemClock(), store).run(stopped))
    await asyncio.sleep(0.3)
    assert not running.done(), "it tries again for some time"
    stopped.set()
    began = time.monotonic()
    await running
    assert time.monotonic() - began < 2
    await store.close()


async def test_a_database_that_stays_locked_does_not_hold_the_end_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(market_module, "LAST_FLUSH_S", 0.5)
    world = OfflineExchange(ExchangeSettings(market=Market.USDM, symbols=3, seed=3, history_ms=3_600_000))
    await world.start()
    db = tmp_path / "k.db"
    settings = Settings(db=str(db), rest_url=(world.rest_url,), ws_url=(world.ws_url,), history="0")
    store = StoreThread(open_store(settings.db, mode="create"))
    service = Service(settings, SystemClock(), store)
    stopped = asyncio.Event()
    running = asyncio.create_task(service.run(stopped))
    await asyncio.wait({running, asyncio.create_task(service.live.wait())}, return_when=asyncio.FIRST_COMPLETED)
    locked = sqlite3.connect(db, isolation_level=None)
    try:
        locked.execute("BEGIN IMMEDIATE")
        service.markets[0].workers[0].core.snapshot()
        stopped.set()
        with pytest.raises(StoreError, match=r"could not be written.*next start"):
            await asyncio.wait_for(running, 10)
    finally:
        locked.close()
        await store.close()
        await world.stop()


async def test_the_first_error_ends_all_in_its_own_words(tmp_path: Path) -> None:
    settings = Settings(
        db=str(tmp_path / "k.db"), rest_url=(f"http://{NOBODY}",), ws_url=(f"ws://{NOBODY}",), clock_speed=500.0
    )
    store = StoreThread(open_store(settings.db, mode="create"))
    with pytest.raises(
        KlaggError, match=r"cannot be read after 5 attempts: cannot get an answer from http://127.0.0.1:9"
    ):
        await Service(settings, ScaledClock(500.0), store).run(asyncio.Event())
    await store.close()


def nobody(db: Path) -> Settings:
    return Settings(db=str(db), rest_url=(f"http://{NOBODY}",), ws_url=(f"ws://{NOBODY}",), clock_speed=500.0)


async def test_a_database_made_in_vain_goes_again(tmp_path: Path) -> None:
    with pytest.raises(KlaggError, match="cannot be read"):
        await serve_until(nobody(tmp_path / "k.db"), asyncio.Event())
    assert list(tmp_path.iterdir()) == []
    stopped = asyncio.Event()
    stopped.set()
    await serve_until(nobody(tmp_path / "k.db"), stopped)
    assert list(tmp_path.iterdir()) == [], "nor is one left by Ctrl-C before anything was there"


async def test_a_database_that_was_there_stays(tmp_path: Path) -> None:
    open_store(str(tmp_path / "k.db"), mode="create").close()
    with pytest.raises(KlaggError, match="cannot be read"):
        await serve_until(nobody(tmp_path / "k.db"), asyncio.Event())
    assert (tmp_path / "k.db").exists()


def test_who_began_after_the_market_within_the_last_day_joined_late() -> None:
    day, now = 86_400_000, 10 * 86_400_000
    begun = {1: 3 * day, 2: 3 * day, 3: now - day, 4: now - day - 60_000, 5: now - 60_000}
    assert joined_late(begun, now) == {3: now - day, 5: now - 60_000}
    assert joined_late({1: now, 2: now}, now) == {}
    assert joined_late({}, now) == {}


@pytest.mark.parametrize(("gone_after", "asked"), [(90, 1), (2_000, 3), (70_000, 3)])
async def test_the_end_of_a_symbol_that_left_takes_three_requests_however_long_ago(gone_after: int, asked: int) -> None:
    """Minutes from the end of its candles to now; the exchange has its minutes and days up to its end."""
    since, now = 100 * 86_400_000, 100 * 86_400_000 + 90 * 60_000 + gone_after * 60_000
    end, calls = since + 90 * 60_000, []

    async def klines(_symbol: str, interval: Interval, *, start_ms: int, end_ms: int, **_: object) -> Candles:
        calls.append(interval.name)
        rows = no_candles(sum(at < end for at in interval.opens(start_ms, end_ms)))
        rows["open_ms"] = [at for at in interval.opens(start_ms, end_ms) if at < end]
        return rows

    departures = Departures(
        Market.SPOT,
        listings=None,
        rest=SimpleNamespace(klines=klines),
        store=None,
        repairer=None,
        clock=None,
        recent=None,
        now_ms=lambda: now,
        boundary_ms=now,
    )  # type: ignore[arg-type]
    gone = Instrument(Market.SPOT, "GONEUSDT", Status.RETIRED, 2, 2)
    assert await departures._end(gone, since) == end
    assert len(calls) == asked
