"""Trade files of every kind and packing, and what is said of broken ones."""

import gzip
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zstandard

from klagg.archive import CHUNK_ROWS, open_trades
from klagg.errors import FileFormatError, UsageError
from klagg.model import Market, TradeKind

AGG_HEADER = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker"
AGG_ROW = "7,61800.30,0.0060,10,12,1723161256322,true"
WS_TRADE = '{"e":"trade","E":1723161256322,"T":1723161256322,"s":"BTCUSDT","t":5,"p":"61800.30","q":"0.006","X":"MARKET","m":false}'
WS_AGG = (
    '{"e":"aggTrade","E":2,"a":52599685,"s":"YFIUSDT","p":"49966.7","q":"0.001","f":64,"l":66,"T":1618677448084,'
    '"m":false,"nq":"0.001","st":1}'
)


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def row_of(path: Path, **options: object) -> tuple[object, ...]:
    (chunk,) = list(open_trades(path, **options))  # type: ignore[arg-type]
    assert len(chunk.trades) == 1
    return tuple(chunk.trades[0].tolist())


EXPECTED_AGG = (0, 1, 3, 1, 0, 7, 618_003, 6, 10, 12, 1_723_161_256_322)


@pytest.mark.parametrize("header", ["", AGG_HEADER + "\n", "\ufeff" + AGG_HEADER + "\r\n"])
@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
def test_archive_agg_trades(tmp_path: Path, header: str, end: str) -> None:
    path = write(tmp_path / "BTCUSDT-aggTrades-2024-08-08.csv", header + AGG_ROW + end)
    assert row_of(path) == EXPECTED_AGG
    assert open_trades(path).file.kind == "aggTrades"


@pytest.mark.parametrize(
    ("row", "market"),
    [
        ("7,61800.30,0.0060,370.8,1723161256322,True,True", Market.SPOT),
        ("7,61800.30,0.0060,370.8,1723161256322999,True,True", Market.SPOT),
        ("7,61800.30,0.0060,370.8,1723161256322,true", None),
    ],
)
def test_archive_trades(tmp_path: Path, row: str, market: Market | None) -> None:
    path = write(tmp_path / "BTCUSDT-trades-2024-08.csv", row + "\n")
    assert row_of(path) == (0, 1, 3, 1, 0, 7, 618_003, 6, 7, 7, 1_723_161_256_322)
    assert open_trades(path).file.market == market


def test_coinm_trades_are_recognised_by_their_header(tmp_path: Path) -> None:
    text = "id,price,qty,base_qty,time,is_buyer_maker\n7,61800.30,4,0.00001,1723161256322,false\n"
    reader = open_trades(write(tmp_path / "BTCUSD_PERP-trades-2024-08-08.csv", text))
    assert reader.file.market == "coinm"
    assert next(iter(reader)).trades["qty"].tolist() == [4]


