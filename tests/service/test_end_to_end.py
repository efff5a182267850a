"""The whole service against the offline exchange on accelerated time: every closed candle equals the exchange's own."""

import asyncio
import contextlib
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from klagg.clock import ScaledClock
from klagg.config.settings import Settings
from klagg.errors import ClaimLost, ClaimRefused
from klagg.interval import MINUTE_MS
from klagg.model import Market
from klagg.service.demo import Comparison, compare_with_exchange
from klagg.service.run import Service
from klagg.sim import ExchangeSettings, OfflineExchange
from klagg.store import open_store
from klagg.store.thread import StoreThread

SPEED = 30.0
HISTORY = "3h"
INTERVALS = ("1m", "3m", "5m", "1h", "1d", "1w", "1M")


@contextlib.asynccontextmanager
async def exchange(market: Market, **changes: object) -> AsyncIterator[OfflineExchange]:
    settings = ExchangeSettings(market=market, symbols=8, seed=3, speed=SPEED, history_ms=6 * 60 * MINUTE_MS, **changes)  # type: ignore[arg-type]
    world = OfflineExchange(settings)
    await world.start()
    try:
        yield world
    finally:
        await world.stop()


def settings(world: OfflineExchange, market: Market, db: Path, **changes: object) -> Settings:
    return Settings(
        market=(market.value,),
        db=str(db),
        rest_url=(world.rest_url,),
        ws_url=(world.ws_url,),
        intervals=INTERVALS,
        history=HISTORY,
        clock_speed=SPEED,
        **changes,  # type: ignore[arg-type]
    )


@contextlib.asynccontextmanager
async def service(chosen: Settings) -> AsyncIterator[Service]:
    store = StoreThread(open_store(chosen.db, mode="create"))
    running = Service(chosen, ScaledClock(chosen.clock_speed), store)
    stopped = asyncio.Event()
    task = asyncio.create_task(running.run(stopped))
    try:
        live = asyncio.create_task(running.live.wait())
        await asyncio.wait({task, live}, return_when=asyncio.FIRST_COMPLETED)
        live.cancel()
        if task.done():
            await task
        yield running
        stopped.set()
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.close()


async def minutes_later(running: Service, minutes: int) -> None:
    market = running.markets[0]
    await market.boundary.beyond(market.boundary.boundary_ms + (minutes - 1) * MINUTE_MS)


async def settled(running: Service, ended_before_ms: int) -> Comparison:
    """Wait (bounded) until all that ended before is verified, then compare with the exchange."""
    market = running.markets[0]
    store = running.store.store
    for _ in range(200):
        left = await running.store.call(
            store.unverified, market.market, before_ms=ended_before_ms, urgent=None, limit=5
        )
        if len(left) == 0 and market.history_progress is None and market.history_ready:
            break
        await asyncio.sleep(0.1)
    return await compare_with_exchange(market, running, ended_before_ms)


def assert_complete(db: Path, market: Market) -> None:
    """From its first minute to its last, no series has a hole; nothing is twice (the key forbids it)."""
    with sqlite3.connect(db) as shell:
        rows = shell.execute(
            "SELECT symbol, count(*), (max(open_time_ms) - min(open_time_ms)) / 60000 + 1 FROM candles "
            "WHERE market = ? AND interval = '1m' AND closed GROUP BY symbol",
            (market.value,),
        ).fetchall()
    assert rows
    assert [(symbol, count) for symbol, count, _ in rows] == [(symbol, span) for symbol, _, span in rows]


@pytest.mark.parametrize("market", list(Market))
async def test_every_closed_candle_equals_the_exchanges(tmp_path: Path, market: Market) -> None:
    db = tmp_path / "klagg.db"
    async with exchange(market) as world:
        async with service(settings(world, market, db)) as running:
            await minutes_later(running, 6)
            boundary_ms = running.markets[0].boundary_ms - MINUTE_MS
            await minutes_later(running, 2)
            compared = await settled(running, boundary_ms)
            assert compared.different == []
            assert compared.candles > 8 * 180
            assert all(worker.comparison.verified > 0 for worker in running.markets[0].workers), "pushes verify"
        assert_complete(db, market)


