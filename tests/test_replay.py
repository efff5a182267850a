"""Recordings through the engine and the store give the exchange's own candles; broken files leave nothing."""

import csv
import gzip
import sqlite3
from decimal import Decimal

import numpy as np
import pytest

from klagg import fixed
from klagg.errors import FileFormatError
from klagg.interval import BY_NAME, DAY_MS, MINUTE, MINUTE_MS, parse_intervals
from klagg.model import Market, Origin
from klagg.replay import replay
from klagg.store import open_store

DAY = 1_725_148_800_000  # 2024-09-01
ARCHIVE_HEADER = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker\n"


@pytest.fixture
def store(tmp_path):
    store = open_store(str(tmp_path / "klagg.db"), mode="create")
    yield store
    store.close()


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


def official(path):
    with path.open() as file:
        rows = [row for row in csv.reader(file) if row[0].isdigit()]
    return {int(r[0]): (*map(Decimal, r[1:6]), Decimal(r[7]), int(r[8]), Decimal(r[9]), Decimal(r[10])) for r in rows}


VERIFIED = [
    ("usdm_BTCUSDT_20240808_trade.jsonl.gz", "usdm_BTCUSDT_20240808_klines_1m.csv", Market.USDM, "1m", 5),
    ("usdm_ETHUSDT_20240718-19_trade.jsonl.gz", "usdm_ETHUSDT_20240718-19_klines_1m.csv", Market.USDM, "1m", 7),
    ("usdm_TRXUSDT_20250304_trade.csv.gz", "usdm_TRXUSDT_20250304_klines_1m.csv", Market.USDM, "1m", 16),
    ("spot_BTCUSDT_20240808-09_trade.jsonl.gz", "spot_BTCUSDT_20240808-09_klines_5m.csv", Market.SPOT, "5m", 2),
]


@pytest.mark.parametrize(("trades_file", "klines_file", "market", "name", "windows"), VERIFIED)
def test_verified_windows_are_the_exchanges_candles(
    shared_data, store, trades_file, klines_file, market, name, windows
):
    summary = replay([shared_data / trades_file], market=market, intervals=parse_intervals([name]), store=store)
    interval = BY_NAME[name]
    candles = store.read(store.instruments(market)[0].id, interval, 0, 1 << 60)
    klines = official(shared_data / klines_file)
    equal = [c for c in candles if klines.get(int(c["open_ms"])) == numbers_of(c)]
    assert len(equal) == windows
    assert summary.trades > 0
    minutes = store.read(store.instruments(market)[0].id, MINUTE, 0, 1 << 60)
    assert minutes["origin"][0] == minutes["origin"][-1] == Origin.PARTIAL
    assert set(minutes["origin"][1:-1].tolist()) == {int(Origin.TRADES)}


def test_a_thin_pair_has_every_minute_and_its_aggregates_count_their_trades(shared_data, store):
    file = shared_data / "spot_XRPETH_20191011-12_aggtrades_rest.jsonl.gz"
    replay([file], market=Market.SPOT, intervals=parse_intervals(["1h"]), store=store, symbol="XRPETH")
    minutes = store.read(1, MINUTE, 0, 1 << 60)
    assert len(minutes) == 1_800
    assert int(minutes["trades"].sum()) == 7_935
    assert (minutes["trades"] == 0).sum() == 569
    assert set(minutes["origin"][1:-1].tolist()) == {int(Origin.FLAT), int(Origin.TRADES)}
    hours = store.read(1, BY_NAME["1h"], 0, 1 << 60)
    assert hours["origin"].tolist() == [Origin.PARTIAL, *[Origin.TRADES] * 28, Origin.PARTIAL]


def write_archive(folder, day_ms, name, rows):
    path = folder / f"NEARUSDT-aggTrades-{name}.csv"
    lines = [f"{a},{p},{q},{a},{a},{day_ms + t},{m}\n" for a, p, q, t, m in rows]
    path.write_text(ARCHIVE_HEADER + "".join(lines))
    return path


