"""Every recording of trades through the whole service: served by the offline exchange, candles equal to the exchange's.

All recordings of both markets are served at once, moved by whole five minutes so that they end together, to one service that
keeps both markets in one database. What is expected is counted from the files by plain means, and is read in official
files where there are such.
"""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
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
from recordings import reading
from recordings.reading import MINUTE_MS, Numbers

SPEED = 60.0
LOOP_WATCHDOG_MS = 60_000
"""A second of the host is a minute here."""
ALIGN_MS = 5 * MINUTE_MS
"""Recordings are moved by multiples of this, so that candles of one and five minutes stay what they were."""
REPAIR_LOOKS = 120
"""How often it is looked whether the repair is through, four times a second."""
STREAM_FAULTS = ("duplicate", "reorder", "late", "withhold", "malformed", "truncated", "zero_price", "cut", "silence")
STEPS = {"1m": MINUTE_MS, "5m": ALIGN_MS}

RECORDINGS = {
    Market.USDM: (
        "usdm_TRXUSDT_20250304_trade.csv.gz",
        "usdm_BTCUSDT_20240808_trade.jsonl.gz",
        "usdm_ETHUSDT_20240718-19_trade.jsonl.gz",
        # COIN-M is no market of klagg's; the trades are as good as any.
        "coinm_ETHUSD_PERP_20240808-09_trade.jsonl.gz",
        "coinm_BTCUSD_PERP_20240808-09_trade.jsonl.gz",
        "usdm_4sym_20210722_aggtrade_kline_ws.txt.gz",
        "usdm_4sym_20210417_aggtrade_kline_ws.txt.gz",
        "usdm_5sym_20210405_aggtrade_ws.txt.gz",
    ),
    Market.SPOT: (
        "spot_BTCUSDT_20240808-09_trade.jsonl.gz",
        "spot_XRPETH_20191011-12_aggtrades_rest.jsonl.gz",
        "spotus_OMGBUSD_20211012_aggtrade_kline_ws.txt.gz",
    ),
}
OFFICIAL = {
    "usdm_TRXUSDT_20250304_trade.csv.gz": ("usdm_TRXUSDT_20250304_klines_1m.csv", "1m", 16, 5_000),
    "usdm_BTCUSDT_20240808_trade.jsonl.gz": ("usdm_BTCUSDT_20240808_klines_1m.csv", "1m", 5, 0),
    "usdm_ETHUSDT_20240718-19_trade.jsonl.gz": ("usdm_ETHUSDT_20240718-19_klines_1m.csv", "1m", 7, 0),
    "spot_BTCUSDT_20240808-09_trade.jsonl.gz": ("spot_BTCUSDT_20240808-09_klines_5m.csv", "5m", 2, 0),
}
"""The exchange's own candles, their interval, how many of them the trades cover whole, and how late in the first one they begin."""


@dataclass(frozen=True)
class Served:
    """One recording as the offline exchange serves it: moved in time, and the candles it makes."""

    name: str
    market: Market
    trades: dict[str, list[reading.Trade]]
    moved_ms: int
    candles: dict[tuple[str, str], dict[int, Numbers]]

    @property
    def last_ms(self) -> int:
        return max(rows[-1].time_ms for rows in self.trades.values()) + self.moved_ms


def served(folder: Path) -> Iterator[Served]:
    for market, names in RECORDINGS.items():
        end_ms = None
        for name in names:
            trades = reading.trades(folder / name)
            last_ms = max(rows[-1].time_ms for rows in trades.values())
            end_ms = last_ms if end_ms is None else end_ms
            moved_ms = (end_ms - last_ms) // ALIGN_MS * ALIGN_MS
            candles = {
                (symbol, interval): reading.candles(
                    [trade._replace(time_ms=trade.time_ms + moved_ms) for trade in rows], step_ms
                )
                for symbol, rows in trades.items()
                for interval, step_ms in STEPS.items()
            }
            yield Served(name, market, trades, moved_ms, candles)


def exchange(folder: Path, faults: Path | None) -> OfflineExchange:
    return OfflineExchange(
        *(
            ExchangeSettings(
                market=market,
                speed=SPEED,
                seed=4,
                replay=tuple(folder / name for name in names),
                replay_align_ms=ALIGN_MS,
                replay_last_ms=17 * MINUTE_MS,
                faults=() if faults is None else load_faults(faults),
            )
            for market, names in RECORDINGS.items()
        )
    )


