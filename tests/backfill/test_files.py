"""Files of klines and trades, in any order, damaged or whole, give the exchange's candles; two sources that differ are named."""

import csv
import gzip
import hashlib
import io
import json
import random
import sqlite3
import subprocess
import sys
import time
import zipfile
from decimal import Decimal

import numpy as np
import pytest

from backfill.history import DAY, MINUTE, MONDAY, STEPS, History
from backfill.test_kill import numbers_of
from klagg.archive import read_klines
from klagg.backfill import backfill_files, find_files
from klagg.errors import FileFormatError, UsageError
from klagg.interval import BY_NAME, parse_intervals
from klagg.model import Flag, Market, Origin
from klagg.store import open_store

NAMES = {0: "2024-09-02", 1: "2024-09-03", 2: "2024-09-04"}
HEADER = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker"
LAST = 1 << 60


@pytest.fixture
def store(tmp_path):
    store = open_store(str(tmp_path / "klagg.db"), mode="create")
    yield store
    store.close()


@pytest.fixture
def truth():
    return History(["AAAUSDT", "BBBUSDT"], MONDAY, MONDAY + 3 * DAY)


def write_klines(folder, truth, symbol, day, interval="1m", *, change=None):
    rows = [
        truth.row(symbol, interval, t) for t in range(MONDAY + day * DAY, MONDAY + (day + 1) * DAY, STEPS[interval])
    ]
    rows = [[str(cell) for cell in row] for row in rows if row]
    for at, cell, value in change or ():
        rows[at][cell] = value
    path = folder / f"{symbol}-{interval}-{NAMES[day]}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as pack:
        text = "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore\n"
        pack.writestr(path.stem + ".csv", text + "".join(",".join(row) + "\n" for row in rows))
    return path