def test_the_name_of_a_file_is_no_evidence_of_what_it_covers(tmp_path, store):
    rows = [
        (100, "5.1", "2", 90_000, "true"),
        (101, "5.20", "1", 150_000, "false"),
        (102, "5.3", "1", 7_200_000, "true"),
    ]
    path = write_archive(tmp_path, DAY, "2024-09-01", rows)
    replay([path], market=Market.USDM, intervals=parse_intervals(["1d"]), store=store)
    minutes = store.read(1, MINUTE, 0, 1 << 60)
    assert minutes["open_ms"].tolist() == list(range(DAY + MINUTE_MS, DAY + 7_260_000, MINUTE_MS))
    assert minutes["origin"][[0, 1, -1]].tolist() == [Origin.PARTIAL, Origin.TRADES, Origin.PARTIAL]
    assert set(minutes["origin"][2:-1].tolist()) == {int(Origin.FLAT)}
    assert len(store.read(1, BY_NAME["1d"], 0, 1 << 60)) == 0


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("together", [True, False])
def test_ids_chain_across_neighbouring_files(tmp_path, store, order, together):
    first = write_archive(
        tmp_path, DAY, "2024-09-01", [(99, "5", "1", 0, "true"), (100, "5.1", "2", DAY_MS - 130_000, "true")]
    )
    rows = [(101, "5.2", "2", 125_000, "true"), (102, "5.2", "2", 300_000, "true")]
    second = write_archive(tmp_path, DAY + DAY_MS, "2024-09-02", rows)
    files = [(first, second)[at] for at in order]
    for call in [files] if together else [[file] for file in files]:
        replay(call, market=Market.USDM, intervals=parse_intervals(["1d"]), store=store)
    minutes = store.read(1, MINUTE, 0, 1 << 60)
    assert (np.diff(minutes["open_ms"]) == MINUTE_MS).all()
    inside = minutes[(minutes["open_ms"] > DAY) & (minutes["open_ms"] < DAY + DAY_MS + 300_000)]
    traded = inside["trades"] > 0
    if together or order == (0, 1):
        # The second day's first minute is proven by what is stored; the first day's last one by a file that comes with it, or later.
        assert inside["origin"][inside["open_ms"] == DAY + DAY_MS + 120_000].tolist() == [Origin.TRADES]
    if together:
        assert set(inside["origin"][traded].tolist()) == {int(Origin.TRADES)}
        assert set(inside["origin"][~traded].tolist()) == {int(Origin.FLAT)}
    assert minutes["origin"][0] == minutes["origin"][-1] == Origin.PARTIAL


def test_ids_that_do_not_chain_between_neighbouring_days_prove_nothing_around_their_turn(tmp_path, store):
    rows = [(100, "5.1", "2", 3_600_000, "true"), (101, "5.1", "2", 7_200_000, "true")]
    cut_off = write_archive(tmp_path, DAY, "2024-09-01", rows)
    rows = [(150, "5.2", "2", 3_600_000, "true"), (151, "5.2", "2", 7_200_000, "true")]
    whole = write_archive(tmp_path, DAY + DAY_MS, "2024-09-02", rows)
    replay([cut_off, whole], market=Market.USDM, intervals=parse_intervals(["1d"]), store=store)
    minutes = store.read(1, MINUTE, 0, 1 << 60)
    assert (np.diff(minutes["open_ms"]) == MINUTE_MS).all()
    hole = (minutes["open_ms"] >= DAY + 7_200_000) & (minutes["open_ms"] <= DAY + DAY_MS + 3_600_000)
    assert set(minutes["origin"][hole].tolist()) == {int(Origin.FILLED), int(Origin.PARTIAL)}
    assert set(minutes["origin"][~hole][1:-1].tolist()) == {int(Origin.FLAT)}


def test_a_new_numbering_is_another_life_and_nothing_is_made_between(tmp_path, store):
    first = write_archive(tmp_path, DAY, "2024-09-01", [(900 + n, "5.1", "2", n * 30_000, "true") for n in range(9)])
    later_ms = DAY + 11 * DAY_MS
    later = write_archive(tmp_path, later_ms, "2024-09-12", [(n + 1, "7.5", "2", n * 30_000, "true") for n in range(9)])
    for calls in ([[first, later]], [[first], [later]]):
        for files in calls:
            replay(files, market=Market.USDM, intervals=parse_intervals(["1h"]), store=store)
        minutes = store.read(1, MINUTE, 0, 1 << 60)
        assert minutes["open_ms"].tolist() == [at + n * MINUTE_MS for at in (DAY, later_ms) for n in range(5)]
        ends = np.isin(minutes["open_ms"], [DAY, DAY + 4 * MINUTE_MS, later_ms, later_ms + 4 * MINUTE_MS])
        assert set(minutes["origin"][ends].tolist()) == {int(Origin.PARTIAL)}
        assert set(minutes["origin"][~ends].tolist()) == {int(Origin.TRADES)}
        assert [life.retired_ms for life in store.lives(1)] == [DAY + 5 * MINUTE_MS, None]


def test_a_trade_of_unknown_kind_or_amount_leaves_its_minute_unproven(tmp_path, store):
    rows = [(100 + n, "5.1", "0" if n == 7 else "2", n * 20_000, "true") for n in range(20)]
    replay(
        [write_archive(tmp_path, DAY, "part", rows)],
        market=Market.USDM,
        intervals=(MINUTE,),
        store=store,
        symbol="NEARUSDT",
    )
    minutes = store.read(1, MINUTE, 0, 1 << 60)
    assert minutes["origin"].tolist() == [
        Origin.PARTIAL,
        *[Origin.TRADES],
        Origin.PARTIAL,
        *[Origin.TRADES] * 3,
        Origin.PARTIAL,
    ]


def dump(store):
    with sqlite3.connect(store.path) as database:
        found = list(database.iterdump())
    database.close()
    return found


