"""The whole service against a made market that is served very badly: late, it ends equal all the same."""

import asyncio
import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest

from klagg.clock import ScaledClock
from klagg.config.settings import Settings
from klagg.model import Market
from klagg.service.run import Service
from klagg.sim import ExchangeSettings, OfflineExchange, load_faults
from klagg.store import open_store
from klagg.store.thread import StoreThread
from recordings.reading import MINUTE_MS

SPEED = 60.0
MINUTES = 5
LOOP_WATCHDOG_MS = 60_000
"""A second of the host is a minute here."""
REPAIR_LOOKS = 120


def differences(world: OfflineExchange, db: Path, end_ms: int) -> list[str]:
    """Every minute that is missing, not verified, or not the exchange's."""
    venue, wrong = world.venue(), []
    with closing(sqlite3.connect(db)) as shell:
        rows = shell.execute(
            "SELECT symbol, open_time_ms, open, high, low, close, volume, quote_volume, trades, taker_buy_volume, "
            "taker_buy_quote_volume, origin, verified FROM candles WHERE interval = '1m' AND closed"
        ).fetchall()
    ours = {(row[0], row[1]): row[2:] for row in rows}
    for symbol, contract in venue.contracts.items():
        if not contract.trades_at(venue.start_ms):
            continue
        for theirs in world.klines(symbol, "1m", venue.start_ms - 30 * MINUTE_MS, end_ms):
            mine = ours.get((symbol, int(theirs[0])))
            expected = [Decimal(theirs[place]) for place in (1, 2, 3, 4, 5, 7, 8, 9, 10)]
            if mine is None or [Decimal(value) for value in mine[:9]] != expected or not mine[10]:
                wrong.append(f"{symbol} {theirs[0]}: {mine} is not {expected}")
    return wrong


@pytest.mark.slow
@pytest.mark.parametrize("market", list(Market))
async def test_a_very_bad_exchange_is_kept_up_with(tmp_path: Path, market: Market) -> None:
    db = tmp_path / "klagg.db"
    faults = load_faults(Path(__file__).with_name("harsh.toml"))
    settings = ExchangeSettings(
        market=market, symbols=10, seed=6, speed=SPEED, history_ms=60 * MINUTE_MS, faults=faults
    )
    async with OfflineExchange(settings) as world:
        chosen = Settings(
            market=(market.value,),
            db=str(db),
            rest_url=(world.rest_url,),
            ws_url=(world.ws_url,),
            intervals=("1m", "5m", "1h"),
            history="40m",
            clock_speed=SPEED,
            loop_watchdog_ms=LOOP_WATCHDOG_MS,
        )
        store = StoreThread(open_store(chosen.db, mode="create"))
        service, stopped = Service(chosen, ScaledClock(SPEED), store), asyncio.Event()
        task = asyncio.create_task(service.run(stopped))
        try:
            live = asyncio.create_task(service.live.wait())
            await asyncio.wait({task, live}, return_when=asyncio.FIRST_COMPLETED)
            assert not task.done(), task.exception()
            end_ms = service.markets[0].boundary_ms + MINUTES * MINUTE_MS
            await service.markets[0].boundary.beyond(end_ms)
            for _ in range(REPAIR_LOOKS):
                if not differences(world, db, end_ms):
                    break
                await asyncio.sleep(0.25)
            assert differences(world, db, end_ms) == []
            played = world.played()
            stopped.set()
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await store.close()
    assert min(played["late"], played["withhold"], played["malformed"], played["cut"]) > 0, played
