"""Wait until a minute is there for the whole market, then look at all symbols at that one instant.

python examples/wait_for_barrier.py http://127.0.0.1:8420
python examples/wait_for_barrier.py klagg.db --boundary 2024-02-03T00:00Z --verified

Whoever asks for 500 symbols one after the other at the turn of a minute gets some with and some without it. The barrier says
that the minute is closed and durable for all of them; with --verified, that it was seen to be the exchange's.
"""

import argparse
import time

import pandas as pd

import klagg

MINUTE_MS = 60_000


def cross_section(reader: klagg.Reader, boundary_ms: int) -> pd.DataFrame:
    """The minute that ended at a boundary, of every symbol: its return in basis points, and its quote volume."""
    minute = reader.candles("*", "1m", at=boundary_ms - MINUTE_MS).pandas().set_index("symbol")
    minute["bp"] = (minute["close"] / minute["open"] - 1) * 10_000
    return minute[["bp", "quote_volume", "verified"]].sort_values("bp", ascending=False)


def main() -> None:
    """Wait for one boundary, by default the next, and print the market."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--boundary", help="the end of the minute; by default the next one")
    parser.add_argument("--verified", action="store_true", help="wait until it was seen to be the exchange's")
    parser.add_argument("--timeout", type=float, default=300.0)
    arguments = parser.parse_args()
    boundary = arguments.boundary or (time.time_ns() // 1_000_000 // MINUTE_MS + 1) * MINUTE_MS
    with klagg.open(arguments.url) as reader:
        passed = reader.wait_barrier(boundary, verified=arguments.verified, timeout=arguments.timeout)
        market = cross_section(reader, passed.boundary_ms)
        left = "" if passed.unverified is None else f", {passed.unverified} left unverified"
        print(f"{len(market)} symbols have the minute up to {pd.Timestamp(passed.boundary_ms, unit='ms')} UTC{left}")
        print(market.head(10).to_string(float_format="%.2f"))


if __name__ == "__main__":
    main()
