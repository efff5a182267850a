"""Every recording parses, with the counts and facts its manifest states."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from klagg.archive import TradeReader, open_trades, read_klines
from klagg.errors import FileFormatError
from klagg.interval import parse_interval
from klagg.model import TRADE, Flag, Market, Origin, TradeKind, Trades


def read_all(reader: TradeReader) -> Trades:
    return np.concatenate([np.empty(0, TRADE), *[chunk.trades for chunk in reader]])


RECORDINGS = [
    ("usdm_BTCUSDT_20240808_trade.jsonl.gz", "ws", Market.USDM, 21_313, {}, ["BTCUSDT"]),
    ("usdm_ETHUSDT_20240718-19_trade.jsonl.gz", "ws", Market.USDM, 13_655, {}, ["ETHUSDT"]),
    ("usdm_TRXUSDT_20250304_trade.csv.gz", "trades", None, 10_000, {}, ["TRXUSDT"]),
    ("spot_BTCUSDT_20240808-09_trade.jsonl.gz", "ws", Market.SPOT, 19_904, {}, ["BTCUSDT"]),
    ("coinm_ETHUSD_PERP_20240808-09_trade.jsonl.gz", "ws", "coinm", 3_595, {}, ["ETHUSD_PERP"]),
    ("coinm_BTCUSD_PERP_20240808-09_trade.jsonl.gz", "ws", "coinm", 5_235, {}, ["BTCUSD_PERP"]),
    (
        "usdm_4sym_20210722_aggtrade_kline_ws.txt.gz",
        "ws",
        Market.USDM,
        91,
        {"kline": 67},
        ["CTKUSDT", "AKROUSDT", "SUSHIUSDT", "KEEPUSDT"],
    ),
    (
        "usdm_4sym_20210417_aggtrade_kline_ws.txt.gz",
        "ws",
        Market.USDM,
        185,
        {"kline": 99},
        ["YFIUSDT", "XMRUSDT", "KSMUSDT", "DENTUSDT"],
    ),
    (
        "usdm_5sym_20210405_aggtrade_ws.txt.gz",
        "ws",
        Market.USDM,
        574,
        {},
        ["SANDUSDT", "CTKUSDT", "BATUSDT", "NEOUSDT", "CHRUSDT"],
    ),
    ("spottr_4sym_20230410_emptykline_ws.txt.gz", "ws", None, 0, {"kline": 8}, []),
    ("spotus_OMGBUSD_20211012_aggtrade_kline_ws.txt.gz", "ws", Market.SPOT, 11, {"kline": 5}, ["OMGBUSD"]),
]


@pytest.mark.parametrize(("name", "kind", "market", "rows", "passed_over", "symbols"), RECORDINGS)
def test_recording(
    shared_data: Path,
    name: str,
    kind: str,
    market: Market | str | None,
    rows: int,
    passed_over: dict[str, int],
    symbols: list[str],
) -> None:
    reader = open_trades(shared_data / name)
    trades = read_all(reader)
    assert (reader.file.kind, reader.file.market) == (kind, market)
    assert reader.rows == len(trades) == rows
    assert reader.passed_over == Counter(passed_over)
    assert reader.symbol_names == symbols
    assert set(trades["slot"].tolist()) <= set(range(len(symbols)))
    # Aggregate ids run without a hole in every recording, symbol by symbol.
    for slot in range(len(symbols)):
        assert (np.diff(trades["agg_id"][trades["slot"] == slot]) == 1).all()


def test_recorder_csv_has_one_trade_that_is_none(shared_data: Path) -> None:
    reader = open_trades(shared_data / "usdm_TRXUSDT_20250304_trade.csv.gz")
    (chunk,) = list(reader)
    other = chunk.trades[chunk.trades["kind"] == TradeKind.OTHER]
    assert other["agg_id"].tolist() == [548_331_095]
    assert other["time_ms"].tolist() == [1_741_047_334_448]
    assert reader.not_market == 1
    assert chunk.receive_ms is not None
    assert chunk.receive_ms[0] == 1_741_046_404_352
    assert chunk.trades[0].tolist() == (
        *(0, 5, 0, 0, TradeKind.MARKET),
        *(548_321_769, 23_103, 243, 548_321_769, 548_321_769, 1_741_046_404_349),
    )


def test_receive_times_of_both_notations(shared_data: Path) -> None:
    nanoseconds = next(iter(open_trades(shared_data / "usdm_BTCUSDT_20240808_trade.jsonl.gz")))
    seconds = next(iter(open_trades(shared_data / "usdm_4sym_20210722_aggtrade_kline_ws.txt.gz")))
    assert nanoseconds.receive_ms is not None
    assert seconds.receive_ms is not None
    assert nanoseconds.receive_ms[0] == 1_723_161_255_088
    assert seconds.receive_ms[0] == 1_626_992_742_289


def test_rest_rows_take_the_symbol_given(shared_data: Path) -> None:
    reader = open_trades(
        shared_data / "spot_XRPETH_20191011-12_aggtrades_rest.jsonl.gz", market=Market.SPOT, symbol="XRPETH"
    )
    trades = read_all(reader)
    assert (reader.file.kind, reader.symbol_names, len(trades)) == ("rest", ["XRPETH"], 6_722)
    assert int((trades["last_id"] - trades["first_id"] + 1).sum()) == 7_935
    assert (trades["price"][0], trades["price_scale"][0]) == (141_342, 8)
    assert (trades["qty"][0], trades["qty_scale"][0]) == (23, 0)


@pytest.mark.parametrize(
    ("name", "symbol", "interval", "rows"),
    [
        ("usdm_ALGOUSDT-1m-2024-09.csv.gz", None, "1m", 43_200),
        ("usdm_NEARUSDT-1m-2023-02.csv.gz", None, "1m", 40_320),
        ("usdm_BTCUSDT_20240808_klines_1m.csv", "BTCUSDT", "1m", 12),
        ("spot_BTCUSDT_20240808-09_klines_5m.csv", "BTCUSDT", "5m", 4),
    ],
)
def test_klines(shared_data: Path, name: str, symbol: str | None, interval: str, rows: int) -> None:
    reader = read_klines(shared_data / name, symbol=symbol)
    candles = np.concatenate(list(reader))
    assert (reader.interval, reader.rows, reader.off_grid) == (parse_interval(interval), rows, 0)
    assert len(candles) == rows
    assert (np.diff(candles["open_ms"]) == reader.interval.step_ms).all()
    assert set(candles["origin"].tolist()) == {Origin.EXCHANGE}
    assert set(candles["flags"].tolist()) == {Flag.CLOSED | Flag.VERIFIED}
    assert set(candles["interval"].tolist()) == {reader.interval.code}
    if symbol is None:
        assert reader.symbol == name.split("_")[1].partition("-")[0]
    if "ALGO" in name:
        assert int((candles["trades"] == 0).sum()) == 446


@pytest.mark.parametrize("name", ["exchangeInfo_spot_20211012.json.gz", "sealed.bin", "MANIFEST.md"])
def test_what_is_no_trade_file_is_said_to_be_none(shared_data: Path, name: str) -> None:
    with pytest.raises(FileFormatError, match=name):
        list(open_trades(shared_data / name))
