"""Symbols are partitioned into shards, and how many there are changes nothing in the database."""

import random
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from klagg.interval import DAY_MS, DEFAULT_INTERVALS, MINUTE_MS
from klagg.model import TRADE, VIRTUAL_SHARDS, Instrument, Market, Status, Trades, no_candles, virtual_shard
from klagg.service.shard import Seed, ShardCore
from klagg.store import open_store

START_MS = 20_000 * DAY_MS + DAY_MS - 10 * MINUTE_MS
SYMBOLS = [f"S{n}USDT" for n in range(23)]


def trades_of_minute(minute: int) -> list[tuple[str, int, int, int, int, int]]:
    """(symbol, id, price, quantity, time, maker), in order of arrival; some come after their minute."""
    chance = random.Random(minute)
    made = []
    for n, symbol in enumerate(SYMBOLS):
        for k in range(n % 4):
            agg_id = minute * 10 + k
            time_ms = START_MS + minute * MINUTE_MS + 1_000 * k + chance.randrange(900)
            made.append((symbol, agg_id, 1_000 + chance.randrange(50), 1 + chance.randrange(9), time_ms, k & 1))
    chance.shuffle(made)
    return made


def as_trades(rows: list[tuple[str, int, int, int, int, int]], slots: dict[str, int]) -> Trades:
    mine = [row for row in rows if row[0] in slots]
    out = np.zeros(len(mine), TRADE)
    for at, (symbol, agg_id, price, qty, time_ms, maker) in zip(out, mine, strict=True):
        at["slot"], at["agg_id"], at["first_id"], at["last_id"] = slots[symbol], agg_id, agg_id, agg_id
        at["price"], at["qty"], at["time_ms"], at["buyer_is_maker"] = price, qty, time_ms, maker
        at["price_scale"], at["qty_scale"] = 2, 0
    return out


def run(db: Path, workers: int) -> list[tuple[object, ...]]:
    store = open_store(str(db), mode="create")
    instruments = [Instrument(Market.USDM, symbol, Status.TRADING, 2, 0) for symbol in SYMBOLS]
    ids = store.put_instruments(instruments, START_MS)
    store.set_intervals(Market.USDM, DEFAULT_INTERVALS)
    claim = store.claim(Market.USDM, owner="test", now_ms=START_MS)
    cores = [
        ShardCore(Market.USDM, range(n, VIRTUAL_SHARDS, workers), claim, DEFAULT_INTERVALS) for n in range(workers)
    ]
    for instrument in instruments:
        core = cores[virtual_shard(Market.USDM, instrument.symbol) % workers]
        core.seed(instrument, ids[instrument.symbol], Seed(START_MS, 1_000, 2, no_candles(), None, known=False))
    late: list[tuple[str, int, int, int, int, int]] = []
    for minute in range(20):
        rows = late + trades_of_minute(minute)
        late = rows[-3:]
        boundary_ms = START_MS + (minute + 1) * MINUTE_MS
        for core in cores:
            core.apply(as_trades(rows[:-3], core.slots), boundary_ms)
            assert core.tick(boundary_ms)
            batch = core.begin_commit(boundary_ms)
            store.commit(batch)
            core.commit_done(0)
    assert store.closed_upto(Market.USDM) == START_MS + 20 * MINUTE_MS
    store.close()
    with sqlite3.connect(db) as shell:
        return shell.execute("SELECT * FROM candles ORDER BY symbol, interval, open_time_ms").fetchall()


@pytest.mark.parametrize("workers", [2, 7])
def test_the_number_of_shards_changes_nothing_in_the_database(tmp_path: Path, workers: int) -> None:
    one = run(tmp_path / "one.db", 1)
    assert len(one) > 23 * 20
    assert run(tmp_path / "many.db", workers) == one


def test_every_symbol_has_one_shard_for_ever() -> None:
    assert virtual_shard(Market.USDM, "BTCUSDT") == virtual_shard(Market.USDM, "BTCUSDT")
    assert 0 <= virtual_shard(Market.SPOT, "BTCUSDT") < VIRTUAL_SHARDS
    assert virtual_shard(Market.SPOT, "BTCUSDT") != virtual_shard(Market.USDM, "BTCUSDT"), "the market counts too"
