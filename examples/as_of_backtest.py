"""A backtest without look-ahead: each decision sees only what was known when it was made.

python examples/as_of_backtest.py klagg.db BTCUSDT 2024-01-28 2024-01-29

Candles are corrected after they close: a minute that was missing trades is replaced seconds or hours later. A backtest on the
numbers of today decides on corrections that nobody had. Here the same rule is run twice: on what `as_of` says was known at each
minute, and, naively, on what is known now; the rows where they decide otherwise are printed.
"""

import argparse

import klagg

MINUTE_MS = 60_000
LOOKBACK = 5


def decision(reader: klagg.Reader, symbol: str, now_ms: int, as_of_ms: int | None) -> int:
    """Long (1) or not (0): whether the last close is above the average of the last few, as known at `as_of_ms`."""
    start = now_ms - LOOKBACK * MINUTE_MS
    closes = reader.candles(symbol, "1m", start, now_ms, as_of=as_of_ms).table["close"].to_pylist()
    return int(len(closes) == LOOKBACK and closes[-1] > sum(closes) / LOOKBACK)


def main() -> None:
    """Run both, and print where they differ and what they made."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("symbol")
    parser.add_argument("start")
    parser.add_argument("end")
    arguments = parser.parse_args()
    with klagg.open(arguments.url) as reader:
        minutes = reader.candles(arguments.symbol, "1m", arguments.start, arguments.end)
        earned = {"as of then": 0.0, "naive": 0.0}
        differ = 0
        for minute in minutes.rows():
            # A decision at the open of a minute earns that minute's move.
            now_ms = round(minute["open_time"].timestamp() * 1_000)
            move = minute["close"] / minute["open"] - 1
            held = {
                "as of then": decision(reader, arguments.symbol, now_ms, now_ms),
                "naive": decision(reader, arguments.symbol, now_ms, None),
            }
            for name, position in held.items():
                earned[name] += position * move
            if held["as of then"] != held["naive"]:
                differ += 1
                print(
                    f"{minute['open_time']:%Y-%m-%d %H:%M} then {held['as of then']}, with today's numbers {held['naive']}"
                )
    print(f"{len(minutes)} decisions, {differ} of them on numbers that were not known yet")
    for name, total in earned.items():
        print(f"{name:10} {total:+.4%}")


if __name__ == "__main__":
    main()
