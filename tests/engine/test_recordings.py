"""Real trades through the engine give the exchange's own candles, all nine fields, in every window known to be whole."""

import csv
import gzip
import json
from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal

import pytest

from klagg.interval import BY_NAME, MINUTE_MS, parse_intervals
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


def official_klines(path) -> dict[int, Kline]:
    with text_of(path) as file:
        rows = [row for row in csv.reader(file) if row[0].isdigit()]
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


def replay_through_oracle(trades, intervals):
    """By interval name and open: the closed candles."""
    twin = Instrument(trades[0].time_ms // MINUTE_MS * MINUTE_MS, trades[0].price)
    for trade in trades:
        twin.apply(trade, trade.time_ms)
    twin.advance(twin.open_ms + MINUTE_MS)
    return {(interval.name, c.open_ms): c for interval in intervals for c in twin.candles(interval)[0]}


WITNESSES = {"oracle": replay_through_oracle}
VERIFIED = [
    ("usdm_BTCUSDT_20240808_trade.jsonl.gz", "usdm_BTCUSDT_20240808_klines_1m.csv", "BTCUSDT", "1m", 5),
    ("usdm_ETHUSDT_20240718-19_trade.jsonl.gz", "usdm_ETHUSDT_20240718-19_klines_1m.csv", "ETHUSDT", "1m", 7),
    ("usdm_TRXUSDT_20250304_trade.csv.gz", "usdm_TRXUSDT_20250304_klines_1m.csv", "TRXUSDT", "1m", 16),
    ("spot_BTCUSDT_20240808-09_trade.jsonl.gz", "spot_BTCUSDT_20240808-09_klines_5m.csv", "BTCUSDT", "5m", 2),
]
"""Trades, official klines, symbol, interval, and how many windows the trades cover whole."""


@pytest.mark.parametrize("witness", WITNESSES)
@pytest.mark.parametrize(("trades_file", "klines_file", "symbol", "name", "windows"), VERIFIED)
def test_trades_give_the_official_candles(shared_data, witness, trades_file, klines_file, symbol, name, windows):
    trades = recorded_trades(shared_data / trades_file)[symbol]
    official = official_klines(shared_data / klines_file)
    interval = BY_NAME[name]
    candles = WITNESSES[witness](trades, parse_intervals([name]))
    first_ms, last_ms = trades[0].time_ms, trades[-1].time_ms
    covered = [open_ms for open_ms in official if first_ms < open_ms and interval.next_open(open_ms) <= last_ms]
    if symbol == "TRXUSDT":
        covered.insert(0, interval.open_at(first_ms))
    elif trades_file.startswith("usdm_BTCUSDT"):
        covered.append(interval.open_at(last_ms))
    assert len(covered) == windows
    for open_ms in covered:
        assert kline_of(candles[name, open_ms]) == official[open_ms]