def test_a_broken_file_leaves_the_database_as_it_was_however_many_were_whole(tmp_path, store):
    before_it = write_archive(tmp_path, DAY, "2024-09-01", [(100, "5.1", "2", 1_000, "true")])
    replay([before_it], market=Market.USDM, intervals=parse_intervals([]), store=store)
    kept = dump(store)
    whole = write_archive(tmp_path, DAY + DAY_MS, "2024-09-02", [(101, "5.15", "2", 1_000, "true")])
    rows = [
        (102, "5.2", "2", 0, "true"),
        *((103 + n, "5.2", "2", n, "true") for n in range(70_000)),
        (1, "x", "2", 1, "no"),
    ]
    broken = write_archive(tmp_path, DAY + 2 * DAY_MS, "2024-09-03", rows)
    with pytest.raises(FileFormatError, match="line 70003"):
        replay([whole, broken], market=Market.USDM, intervals=parse_intervals(["5m"]), store=store)
    assert dump(store) == kept
    replay([whole], market=Market.USDM, intervals=parse_intervals(["5m"]), store=store)
    assert dump(store) != kept


@pytest.mark.parametrize(
    ("times", "reason"),
    [
        ((1_000, 3_600_000, 2_000), "line 4: trade 102 is dated 2024-09-01T00:00:02Z, long before trade 101 of"),
        ((1_000, 2_000, 400 * DAY_MS), "line 4: trade 102 is dated 2025-10-06T00:00:00Z, long after trade 101 of"),
    ],
)
def test_a_time_that_cannot_be_true_names_its_line(tmp_path, store, times, reason):
    rows = [(100 + number, "5.1", "2", t, "true") for number, t in enumerate(times)]
    path = write_archive(tmp_path, DAY, "part", rows)
    with pytest.raises(FileFormatError, match=reason):
        replay([path], market=Market.USDM, intervals=parse_intervals([]), store=store, symbol="NEARUSDT")
    assert store.instruments(Market.USDM) == []


def test_the_last_trade_may_be_the_first_of_its_minute(tmp_path, store):
    path = write_archive(tmp_path, DAY, "part", [(100, "5.1", "2", 1_000, "true"), (101, "5.2", "1", 120_000, "true")])
    replay([path], market=Market.USDM, intervals=parse_intervals([]), store=store, symbol="NEARUSDT")
    minutes = store.read(1, MINUTE, 0, 1 << 60)
    assert minutes["trades"].tolist() == [1, 0, 1]
    assert minutes["origin"].tolist() == [Origin.PARTIAL, Origin.FLAT, Origin.PARTIAL]


@pytest.mark.parametrize("days_between", [1, 4])
def test_a_day_without_a_file_is_filled_and_queued(tmp_path, store, days_between):
    first = write_archive(tmp_path, DAY, "2024-09-01", [(100, "5.1", "2", 3_600_000, "true")])
    later_ms = DAY + (days_between + 1) * DAY_MS
    later = write_archive(tmp_path, later_ms, f"2024-09-0{days_between + 2}", [(900, "5.2", "2", 5_000, "true")])
    replay([first, later], market=Market.USDM, intervals=parse_intervals([]), store=store)
    minutes = store.read(1, MINUTE, 0, 1 << 60)
    assert (np.diff(minutes["open_ms"]) == MINUTE_MS).all()
    assert minutes["origin"][[0, -1]].tolist() == [Origin.PARTIAL] * 2
    assert set(minutes["origin"][1:-1].tolist()) == {int(Origin.FILLED)}
    assert len(store.unverified(Market.USDM, before_ms=1 << 60, urgent=True, limit=99_999)) == len(minutes)


def test_a_file_named_after_a_day_that_begins_before_it_covers_nothing(tmp_path, store):
    rows = [(100, "5.1", "2", -90_000, "true"), (101, "5.2", "2", 10_000, "true")]
    replay([write_archive(tmp_path, DAY, "2024-09-01", rows)], market=Market.USDM, intervals=(MINUTE,), store=store)
    minutes = store.read(1, MINUTE, 0, DAY + MINUTE_MS)
    assert minutes["open_ms"].tolist() == [DAY - 2 * MINUTE_MS, DAY - MINUTE_MS, DAY]
    assert minutes["origin"][0] == Origin.PARTIAL


@pytest.mark.parametrize("files", ["one", "two"])
def test_recordings_far_apart_are_one_gap_on_record(tmp_path, store, files):
    first, second = tmp_path / "a.jsonl.gz", tmp_path / "b.jsonl.gz"
    for path, a, t in ((first, 1, DAY + 1_000), (second, 900, DAY + 60 * DAY_MS + 1_000)):
        with gzip.open(path, "wt") as file:
            file.write(f'{{"a":{a},"p":"5.1","q":"1","f":{a},"l":{a},"T":{t},"m":true}}\n')
    if files == "one":
        first.write_bytes(first.read_bytes() + second.read_bytes())
    recordings = [first, second] if files == "two" else [first]
    replay(recordings, market=Market.USDM, intervals=parse_intervals([]), store=store, symbol="NEARUSDT")
    minutes = store.read(1, MINUTE, 0, 1 << 60)
    assert minutes["open_ms"].tolist() == [DAY, DAY + 60 * DAY_MS]
    assert [(gap.start_ms, gap.end_ms) for gap in store.gaps(Market.USDM)] == [(DAY + MINUTE_MS, DAY + 60 * DAY_MS)]
    assert set(minutes["origin"].tolist()) == {int(Origin.PARTIAL)}
