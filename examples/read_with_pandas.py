"""Read a series into a pandas data frame, and say how far it can be trusted.

python examples/read_with_pandas.py klagg.db BTCUSDT 1h
"""

import sqlite3
import sys

import pandas as pd

QUERY = """
SELECT open_time, open, high, low, close, volume, quote_volume, origin, verified
FROM candles_f64
WHERE market = 'usdm' AND symbol = ? AND interval = ? AND closed = 1
ORDER BY open_time_ms
"""


def read(path: str, symbol: str, interval: str) -> pd.DataFrame:
    """The closed candles of a series, by the time they opened (UTC)."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        return pd.read_sql_query(
            QUERY, connection, params=(symbol, interval), parse_dates=["open_time"], index_col="open_time"
        )


def main() -> None:
    """Print the newest candles, the share that the exchange confirmed, and the average price."""
    path, symbol, interval = sys.argv[1:]
    candles = read(path, symbol, interval)
    print(candles[["open", "high", "low", "close", "volume"]].tail())
    print(f"{len(candles)} candles, {candles['verified'].mean():.1%} verified")
    print(f"volume-weighted average price {candles['quote_volume'].sum() / candles['volume'].sum():.2f}")


if __name__ == "__main__":
    main()
