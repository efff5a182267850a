"""Recorded trades and official klines, read and counted by plain means: nothing of klagg's, one trade at a time."""

import csv
import gzip
import json
from collections.abc import Iterator
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any, NamedTuple

MINUTE_MS = 60_000


class Trade(NamedTuple):
    number: int
    time_ms: int
    price: Decimal
    qty: Decimal
    maker: bool
    count: int


class Numbers(NamedTuple):
    """A candle's numbers, in the order of an official row."""

    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote: Decimal
    trades: int
    taker_volume: Decimal
    taker_quote: Decimal


def lines(path: Path) -> list[str]:
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return text.decode("utf-8").splitlines()


def of_json(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for line in lines(path):
        if "{" not in line:
            continue
        message = json.loads(line[line.index("{") :])
        row = message.get("data", message)
        if row.get("e", "aggTrade") in ("aggTrade", "trade"):
            yield row.get("s", "XRPETH"), row


def of_csv(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for row in csv.DictReader(lines(path)):
        yield (
            row["Symbol"],
            {
                "t": int(row["TradeId"]),
                "T": int(row["TransactionTime"]),
                "p": row["Price"],
                "q": row["Quantity"],
                "m": row["IsBuyerMarketMaker"] in ("1", "true", "True"),
                "X": row["XUnknownParameter"],
            },
        )


def trades(path: Path) -> dict[str, list[Trade]]:
    """The market trades of a recording, by symbol, in the order of their ids."""
    found: dict[str, dict[int, Trade]] = {}
    for symbol, row in of_csv(path) if ".csv" in path.name else of_json(path):
        price, qty = Decimal(row["p"]), Decimal(row["q"])
        if row.get("X", "MARKET") != "MARKET" or not price or not qty:
            continue
        number = row["a"] if "a" in row else row["t"]
        count = row["l"] - row["f"] + 1 if "a" in row else 1
        found.setdefault(symbol, {})[number] = Trade(number, row["T"], price, qty, bool(row["m"]), count)
    return {symbol: [by_id[number] for number in sorted(by_id)] for symbol, by_id in found.items()}


def candles(rows: list[Trade], step_ms: int) -> dict[int, Numbers]:
    """All candles from the first trade's to the last trade's, by their open; without a trade, flat at the price before."""
    grouped: dict[int, list[Trade]] = {}
    for trade in rows:
        grouped.setdefault(trade.time_ms // step_ms * step_ms, []).append(trade)
    found: dict[int, Numbers] = {}
    last = Decimal(0)
    with localcontext(prec=60):
        for open_ms in range(min(grouped), max(grouped) + 1, step_ms):
            group = grouped.get(open_ms, [])
            prices = [trade.price for trade in group] or [last]
            last = prices[-1]
            takers = [trade for trade in group if not trade.maker]
            found[open_ms] = Numbers(
                prices[0],
                max(prices),
                min(prices),
                last,
                sum((trade.qty for trade in group), Decimal(0)),
                sum((trade.price * trade.qty for trade in group), Decimal(0)),
                sum(trade.count for trade in group),
                sum((trade.qty for trade in takers), Decimal(0)),
                sum((trade.price * trade.qty for trade in takers), Decimal(0)),
            )
    return found


def official(path: Path) -> dict[int, Numbers]:
    """The rows of an official file of klines, by their open."""
    rows = [row for row in csv.reader(lines(path)) if row[0].isdigit()]
    return {
        int(row[0]): Numbers(*map(Decimal, row[1:6]), Decimal(row[7]), int(row[8]), Decimal(row[9]), Decimal(row[10]))
        for row in rows
    }