async def test_a_cut_and_lost_trades_are_repaired(tmp_path: Path) -> None:
    db = tmp_path / "klagg.db"
    async with exchange(Market.USDM) as world, service(settings(world, Market.USDM, db)) as running:
        await minutes_later(running, 2)
        world.cut_connections()
        await minutes_later(running, 5)
        boundary_ms = running.markets[0].boundary_ms - MINUTE_MS
        await minutes_later(running, 2)
        compared = await settled(running, boundary_ms)
        assert compared.different == []
        shown = {
            (sample.name, *sorted(set(sample.labels.values()) - {"usdm"})): sample.value
            for family in text_string_to_metric_families(running.metrics.render().decode())
            for sample in family.samples
        }
        market = running.markets[0]
        assert shown["klagg_boundary_timestamp_seconds",] == market.boundary_ms / 1e3
        assert shown["klagg_lane_reconnects_total", "usdm-0-1"] >= 1
        assert shown["klagg_verified_minutes_total", "push"] == sum(w.comparison.verified for w in market.workers)
        assert shown["klagg_verified_minutes_total", "rest"] == market.repairer.stats.equal
        assert shown["klagg_trades_total", "applied"] > 0
        assert shown["klagg_commit_seconds_count", "usdm-0"] == market.workers[0].commits > 0
        assert shown["klagg_candles", "exchange", "yes"] > 0
        assert shown["klagg_weight_shared",] == 1


async def test_a_listing_is_activated_and_a_delisting_retired(tmp_path: Path) -> None:
    db = tmp_path / "klagg.db"
    async with exchange(Market.USDM) as world, service(settings(world, Market.USDM, db)) as running:
        before = set(running.markets[0].workers[0].core.slots)
        world.list_symbol("FRESHUSDT")
        for _ in range(300):
            if "FRESHUSDT" in running.markets[0].workers[0].core.slots:
                break
            await asyncio.sleep(0.1)
        assert set(running.markets[0].workers[0].core.slots) - before == {"FRESHUSDT"}
        await minutes_later(running, 4)
        with sqlite3.connect(db) as shell:
            kept = shell.execute(
                "SELECT interval, min(open_time_ms) FROM candles WHERE symbol = 'FRESHUSDT' GROUP BY interval"
            ).fetchall()
        assert {interval for interval, _ in kept} == set(INTERVALS), "seeds in every interval"


RUNNER = f"""
import sys
from klagg.config.settings import Settings
from klagg.service.run import run_service
db, rest, ws = sys.argv[1:4]
sys.exit(run_service(Settings(db=db, rest_url=(rest,), ws_url=(ws,), clock_speed={SPEED}, history="1h", log_format="json")))
"""


def start_process(db: Path, world: OfflineExchange, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as sink:
        return subprocess.Popen([sys.executable, "-c", RUNNER, str(db), world.rest_url, world.ws_url], stderr=sink)


async def closed_minutes(db: Path, more_than: int = 0) -> int:
    """Wait (bounded) until the database holds more closed live minutes than that; returns the newest minute."""
    for _ in range(600):
        await asyncio.sleep(0.1)
        if not db.exists():
            continue
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(sqlite3.connect(f"file:{db}?mode=ro", uri=True)) as shell,
        ):
            row = shell.execute("SELECT max(open_time_ms) FROM candles WHERE closed").fetchone()
            if row and row[0] is not None and row[0] > more_than:
                return int(row[0])
    raise AssertionError("the service closed nothing in a minute")


async def test_kill_9_costs_only_what_the_next_start_repairs(tmp_path: Path) -> None:
    db, log = tmp_path / "klagg.db", tmp_path / "log"
    async with exchange(Market.USDM) as world:
        process = start_process(db, world, log)
        try:
            first = await closed_minutes(db)
            await closed_minutes(db, first + 3 * MINUTE_MS)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        await asyncio.sleep(6 * 60 / SPEED)
        async with service(settings(world, Market.USDM, db)) as running:
            await minutes_later(running, 3)
            boundary_ms = running.markets[0].boundary_ms - MINUTE_MS
            await minutes_later(running, 2)
            compared = await settled(running, boundary_ms)
            assert compared.different == []
        assert_complete(db, Market.USDM)


async def test_a_second_process_is_refused_and_one_that_lost_its_claim_stops(tmp_path: Path) -> None:
    db = tmp_path / "klagg.db"
    async with exchange(Market.USDM) as world:
        process = start_process(db, world, tmp_path / "log")
        try:
            await closed_minutes(db)
            with pytest.raises(ClaimRefused, match=str(process.pid)):
                async with service(settings(world, Market.USDM, db)):
                    pass
            async with service(settings(world, Market.USDM, db, take_over=True)):
                code = await asyncio.to_thread(process.wait, 60)
            assert code == ClaimLost.exit_code
            assert "taken over" in (tmp_path / "log").read_text() or "claim" in (tmp_path / "log").read_text()
        finally:
            process.kill()
            process.wait()


async def test_the_end_is_prompt_and_releases_the_claim(tmp_path: Path) -> None:
    db = tmp_path / "klagg.db"
    async with exchange(Market.USDM) as world:
        process = start_process(db, world, tmp_path / "log")
        try:
            await closed_minutes(db)
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 20) == 0
        finally:
            process.kill()
            process.wait()
        with sqlite3.connect(db) as shell:
            owners = shell.execute("SELECT DISTINCT lease_until_ms FROM shard").fetchall()
        assert owners == [(0,)]
