"""Candles computed from aggregate trade rows in `Decimal`, one trade at a time: the witness of the witness."""

from decimal import Decimal
from typing import Any


def candle(rows: list[dict[str, Any]], open_ms: int, end_ms: int) -> dict[str, Any] | None:
    inside = [row for row in rows if open_ms <= row["T"] < end_ms]
    if not inside:
        return None
    prices = [Decimal(row["p"]) for row in inside]
    takers = [row for row in inside if not row["m"]]
    return {
        "open": prices[0],
        "high": max(prices),
        "low": min(prices),
        "close": prices[-1],
        "volume": sum((Decimal(row["q"]) for row in inside), Decimal(0)),
        "quote": sum((Decimal(row["p"]) * Decimal(row["q"]) for row in inside), Decimal(0)),
        "trades": sum(row["l"] - row["f"] + 1 for row in inside),
        "taker_volume": sum((Decimal(row["q"]) for row in takers), Decimal(0)),
        "taker_quote": sum((Decimal(row["p"]) * Decimal(row["q"]) for row in takers), Decimal(0)),
    }


def of_row(row: list[Any]) -> dict[str, Any]:
    """A kline row in the same words."""
    names = ("open", "high", "low", "close", "volume", "quote", "trades", "taker_volume", "taker_quote")
    places = (1, 2, 3, 4, 5, 7, 8, 9, 10)
    return {
        name: row[place] if name == "trades" else Decimal(row[place]) for name, place in zip(names, places, strict=True)
    }


def of_event(event: dict[str, Any]) -> dict[str, Any]:
    """The candle of a kline event in the same words."""
    k = event["k"]
    texts = {"open": "o", "high": "h", "low": "l", "close": "c", "volume": "v", "quote": "q"}
    texts |= {"taker_volume": "V", "taker_quote": "Q"}
    return {name: Decimal(k[key]) for name, key in texts.items()} | {"trades": k["n"]}
