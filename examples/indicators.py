"""Indicators on completed candles only: averages and RSI, computed again whenever a candle has closed.

python examples/indicators.py klagg.db BTCUSDT 5m
python examples/indicators.py http://127.0.0.1:8420 BTCUSDT 5m --follow

A running candle never gets in: `candles` gives closed ones, and each is told by the feed after it is durable.
"""

import argparse

import pandas as pd

import klagg

LENGTH = 14


def indicators(candles: pd.DataFrame) -> pd.DataFrame:
    """Close, a short and a long average, and Wilder's relative strength index, by open time."""
    close = candles.set_index("open_time")["close"]
    change = close.diff()
    gain = change.clip(lower=0).ewm(alpha=1 / LENGTH, min_periods=LENGTH).mean()
    loss = (-change.clip(upper=0)).ewm(alpha=1 / LENGTH, min_periods=LENGTH).mean()
    return pd.DataFrame(
        {
            "close": close,
            "sma20": close.rolling(20).mean(),
            "ema50": close.ewm(span=50, min_periods=50).mean(),
            "rsi": 100 - 100 / (1 + gain / loss),
        }
    )


def show(reader: klagg.Reader, symbol: str, interval: str, rows: int) -> None:
    """Print the newest rows, and how much of it is not yet seen to be the exchange's."""
    found = reader.candles(symbol, interval, limit=500)
    print(indicators(found.pandas()).tail(rows).to_string(float_format="%.4f"))
    print(f"{len(found)} completed candles, {found.unverified} of them not verified yet")


def main() -> None:
    """Print once, and with --follow again after each candle."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("symbol")
    parser.add_argument("interval")
    parser.add_argument("--follow", action="store_true", help="go on with each candle that closes")
    arguments = parser.parse_args()
    with klagg.open(arguments.url) as reader:
        show(reader, arguments.symbol, arguments.interval, 5)
        if arguments.follow:
            # A later correction of a candle is told as well: what stands on it is computed again.
            kinds: list[klagg.Kind] = ["candle_closed", "candle_revised"]
            for _ in reader.feed(symbols=arguments.symbol, intervals=arguments.interval, kinds=kinds):
                show(reader, arguments.symbol, arguments.interval, 1)


if __name__ == "__main__":
    main()
