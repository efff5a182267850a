"""Fold minutes into candles of any length with DuckDB, exactly: decimals stay decimals.

python examples/read_with_duckdb.py klagg.db BTCUSDT 45

It reads what `klagg export` writes; with DuckDB's sqlite extension the database can be attached instead (docs/DATABASE.md).
"""

import subprocess
import sys
import tempfile
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import duckdb

QUERY = """
SELECT time_bucket(to_minutes(?), open_time) AS open_time,
       arg_min(open, open_time) AS open, max(high) AS high, min(low) AS low, arg_max(close, open_time) AS close,
       sum(volume) AS volume, count(*) AS minutes
FROM read_parquet(?)
GROUP BY 1 ORDER BY 1
"""


def fold(
    path: str, symbol: str, minutes: int
) -> list[tuple[datetime, Decimal, Decimal, Decimal, Decimal, Decimal, int]]:
    """Candles of so many minutes each: open time, open, high, low, close, volume, and how many minutes they hold."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{symbol}-1m.parquet"
        options = ["--db", path, "--symbol", symbol, "--interval", "1m", "--format", "parquet", "--out", str(file)]
        subprocess.run([sys.executable, "-m", "klagg.cli", "export", *options], check=True)
        connection = duckdb.connect()
        connection.execute("SET TimeZone = 'UTC'")
        return connection.execute(QUERY, [minutes, str(file)]).fetchall()


def main() -> None:
    """Print the folded candles."""
    path, symbol, minutes = sys.argv[1:]
    for open_time, *numbers, held in fold(path, symbol, int(minutes)):
        print(f"{open_time:%Y-%m-%d %H:%M}", *(number.normalize() for number in numbers), held)


if __name__ == "__main__":
    main()
