"""The columns everything else relies on: sizes, ranks and stable numbers."""

import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from klagg import model
from klagg.model import (
    CANDLE,
    LAST_TRADE,
    NUMBERS,
    TRADE,
    Flag,
    Instrument,
    Market,
    Origin,
    Status,
    copied,
    joined,
    picked,
)


def test_rows_are_packed_as_documented():
    assert TRADE.itemsize == 56
    assert CANDLE.itemsize == 136
    assert all(CANDLE.fields[name][1] % 8 == 0 for name in CANDLE.names[8:])
    assert all(TRADE.fields[name][1] % 8 == 0 for name in TRADE.names[5:])


def test_the_numbers_are_those_of_an_exchanges_kline():
    kline = {"open", "high", "low", "close", "volume", "quote", "trades", "taker_volume", "taker_quote"}
    assert {name.removesuffix("_hi").removesuffix("_lo") for name in NUMBERS} == kline
    assert len(set(NUMBERS)) == len(NUMBERS)
    for name in NUMBERS:
        assert CANDLE.fields[name][0] == np.int64
        if name.endswith("_hi"):
            assert name.removesuffix("_hi") + "_lo" in NUMBERS


def test_origins_rank_as_the_design_lists_them_and_keep_their_numbers():
    labels = ["filled", "seed", "partial", "flat", "trades", "exchange", "unmatched"]
    assert [origin.label for origin in sorted(Origin)] == labels
    assert [int(origin) for origin in Origin] == list(range(7))


def test_flags_are_separate_bits_that_fit_their_column():
    combined = Flag.CLOSED | Flag.VERIFIED | Flag.AMENDED
    assert [int(flag) for flag in Flag] == [1, 2, 4]
    assert int(combined) <= np.iinfo(CANDLE["flags"]).max


def test_an_empty_array_of_candles_is_all_zero():
    candles = model.no_candles(3)
    assert candles.dtype == CANDLE
    assert candles.tobytes() == bytes(3 * CANDLE.itemsize)
    assert len(model.no_candles()) == 0


def test_a_last_trade_holds_full_width_numbers():
    row = np.zeros(1, LAST_TRADE)
    row["agg_id"] = 2**62
    row["price"] = 10**18 - 1
    row["time_ms"] = 1_800_000_000_000
    assert row[0]["agg_id"] == 2**62
    assert row[0]["price"] == 10**18 - 1


def test_virtual_shards_are_stable_across_processes_and_spread():
    symbols = [f"SYM{number}USDT" for number in range(2_000)] + ["测试测试USDT", "币安人生USDT"]
    here = [model.virtual_shard(Market.USDM, symbol) for symbol in symbols]
    assert set(here) == set(range(model.VIRTUAL_SHARDS))
    assert max(here.count(shard) for shard in range(model.VIRTUAL_SHARDS)) < 30
    code = (
        "from klagg.model import Market, virtual_shard;"
        "print([virtual_shard(Market.USDM, s) for s in ('SYM0USDT', '测试测试USDT')])"
    )
    other = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", code],
        env={"PYTHONHASHSEED": "12345"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout.strip() == str([here[0], model.virtual_shard(Market.USDM, "测试测试USDT")])


def test_the_same_symbol_of_two_markets_is_two_things():
    names = [f"SYM{number}USDT" for number in range(64)]
    assert [model.virtual_shard(Market.SPOT, n) for n in names] != [model.virtual_shard(Market.USDM, n) for n in names]
    spot = Instrument(Market.SPOT, "BTCUSDT", Status.TRADING, 2, 5)
    usdm = Instrument(Market.USDM, "BTCUSDT", Status.TRADING, 2, 5)
    assert spot != usdm
    assert spot == Instrument(Market.SPOT, "BTCUSDT", Status.TRADING, 2, 5, extra={"filters": []})


@given(st.lists(st.integers(0, 1 << 40), max_size=20), st.data())
def test_moving_rows_as_blocks_is_what_numpy_does(numbers: list[int], data: st.DataObject) -> None:
    rows = np.zeros(len(numbers), CANDLE)
    rows["open_ms"], rows["taker_quote_lo"], rows["slot"] = numbers, numbers[::-1], np.arange(len(numbers))
    index = np.array(data.draw(st.lists(st.integers(0, len(numbers) - 1), max_size=9) if numbers else st.just([])), int)
    mask = rows["open_ms"] % 2 == 0
    assert (copied(rows[::2]) == rows[::2]).all()
    assert (picked(rows, index) == rows[index]).all()
    assert (picked(rows, mask) == rows[mask]).all()
    assert (joined([rows, rows[::-1]]) == np.concatenate([rows, rows[::-1]])).all()
    assert copied(rows).dtype == joined([rows, rows]).dtype == CANDLE
