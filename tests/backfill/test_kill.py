"""`klagg backfill` as a process: killed at any moment, twice at once, stopped by Ctrl-C, it ends with the exchange's candles."""

import asyncio
import json
import random
import signal
import sys
from decimal import Decimal

import pytest

from backfill.history import DAY, MINUTE, MONDAY, STEPS, History
from klagg import fixed
from klagg.interval import BY_NAME
from klagg.model import Flag, Market
from klagg.store import open_store

SYMBOLS = ["AAAUSDT", "BBBUSDT", "CCCUSDT"]
DAYS = 6
IN_FLIGHT = 8
"""Days under way at a time: what a kill can cost."""


@pytest.fixture
async def exchange():
    history = History(SYMBOLS, MONDAY - 40 * DAY, MONDAY + 5 * 60 * MINUTE + 17_000)
    history.url = await history.start()
    yield history
    await history.stop()


async def run(exchange, db, *arguments):
    words = ["backfill", "--db", str(db), "--rest-url", exchange.url, "--intervals", "5m,1h,1d", "--json", *arguments]
    if "--end" not in arguments:
        words += ["--end", str(exchange.now_ms - exchange.now_ms % MINUTE)]
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "klagg.cli", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )


async def finished(process):
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return json.loads(out)


async def asks(exchange, process, count):
    """Wait until the exchange has been asked for so many more klines, or the process has ended of itself."""
    wanted = exchange.asked.total() + count
    ended = asyncio.ensure_future(process.wait())
    while exchange.asked.total() < wanted and not ended.done():
        exchange.asked_event.clear()
        asked = asyncio.ensure_future(exchange.asked_event.wait())
        await asyncio.wait({asked, ended}, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
    if ended.done():
        assert await finished(process)


def numbers_of(candle):
    prices, qtys = int(candle["price_scale"]), int(candle["qty_scale"])

    def total(name, scale):
        return Decimal(fixed.to_text(fixed.join(int(candle[f"{name}_hi"]), int(candle[f"{name}_lo"])), scale))

    return (
        *(Decimal(fixed.to_text(int(candle[name]), prices)) for name in ("open", "high", "low", "close")),
        total("volume", qtys),
        total("quote", prices + qtys),
        int(candle["trades"]),
        total("taker_volume", qtys),
        total("taker_quote", prices + qtys),
    )


def assert_whole(exchange, db, start_ms):
    """Every candle of every symbol is there, verified, never changed, and the exchange's."""
    store = open_store(str(db), mode="read")
    end_ms = exchange.now_ms - exchange.now_ms % MINUTE
    try:
        known = store.instruments(Market.USDM)
        assert [one.instrument.symbol for one in known] == exchange.symbols
        for one in known:
            for name, step in STEPS.items():
                rows = store.read(one.id, BY_NAME[name], 0, 1 << 60)
                opens = list(range(start_ms - start_ms % step, end_ms - step + 1, step))
                assert rows["open_ms"].tolist() == opens, (one.instrument.symbol, name)
                assert (rows["flags"] & Flag.VERIFIED != 0).all()
                assert set(store.revisions(one.id, BY_NAME[name], 0, 1 << 60).tolist()) == {0}
                for at in (0, len(rows) // 3, len(rows) - 1):
                    assert numbers_of(rows[at]) == exchange.kline(one.instrument.symbol, name, opens[at])
    finally:
        store.close()


def days_asked(exchange):
    return {key: count for key, count in exchange.asked.items() if key[1] == "1m" and key[2] % DAY == 0}


async def test_killed_again_and_again_it_goes_on_where_it_was(exchange, tmp_path):
    db, chance = tmp_path / "klagg.db", random.Random(4)
    kills = 2
    for _ in range(kills):
        process = await run(exchange, db, "--start", str(MONDAY - DAYS * DAY))
        await asks(exchange, process, chance.randint(3, 20))
        process.send_signal(signal.SIGKILL)
        await process.communicate()
    summary = await finished(await run(exchange, db, "--start", str(MONDAY - DAYS * DAY)))
    assert_whole(exchange, db, MONDAY - DAYS * DAY)
    days = (DAYS + 1) * len(SYMBOLS)
    assert summary["skipped_days"] + summary["requested_days"] == days
    assert len(days_asked(exchange)) == days
    assert sum(days_asked(exchange).values()) <= days + kills * IN_FLIGHT
    asked = exchange.asked.total()
    again = await finished(await run(exchange, db, "--start", str(MONDAY - DAYS * DAY)))
    assert (again["fetched"], again["written"], exchange.asked.total()) == (0, 0, asked)


async def test_two_at_once_end_with_the_same_database(exchange, tmp_path):
    db = tmp_path / "klagg.db"
    both = [await run(exchange, db, "--start", str(MONDAY - 3 * DAY)) for _ in range(2)]
    summaries = [await finished(process) for process in both]
    assert_whole(exchange, db, MONDAY - 3 * DAY)
    assert [one["differences"]["candles"] for one in summaries] == [0, 0]


async def test_an_interrupt_ends_it_in_order_and_what_was_fetched_stays(exchange, tmp_path):
    db = tmp_path / "klagg.db"
    process = await run(exchange, db, "--start", str(MONDAY - DAYS * DAY))
    await asks(exchange, process, 30)
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert process.returncode == 130
    assert out == b""
    assert err.splitlines() == [b"klagg: interrupted: what was brought stays, and the same command goes on from there"]
    summary = await finished(await run(exchange, db, "--start", str(MONDAY - DAYS * DAY)))
    assert summary["skipped_days"] > 0
    assert_whole(exchange, db, MONDAY - DAYS * DAY)


async def test_refusals_are_waited_out(exchange, tmp_path):
    exchange.refusals = 1
    await finished(await run(exchange, tmp_path / "klagg.db", "--start", str(MONDAY - DAY)))
    assert_whole(exchange, tmp_path / "klagg.db", MONDAY - DAY)


async def test_a_symbol_listed_no_more_is_fetched_where_it_is_named(exchange, tmp_path):
    exchange.symbols, exchange.unlisted = ["AAAUSDT"], {"OLDUSDT"}
    arguments = ("--start", str(MONDAY - DAY), "--symbols", "AAAUSDT,OLDUSDT")
    summary = await finished(await run(exchange, tmp_path / "klagg.db", *arguments))
    assert summary["requested_days"] == 4
    exchange.symbols = ["AAAUSDT", "OLDUSDT"]
    assert_whole(exchange, tmp_path / "klagg.db", MONDAY - DAY)


async def test_a_start_in_the_future_is_one_line(exchange, tmp_path):
    process = await run(exchange, tmp_path / "klagg.db", "--start", str(MONDAY + DAY), "--end", str(MONDAY + 2 * DAY))
    out, err = await process.communicate()
    assert (process.returncode, out, err.count(b"\n")) == (2, b"", 1)
    assert b"is in the future" in err
    assert not (tmp_path / "klagg.db").exists()