async def run(
    world: OfflineExchange, db: Path, until_ms: dict[Market, int], wrong: Callable[[], list[str]]
) -> list[str]:
    """Run the service until each market's time has come, and nothing is wrong any more, or not for lack of time."""
    addresses = {"rest_url": world.rest_url, "ws_url": world.ws_url}
    settings = Settings(
        market=("usdm", "spot"),
        db=str(db),
        intervals=("1m", "5m", "15m", "1h", "1d"),
        history="36h",
        clock_speed=SPEED,
        loop_watchdog_ms=LOOP_WATCHDOG_MS,
        **{name: tuple(f"{market}={url}" for market in Market) for name, url in addresses.items()},
    )
    store = StoreThread(open_store(settings.db, mode="create"))
    service = Service(settings, ScaledClock(SPEED), store)
    stopped = asyncio.Event()
    task = asyncio.create_task(service.run(stopped))
    try:
        live = asyncio.create_task(service.live.wait())
        await asyncio.wait({task, live}, return_when=asyncio.FIRST_COMPLETED)
        assert not task.done(), task.exception()
        for market in service.markets:
            # Its last candle has to end, and to settle.
            await market.boundary.beyond(until_ms[market.market] + MINUTE_MS)
        for _ in range(REPAIR_LOOKS):
            if not await asyncio.to_thread(wrong):
                break
            await asyncio.sleep(0.25)
        stopped.set()
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.close()
    return wrong()


def stored(db: Path, market: Market, symbol: str, interval: str) -> dict[int, tuple[Numbers, str, int]]:
    """The closed candles of a series, their origin and mark."""
    with closing(sqlite3.connect(db)) as shell:
        rows = shell.execute(
            "SELECT open_time_ms, open, high, low, close, volume, quote_volume, trades, taker_buy_volume, "
            "taker_buy_quote_volume, origin, verified FROM candles "
            "WHERE market = ? AND symbol = ? AND interval = ? AND closed",
            (market.value, symbol, interval),
        ).fetchall()
    return {
        row[0]: (
            Numbers(*map(Decimal, row[1:7]), row[7], Decimal(row[8]), Decimal(row[9])),
            row[10],
            row[11],
        )
        for row in rows
    }


def differences(db: Path, recordings: list[Served]) -> list[str]:
    """Every candle of one and five minutes that is missing, not verified, or not what the recording's trades make it."""
    wrong = []
    for recording in recordings:
        for (symbol, interval), expected in recording.candles.items():
            ours = stored(db, recording.market, symbol, interval)
            for open_ms, numbers in expected.items():
                found, origin, verified = ours.get(open_ms, (None, "missing", 0))
                if found != numbers or not verified or origin == "unmatched":
                    wrong.append(f"{symbol} {interval} {open_ms} {origin} {verified=}: {found} is not {numbers}")
    return wrong


@pytest.mark.slow
@pytest.mark.parametrize("faults", [None, "faults.toml"], ids=["without faults", "with faults"])
async def test_every_recording_ends_equal_to_the_exchanges_candles(
    shared_data: Path, tmp_path: Path, faults: str | None
) -> None:
    db = tmp_path / "klagg.db"
    recordings = list(served(shared_data))
    assert sum(len(candles) for recording in recordings for candles in recording.candles.values()) > 2_000
    until_ms = {
        market: max(r.last_ms for r in recordings if r.market is market) // ALIGN_MS * ALIGN_MS + ALIGN_MS
        for market in RECORDINGS
    }
    async with exchange(shared_data, None if faults is None else Path(__file__).with_name(faults)) as world:
        assert await run(world, db, until_ms, lambda: differences(db, recordings)) == []
        played = Counter[str]()
        for market in RECORDINGS:
            played.update(world.played(market))
    if faults is not None:
        assert {kind for kind in STREAM_FAULTS if not played[kind]} == set()
    for trades_file, (klines_file, interval, whole, late_ms) in OFFICIAL.items():
        (recording,) = [each for each in recordings if each.name == trades_file]
        ((symbol, trades),) = recording.trades.items()
        ours = stored(db, recording.market, symbol, interval)
        theirs = {
            open_ms + recording.moved_ms: numbers
            for open_ms, numbers in reading.official(shared_data / klines_file).items()
            if trades[0].time_ms - late_ms <= open_ms and open_ms + STEPS[interval] - 1_000 <= trades[-1].time_ms
        }
        assert len(theirs) == whole
        assert {open_ms: ours[open_ms][0] for open_ms in theirs} == theirs