def trades_of(truth, symbol, day):
    """Two trades a minute that make the truth's kline: at the open and the close, the high and the low beside them."""
    for t in range(MONDAY + day * DAY, MONDAY + (day + 1) * DAY, MINUTE):
        minute = truth.minute(symbol, t)
        if minute is None:
            continue
        number = ((t - MONDAY) // MINUTE - sum(lacking < t for lacking in truth.lacking)) * 4 + 100
        tiny = Decimal("0.001")
        o, high, low, c, qty = minute[:5]
        parts = [(o, qty - 3 * tiny, "true"), (high, tiny, "false"), (low, tiny, "false"), (c, tiny, "true")]
        for n, (price, part, maker) in enumerate(parts):
            yield number + n, price, part, t + n * 1_000 + 500, maker


def write_trades(folder, truth, symbol, day, *, name=None, broken_at=None):
    out = io.StringIO()
    out.write(HEADER + "\n")
    for at, (number, price, qty, t, maker) in enumerate(trades_of(truth, symbol, day)):
        out.write(f"{number},{'x' if at == broken_at else price},{qty},{number},{number},{t},{maker}\n")
    path = folder / (name or f"{symbol}-aggTrades-{NAMES[day]}.csv.gz")
    path.write_bytes(gzip.compress(out.getvalue().encode()))
    return path


def bring(store, files, names=("5m", "1h", "1d"), **options):
    return backfill_files(
        store, files, market=Market.USDM, intervals=parse_intervals(list(names)), at_ms=MONDAY + 9 * DAY, **options
    )


def content(store):
    """All candles with their origins, by symbol, whatever the order in which they came."""
    found = {}
    for one in store.instruments(Market.USDM):
        for name in STEPS:
            rows = store.read(one.id, BY_NAME[name], 0, LAST)
            found[one.instrument.symbol, name] = [
                (int(row["open_ms"]), int(row["origin"]), int(row["flags"]), *numbers_of(row)) for row in rows
            ]
    return found


def test_files_of_trades_cover_their_days_and_their_ids_chain(store, truth, tmp_path):
    quiet = range(MONDAY + DAY, MONDAY + DAY + 5 * MINUTE, MINUTE)
    truth.lacking = set(quiet)
    files = [write_trades(tmp_path, truth, symbol, day) for day in (1, 0) for symbol in truth.symbols]
    summary = bring(store, files)
    assert (summary.files, summary.trades) == (4, 2 * 4 * (2 * 1_440 - 5))
    for one in store.instruments(Market.USDM):
        minutes = store.read(one.id, BY_NAME["1m"], 0, LAST)
        assert minutes["open_ms"].tolist() == list(range(MONDAY, MONDAY + 2 * DAY, MINUTE))
        flat = np.isin(minutes["open_ms"], quiet)
        assert minutes["origin"][[0, -1]].tolist() == [Origin.PARTIAL] * 2, "before the first id and after the last"
        assert set(minutes["origin"][~flat][1:-1].tolist()) == {int(Origin.TRADES)}
        assert set(minutes["origin"][flat].tolist()) == {int(Origin.FLAT)}
        # The last close runs on over the quiet turn of the day: the files are one recording.
        assert set(minutes["open"][flat].tolist()) == {int(minutes["close"][1_439])}
        for name in ("1m", "5m", "1h", "1d"):
            for row in store.read(one.id, BY_NAME[name], 0, LAST)[::7]:
                kline = truth.kline(one.instrument.symbol, name, int(row["open_ms"]))
                if kline is not None:
                    ours = numbers_of(row)
                    assert ours[:5] == kline[:5]
                    # The close is traded for one cent more than the quote volume has it.
                    assert ours[5:7] == (kline[5] + kline[6] / 2 * Decimal("0.00001"), 2 * kline[6])


def test_any_order_of_kinds_days_and_symbols_gives_the_same(truth, tmp_path):
    kinds = (write_klines, write_trades)
    files = [write(tmp_path, truth, s, day) for write in kinds for day in range(2) for s in truth.symbols]
    found = []
    for seed in (1, 2):
        shuffled = random.Random(seed).sample(files, len(files))
        store = open_store(str(tmp_path / f"{seed}.db"), mode="create")
        bring(store, shuffled[:3])
        bring(store, shuffled[3:])
        found.append(content(store))
        assert all(flags & Flag.VERIFIED for rows in found[-1].values() for _, _, flags, *_ in rows)
        store.close()
    assert found[0] == found[1]


@pytest.mark.parametrize("single_first", [True, False])
def test_aggregates_and_single_trades_of_a_day_are_two_sources_not_one_recording(store, truth, tmp_path, single_first):
    aggregates = write_trades(tmp_path, truth, "AAAUSDT", 0)
    rows = ["id,price,qty,quote_qty,time,is_buyer_maker"]
    for number, price, qty, t, maker in trades_of(truth, "AAAUSDT", 0):
        rows.append(f"{number + 5_000_000},{price},{qty},{price * qty},{t},{maker}")
    single = tmp_path / "AAAUSDT-trades-2024-09-02.csv"
    single.write_text("\n".join(rows) + "\n")
    if single_first:
        bring(store, [single])
        summary = bring(store, [aggregates])
    else:
        summary = bring(store, [aggregates, single])
    assert summary.differences.candles == 0
    minutes = store.read(1, BY_NAME["1m"], 0, LAST)
    assert len(minutes) == 1_440
    assert set(minutes["origin"][1:-1].tolist()) == {int(Origin.TRADES)}
    assert set(minutes["trades"].tolist()) == {4}


def test_the_ends_of_a_recording_are_partial_and_what_klines_say_after_it_stands(store, truth, tmp_path):
    recording = write_trades(tmp_path, truth, "AAAUSDT", 0, name="recorded.csv.gz")
    bring(store, [recording], symbol="AAAUSDT")
    minutes = store.read(1, BY_NAME["1m"], 0, LAST)
    assert minutes["origin"][[0, 1, -2, -1]].tolist() == [Origin.PARTIAL, Origin.TRADES, Origin.TRADES, Origin.PARTIAL]
    summary = bring(store, [write_klines(tmp_path, truth, "AAAUSDT", 0)])
    verified = content(store)
    assert all(flags & Flag.VERIFIED for _, _, flags, *_ in verified["AAAUSDT", "1m"])
    # The trades count four a minute, the klines two: every minute and no other number differs.
    assert summary.differences.fields["trades"] == summary.differences.candles == 1_438
    again = bring(store, [recording], symbol="AAAUSDT")
    assert again.written == 0
    assert content(store) == verified


def test_what_differs_is_counted_and_named_with_both_sources(store, truth, tmp_path):
    first = write_klines(tmp_path, truth, "AAAUSDT", 0)
    other = tmp_path / "other"
    other.mkdir()
    second = write_klines(other, truth, "AAAUSDT", 0, change=[(7, 2, "999.9"), (9, 8, "77")])
    bring(store, [first])
    summary = bring(store, [second])
    found = summary.report()["differences"]
    assert (found["candles"], found["fields"]) == (2, {"high": 1, "trades": 1})
    assert found["named"][0] == {
        "symbol": "AAAUSDT",
        "interval": "1m",
        "open_time": MONDAY + 7 * MINUTE,
        "field": "high",
        "stored": f"{truth.minute('AAAUSDT', MONDAY + 7 * MINUTE)[1]:.2f}",
        "brought": "999.90",
        "stored_from": "database (exchange)",
        "brought_from": second.name,
    }
    both = open_store(str(tmp_path / "both.db"), mode="create")
    summary = bring(both, [first, second])
    assert {one.stored_from for one in summary.differences.named} == {f"{first.name} (exchange)"}
    both.close()


def test_a_second_run_writes_nothing_and_a_new_interval_is_folded(store, truth, tmp_path):
    files = [write_klines(tmp_path, truth, "AAAUSDT", day) for day in range(2)]
    bring(store, files, names=("1h",))
    before = store.revisions(1, BY_NAME["1m"], 0, LAST).tolist()
    again = bring(store, files, names=("1h",))
    assert (again.written, again.folded, again.equal) == (0, 0, 2_880)
    assert store.revisions(1, BY_NAME["1m"], 0, LAST).tolist() == before
    kept_since = bring(store, files, names=("5m", "1d"))
    assert (kept_since.written, kept_since.folded) == (0, 2 * 288 + 2)


def test_a_minute_that_a_file_lacks_is_filled_not_final(store, truth, tmp_path):
    truth.lacking = {MONDAY + 60 * MINUTE}
    lacking = write_klines(tmp_path, truth, "AAAUSDT", 0)
    assert bring(store, [lacking]).filled == 1
    assert store.read(1, BY_NAME["1m"], MONDAY + 60 * MINUTE, MONDAY + 61 * MINUTE)["origin"][0] == Origin.FILLED
    truth.lacking = set()
    whole = tmp_path / "whole"
    whole.mkdir()
    bring(store, [write_klines(whole, truth, "AAAUSDT", 0)])
    rows = content(store)
    assert all(origin == Origin.EXCHANGE for _, origin, *_ in rows["AAAUSDT", "1m"])
    assert numbers_of(store.read(1, BY_NAME["1d"], 0, LAST)[0]) == truth.kline("AAAUSDT", "1d", MONDAY)


def test_klines_of_another_interval_stand_beside_the_minutes(store, truth, tmp_path):
    files = [
        write_klines(tmp_path, truth, "AAAUSDT", 0, "1h", change=[(5, 3, "1")]),
        write_klines(tmp_path, truth, "AAAUSDT", 0),
    ]
    bring(store, files[1:], names=("1h",))
    summary = bring(store, files[:1], names=())
    assert [(one.interval, one.field, one.brought) for one in summary.differences.named] == [("1h", "low", "1.00")]


def write_checksum(path, digest=None):
    digest = digest or hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(path.name + ".CHECKSUM").write_text(f"{digest}  {path.name}\n")


def test_checksums_beside_files_are_held_to(store, truth, tmp_path):
    good, bad = (write_klines(tmp_path, truth, "AAAUSDT", day) for day in range(2))
    write_checksum(good)
    assert bring(store, [good]).checksums == 1
    write_checksum(bad, "0" * 64)
    with pytest.raises(FileFormatError, match=r"2024-09-03.zip: the file is damaged or was replaced"):
        bring(store, [bad])
    assert len(store.read(1, BY_NAME["1m"], 0, LAST)) == 1_440
    bad.with_name(bad.name + ".CHECKSUM").write_text("not found")
    with pytest.raises(FileFormatError, match="CHECKSUM: it begins with no SHA-256"):
        bring(store, [bad])


@pytest.mark.parametrize("broken_at", [0, 3_000])
def test_a_broken_file_of_trades_leaves_what_came_before_it_whole(store, truth, tmp_path, broken_at):
    files = [
        write_trades(tmp_path, truth, "AAAUSDT", 0),
        write_trades(tmp_path, truth, "AAAUSDT", 1, broken_at=broken_at),
    ]
    with pytest.raises(FileFormatError, match=rf"2024-09-03.csv.gz: line {broken_at + 2}: price 'x'"):
        bring(store, files)
    left = content(store)
    alone = open_store(str(tmp_path / "alone.db"), mode="create")
    bring(alone, files[:1])
    assert left == content(alone)
    assert len(left["AAAUSDT", "1m"]) == 1_440
    alone.close()
    bring(store, [files[0], write_trades(tmp_path, truth, "AAAUSDT", 1)])
    assert {origin for _, origin, *_ in content(store)["AAAUSDT", "1m"][1:-1]} == {int(Origin.TRADES)}


def test_folders_globs_and_filters_by_symbol(store, truth, tmp_path):
    folder = tmp_path / "archive" / "deep"
    folder.mkdir(parents=True)
    for symbol in truth.symbols:
        write_checksum(write_klines(folder, truth, symbol, 0))
    assert [path.name for path in find_files([str(tmp_path / "archive")])] == [
        "AAAUSDT-1m-2024-09-02.zip",
        "BBBUSDT-1m-2024-09-02.zip",
    ]
    files = find_files([str(folder / "*-1m-*.zip"), str(folder / "AAAUSDT-1m-2024-09-02.zip")])
    assert len(files) == 2
    summary = bring(store, files, wants=lambda symbol: symbol == "BBBUSDT")
    assert (summary.files, summary.other_symbols) == (1, 1)
    assert [one.instrument.symbol for one in store.instruments()] == ["BBBUSDT"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="there is no archive file in it"):
        find_files([str(tmp_path / "empty")])


def test_two_markets_in_one_database(store, truth, tmp_path):
    files = [write_klines(tmp_path, truth, "AAAUSDT", 0)]
    for market in Market:
        backfill_files(store, files, market=market, intervals=parse_intervals(["1h"]), at_ms=0)
    assert [len(store.read(one.id, BY_NAME["1h"], 0, LAST)) for one in store.instruments()] == [24, 24]


def test_killed_while_it_reads_files_it_ends_the_same(truth, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    for day in range(3):
        for symbol in truth.symbols:
            write_trades(folder, truth, symbol, day)
            write_klines(folder, truth, symbol, day)
    db = tmp_path / "klagg.db"
    command = [sys.executable, "-m", "klagg.cli", "backfill", "--db", str(db), "--from", str(folder)]
    command += ["--intervals", "5m,1h,1d", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and candles_in(db) < 4_000:
        time.sleep(0.05)
    process.kill()
    process.wait()
    done = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert done["files"] == 12
    killed, plain = open_store(str(db), mode="read"), open_store(str(tmp_path / "plain.db"), mode="create")
    bring(plain, find_files([str(folder)]))
    assert content(killed) == content(plain)
    killed.close()
    plain.close()


def candles_in(db):
    try:
        with sqlite3.connect(f"file:{db}?mode=ro", uri=True) as database:
            return database.execute("SELECT count(*) FROM candle").fetchone()[0]
    except sqlite3.Error:
        return 0


def test_an_archive_file_and_what_is_folded_from_it(shared_data, tmp_path):
    store = open_store(str(tmp_path / "klagg.db"), mode="create")
    file = shared_data / "usdm_NEARUSDT-1m-2023-02.csv.gz"
    summary = backfill_files(store, [file], market=Market.USDM, intervals=parse_intervals(["1d"]), at_ms=0)
    assert (summary.rows, summary.written) == (40_320, 40_320)
    minutes = np.concatenate(list(read_klines(file)))
    days = store.read(1, BY_NAME["1d"], 0, 1 << 60)
    assert len(days) == 28
    assert (days["flags"] & Flag.VERIFIED != 0).all()
    assert days["trades"].sum() == minutes["trades"].sum()
    assert store.instruments(Market.USDM)[0].instrument.symbol == "NEARUSDT"
    again = backfill_files(store, [file], market=Market.USDM, intervals=parse_intervals(["1d"]), at_ms=0)
    assert again.rows == 40_320
    assert set(store.revisions(1, BY_NAME["1d"], 0, 1 << 60).tolist()) == {0}
    store.close()


def test_a_broken_archive_file_leaves_nothing(shared_data, tmp_path):
    store = open_store(str(tmp_path / "klagg.db"), mode="create")
    with gzip.open(shared_data / "usdm_NEARUSDT-1m-2023-02.csv.gz", "rt") as file:
        rows = list(csv.reader(file))[:20]
    rows[15][4] = "x"
    path = tmp_path / "NEARUSDT-1m-2023-02.csv"
    path.write_text("".join(",".join(row) + "\n" for row in rows))
    with pytest.raises(FileFormatError, match="line 16"):
        backfill_files(store, [path], market=Market.USDM, intervals=parse_intervals([]), at_ms=0)
    assert store.instruments(Market.USDM) == []
    store.close()