def _zip(path: Path, data: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as pack:
        pack.writestr("inside.csv", data)


PACKERS: dict[str, Callable[[Path, bytes], object]] = {
    "gzip": lambda path, data: path.write_bytes(gzip.compress(data)),
    "two gzip members": lambda path, data: path.write_bytes(gzip.compress(data[:30]) + gzip.compress(data[30:])),
    "zstd": lambda path, data: path.write_bytes(zstandard.compress(data)),
    "two zstd frames": lambda path, data: path.write_bytes(zstandard.compress(data[:9]) + zstandard.compress(data[9:])),
    "zip": _zip,
}


@pytest.mark.parametrize("packer", PACKERS)
def test_packing_is_known_by_content_and_truncation_is_told(tmp_path: Path, packer: str) -> None:
    path = tmp_path / "whatever"
    rng = np.random.default_rng(1)
    lines = [f"{i},{rng.integers(10**9)}.5,1,{i},{i},1723161256322,true" for i in range(5_000)]
    PACKERS[packer](path, "\n".join(lines).encode())
    reader = open_trades(path, symbol="BTCUSDT")
    assert sum(len(chunk.trades) for chunk in reader) == 5_000
    data = path.read_bytes()
    for cut in (len(data) // 2, len(data) - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(FileFormatError, match=r"whatever: .*(truncated|too early)"):
            list(open_trades(path, symbol="BTCUSDT"))


@pytest.mark.parametrize("size", [1, 7, 258, 4096])
def test_gzip_in_small_blocks_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr("klagg.archive.text.BLOCK_BYTES", size)
    path = tmp_path / "BTCUSDT-aggTrades-2024-08-08.csv.gz"
    path.write_bytes(gzip.compress(f"{AGG_ROW}\n".encode() * 300))
    assert sum(len(chunk.trades) for chunk in open_trades(path)) == 300


def test_corrupt_gzip(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(f"{AGG_ROW}\n".encode() * 1000))
    data[-6] ^= 0xFF
    (tmp_path / "x.gz").write_bytes(data)
    with pytest.raises(FileFormatError, match="broken or truncated"):
        list(open_trades(tmp_path / "x.gz", symbol="A"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (gzip.compress(b"", mtime=0), "empty"),
        (b"\n\n  \n", "nothing in it"),
        (b"wss://stream.binance.com:9443/stream?streams=x@trade\n", "nothing in it"),
        (bytes(range(256)) * 10, "binary"),
        ("1,2\x00".encode("utf-16"), "binary"),
        (b"caf\xe9,2\n" * 10, "not UTF-8"),
        (b"PAR1\x15\x04", "Parquet"),
        (b"SQLite format 3\0aaaa", "SQLite"),
        (b"hello world\n", "no column for trade id"),
        (b"1,2,3\n", "3 columns"),
        (b"{broken\n", "line 1: broken JSON"),
        (b'{"foo": 1}\n', "no trades"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=rf"bad\.csv: .*{reason}") as caught:
        list(open_trades(path, symbol="A"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("7,61800.30,0.0060,10,12,1723161256322", "6 columns where 7"),
        ("7,61800.30,0.0060,10,12,1723161256322,true,1", "8 columns where 7"),
        ("x,61800.30,0.0060,10,12,1723161256322,true", "trade id 'x'"),
        ("7,61 800.30,0.0060,10,12,1723161256322,true", "price '61 800.30'"),
        ("7,-1,0.0060,10,12,1723161256322,true", "price -1 is negative"),
        ("7,1,nan,10,12,1723161256322,true", "quantity 'nan'"),
        ("7,1,1234567890123456789,10,12,1723161256322,true", "more than 18 digits"),
        ("7,1,1,12,10,1723161256322,true", "last trade id 10 is before"),
        ("7,1,1,10,12,1723161256,true", "neither milliseconds"),
        ("7,1,1,10,12,1723161256322,maybe", "is_buyer_maker 'maybe'"),
        ('7,"1""2",1,10,12,1723161256322,true', "price"),
    ],
)
def test_a_broken_row_is_named_with_file_and_line(tmp_path: Path, row: str, reason: str) -> None:
    path = write(tmp_path / "BTCUSDT-aggTrades-2024-08-08.csv", f"{AGG_HEADER}\n{AGG_ROW}\n\n{row}\n{AGG_ROW}\n")
    with pytest.raises(FileFormatError) as caught:
        list(open_trades(path))
    assert f"{path}: line 4: " in str(caught.value)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (WS_TRADE[:60], "broken JSON"),
        (WS_TRADE.replace('"t":5', '"t":"5"'), "a broken trade: Expected `int`"),
        (WS_TRADE.replace('"t":5,', ""), "it has no t"),
        (WS_TRADE.replace('"m":false', '"m":null'), "it has no m"),
        (WS_TRADE.replace("61800.30", "6e"), "price p '6e'"),
        (WS_TRADE.replace("61800.30", "6\\n1"), "price p"),
        (WS_TRADE.replace("1723161256322,", "17,"), "time T 17"),
        ("soon " + WS_TRADE, "'soon ' before the JSON"),
        ("no json", "neither JSON"),
        ('{"a":1,"p":"1","q":"1","f":1,"l":1,"T":1723161256322,"m":true}', "names no symbol"),
    ],
)
def test_a_broken_message_is_named_with_file_and_line(tmp_path: Path, line: str, reason: str) -> None:
    path = write(tmp_path / "rec.jsonl", f"{WS_TRADE}\n\n{line}\n{WS_TRADE}\n")
    with pytest.raises(FileFormatError) as caught:
        list(open_trades(path))
    assert f"{path}: line 3: " in str(caught.value)
    assert reason in str(caught.value)


def test_messages_raw_combined_and_mixed(tmp_path: Path) -> None:
    other = [
        '{"e":"depthUpdate","E":1,"s":"X","a":[["1","2"]],"b":[]}',
        '{"u":400900217,"s":"BNBUSDT","b":"25.35190000","B":"31.21","a":"25.36","A":"40.66"}',
        '{"stream":"bnbusdt@bookTicker","data":{"u":4,"s":"BNBUSDT","b":"25.3","B":"31.2","a":"25.3","A":"40.6"}}',
        '[{"e":"24hrMiniTicker","E":1,"s":"X","c":"1"}]',
        '{"stream":"!miniTicker@arr","data":[{"e":"24hrMiniTicker","E":1,"s":"X","c":"1"}]}',
        '{"result":null,"id":1}',
    ]
    trades = [WS_TRADE, f'{{"stream":"x@aggTrade","data":{WS_AGG}}}', WS_TRADE.replace('"X":"MARKET"', '"X":""')]
    path = write(tmp_path / "rec.txt", "wss://fstream.binance.com/ws\n" + "\n".join(other + trades))
    reader = open_trades(path)
    (chunk,) = list(reader)
    assert reader.passed_over == {"depthUpdate": 1, "other": 2, "bookTicker": 1, "24hrMiniTicker": 2}
    assert chunk.trades["kind"].tolist() == [TradeKind.MARKET, TradeKind.MARKET, TradeKind.OTHER]
    assert chunk.trades["agg_id"].tolist() == [5, 52_599_685, 5]
    assert (chunk.trades["last_id"] - chunk.trades["first_id"] + 1).tolist() == [1, 3, 1]
    assert [chunk.symbol_names[slot] for slot in chunk.trades["slot"]] == ["BTCUSDT", "YFIUSDT", "BTCUSDT"]
    assert chunk.receive_ms is None
    assert reader.file.market is Market.USDM


def test_one_symbol_of_a_recording(tmp_path: Path) -> None:
    path = write(tmp_path / "rec.txt", f"{WS_TRADE}\n{WS_AGG}\n")
    reader = open_trades(path, symbol="YFIUSDT")
    (chunk,) = list(reader)
    assert (chunk.symbol_names, chunk.trades["slot"].tolist()) == (["YFIUSDT"], [0])
    assert reader.passed_over == {"other symbol": 1}


def test_rest_rows_as_one_array(tmp_path: Path) -> None:
    rows = [
        {"a": 7 + i, "p": "61800.30", "q": "0.0060", "nq": "0", "f": 10, "l": 12, "T": 1_723_161_256_322, "m": True}
        for i in range(3)
    ]
    for text in (json.dumps(rows), json.dumps(rows, indent=1)):
        path = write(tmp_path / "rows.json", text)
        (chunk,) = list(open_trades(path, symbol="BTCUSDT"))
        assert chunk.trades[0].tolist() == EXPECTED_AGG
        assert chunk.trades["agg_id"].tolist() == [7, 8, 9]
    rows[1]["p"] = "x"
    path = write(tmp_path / "rows.json", json.dumps(rows, indent=1))
    with pytest.raises(FileFormatError, match="line 12: price p 'x'"):
        list(open_trades(path, symbol="BTCUSDT"))


def test_negative_ids_of_removed_trades_are_taken(tmp_path: Path) -> None:
    text = "7,0.00000000,0.00000000,-1,-1,1723161256322,True,True\n"
    path = write(tmp_path / "BTCUSDT-aggTrades-2018-02.csv", text)
    assert row_of(path) == (0, 0, 0, 1, TradeKind.UNPROVEN, 7, 0, 0, -1, -1, 1_723_161_256_322)


def test_recorder_csv_of_several_symbols_and_events(tmp_path: Path) -> None:
    head = "EventType,TransactionTime,Symbol,TradeId,Price,Quantity,IsBuyerMarketMaker,XUnknownParameter\n"
    rows = [
        "trade,1741046404349,TRXUSDT,1,1e-05,243.0,0,MARKET",
        "trade,1741046404349,币安人生USDT,1,0.5,243.0,1,MARKET",
        "bookTicker,1741046404349,TRXUSDT,1,0.5,243.0,1,MARKET",
        "trade,1741046404349,TRXUSDT,2,0.5,243.0,1,INSURANCE_FUND",
    ]
    reader = open_trades(write(tmp_path / "r.csv", head + "\n".join(rows) + "\n" + head))
    (chunk,) = list(reader)
    assert reader.symbol_names == ["TRXUSDT", "币安人生USDT"]
    assert chunk.trades["slot"].tolist() == [0, 1, 0]
    assert chunk.trades["kind"].tolist() == [0, 0, 1]
    assert (chunk.trades["price"][0], chunk.trades["price_scale"][0]) == (1, 5)
    assert reader.passed_over == {"bookTicker": 1}


def test_chunks_are_bounded_and_every_iteration_starts_anew(tmp_path: Path) -> None:
    count = CHUNK_ROWS + 10
    lines = (f"{i},1.5,2,{i},{i},1723161256322,true" for i in range(count))
    reader = open_trades(write(tmp_path / "BTCUSDT-aggTrades-2024-08-08.csv", "\n".join(lines)))
    for _ in range(2):
        chunks = list(reader)
        assert [len(chunk.trades) for chunk in chunks] == [CHUNK_ROWS, 10]
        assert np.concatenate([chunk.lines for chunk in chunks]).tolist() == list(range(1, count + 1))
        assert np.concatenate([chunk.trades["agg_id"] for chunk in chunks]).tolist() == list(range(count))
        assert reader.rows == count


def test_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        open_trades(tmp_path / "none.csv")
    with pytest.raises(UsageError, match="give --symbol"):
        open_trades(write(tmp_path / "x.csv", AGG_ROW))
    with pytest.raises(UsageError, match="--market usdm"):
        open_trades(write(tmp_path / "x.jsonl", WS_TRADE), market=Market.SPOT)
    with pytest.raises(FileFormatError, match="klines, not trades"):
        open_trades(write(tmp_path / "k.csv", "1723161240000,1,1,1,1,2,1723161299999,2,1,0,0,0\n"))
