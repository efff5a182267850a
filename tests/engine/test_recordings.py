"""Real trades through the engine give the exchange's own candles, all nine fields, in every window known to be whole."""

import contextlib
import csv
import gzip
import json
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import pytest

from klagg.export import export
from klagg.interval import BY_NAME, MINUTE_MS, parse_intervals
from klagg.model import Market
from klagg.replay import replay
from klagg.store import open_store
from oracle import Candle, Instrument, Trade


@dataclass(frozen=True, slots=True)
class Kline:
    """The nine fields of an official kline, in the order of its columns."""

    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote: Decimal
    trades: int
    taker_volume: Decimal
    taker_quote: Decimal


def kline_of(candle: Candle) -> Kline:
    return Kline(
        candle.open,
        candle.high,
        candle.low,
        candle.close,
        candle.volume,
        candle.quote,
        candle.trades,
        candle.taker_volume,
        candle.taker_quote,
    )


# --- reading the recordings: on purpose nothing of klagg's ------------------------------------------------------------


def text_of(path):
    return gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")


def official_klines(path, header=None) -> dict[int, Kline]:
    with text_of(path) as file:
        rows = list(csv.reader(file))
    assert header is None or rows[0][0] == header
    rows = [row for row in rows if row[0].isdigit()]
    return {
        int(row[0]): Kline(*map(Decimal, row[1:6]), Decimal(row[7]), int(row[8]), Decimal(row[9]), Decimal(row[10]))
        for row in rows
    }


def trade_of(row: dict) -> Trade:
    number = row["a"] if "a" in row else row["t"]
    price, qty = Decimal(row["p"]), Decimal(row["q"])
    return Trade(
        agg_id=number,
        time_ms=row["T"],
        price=price,
        qty=qty,
        buyer_is_maker=bool(row["m"]),
        first_id=row.get("f", number),
        last_id=row.get("l", number),
        market=row.get("X", "MARKET") == "MARKET",
    )


def messages(path):
    """The JSON objects of a recording, without receive times, wrappers and URL lines."""
    with text_of(path) as file:
        for line in file:
            start = line.find("{")
            if start >= 0:
                message = json.loads(line[start:])
                yield message.get("data", message)


def recorded_trades(path) -> dict[str, list[Trade]]:
    """By symbol, in the order of the file."""
    by_symbol = defaultdict(list)
    if ".csv" in path.name:
        with text_of(path) as file:
            for row in csv.DictReader(file):
                raw = {"t": int(row["TradeId"]), "p": row["Price"], "q": row["Quantity"], "X": row["XUnknownParameter"]}
                raw |= {"T": int(row["TransactionTime"]), "m": row["IsBuyerMarketMaker"] == "1"}
                by_symbol[row["Symbol"]].append(trade_of(raw))
    else:
        for message in messages(path):
            if message.get("e") in (None, "trade", "aggTrade"):
                by_symbol[message.get("s", "")].append(trade_of(message))
    return by_symbol


# --- replaying them ---------------------------------------------------------------------------------------------------


def replay_through_oracle(path, market, symbol, name, folder):
    """By open time: the closed candles."""
    trades = recorded_trades(path)[symbol]
    twin = Instrument(trades[0].time_ms // MINUTE_MS * MINUTE_MS, trades[0].price)
    for trade in trades:
        twin.apply(trade, trade.time_ms)
    twin.advance(twin.open_ms + MINUTE_MS)
    return {candle.open_ms: kline_of(candle) for candle in twin.candles(BY_NAME[name])[0]}


def replay_and_export(path, market, symbol, name, folder):
    """The same, through the engine, the database and the export, as a person would get them."""
    with contextlib.closing(open_store(str(folder / "klagg.db"), mode="create")) as store:
        replay([path], market=market, intervals=parse_intervals([name]), store=store)
        out = folder / f"{symbol}.csv"
        export(store, market, symbol, BY_NAME[name], 0, 1 << 60, format="csv", out=out)
    return official_klines(out, "open_time")


WITNESSES = {"oracle": replay_through_oracle, "klagg": replay_and_export}
BTC, ETH = "usdm_BTCUSDT_20240808", "usdm_ETHUSDT_20240718-19"
TRX, SPOT_BTC = "usdm_TRXUSDT_20250304", "spot_BTCUSDT_20240808-09"
VERIFIED = [
    (f"{BTC}_trade.jsonl.gz", f"{BTC}_klines_1m.csv", "1m", "2024-08-08T23:55", 5),
    (f"{ETH}_trade.jsonl.gz", f"{ETH}_klines_1m.csv", "1m", "2024-07-18T23:58", 7),
    (f"{TRX}_trade.csv.gz", f"{TRX}_klines_1m.csv", "1m", "2025-03-04T00:00", 16),
    (f"{SPOT_BTC}_trade.jsonl.gz", f"{SPOT_BTC}_klines_5m.csv", "5m", "2024-08-08T23:55", 2),
]
"""Trades, official klines, interval, and the windows that the manifest calls identical: the first, and how many."""


@pytest.mark.parametrize("witness", WITNESSES)
@pytest.mark.parametrize(("trades_file", "klines_file", "name", "first", "windows"), VERIFIED)
def test_trades_give_the_official_candles(
    shared_data, tmp_path, witness, trades_file, klines_file, name, first, windows
):
    market, symbol = trades_file.split("_")[:2]
    official = official_klines(shared_data / klines_file)
    candles = WITNESSES[witness](shared_data / trades_file, Market(market), symbol, name, tmp_path)
    first_ms = round(datetime.fromisoformat(f"{first}+00:00").timestamp() * 1_000)
    opens = [first_ms + number * BY_NAME[name].step_ms for number in range(windows)]
    assert [candles[open_ms] for open_ms in opens] == [official[open_ms] for open_ms in opens]


def kline_pushes(path, symbol):
    """The pushes of running klines: open time, last trade id, and the nine fields."""
    for message in messages(path):
        kline = message.get("k")
        if kline is not None and kline["s"] == symbol:
            numbers = [Decimal(kline[name]) for name in "ohlcvq"]
            yield kline["t"], kline["L"], Kline(*numbers, kline["n"], Decimal(kline["V"]), Decimal(kline["Q"]))


@pytest.mark.parametrize("witness", WITNESSES)
def test_aggregates_give_the_candle_that_each_push_told(shared_data, tmp_path, witness):
    """A push tells a running candle up to a trade id: a recording cut there ends with that very candle."""
    path = shared_data / "usdm_4sym_20210722_aggtrade_kline_ws.txt.gz"
    compared = 0
    for symbol, trades in recorded_trades(path).items():
        lines = [message for message in messages(path) if message["e"] == "aggTrade" and message["s"] == symbol]
        for open_ms, last_id, told in kline_pushes(path, symbol):
            ends = [index for index, line in enumerate(lines) if line["l"] == last_id]
            if not ends or trades[0].time_ms >= open_ms or told.trades == 0:
                continue  # it ends inside an aggregate, or began before the recording
            compared += 1
            folder = tmp_path / str(compared)
            folder.mkdir()
            cut = folder / "cut.jsonl"
            cut.write_text("\n".join(map(json.dumps, lines[: ends[0] + 1])))
            assert WITNESSES[witness](cut, Market.USDM, symbol, "1m", folder)[open_ms] == told
    assert compared == 15
