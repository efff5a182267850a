"""What is in the database against what is true, read by SQLite alone and compared as decimals."""

import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import numpy as np

from judge.truth import MINUTE, Minute, following, opening
from simulation import events
from simulation.exchange import ODD, Exchange
from simulation.market import Traded
from simulation.plan import AUDIT_S

ORIGINS = ("filled", "seed", "partial", "flat", "trades", "exchange", "unmatched")
NAMES = ("1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M")
PRICES = ("open", "high", "low", "close")
WORD = 10**18
LEAVING_MS = 400_000
"""The symbol list is asked for at least so often (and a retry later): until then a symbol that has left is made candles of."""

Numbers = tuple[Decimal, ...]


def stored(row: sqlite3.Row | np.void) -> Numbers:
    """A stored candle's numbers: prices, volume, quote, taker volume, taker quote, trades."""
    price, qty = int(row["price_scale"]), int(row["qty_scale"])

    def sum_of(name: str, scale: int) -> Decimal:
        return Decimal(int(row[f"{name}_hi"]) * WORD + int(row[f"{name}_lo"])).scaleb(-scale)

    return (
        *(Decimal(int(row[name])).scaleb(-price) for name in PRICES),
        sum_of("volume", qty),
        sum_of("quote", price + qty),
        sum_of("taker_volume", qty),
        sum_of("taker_quote", price + qty),
        Decimal(int(row["trades"])),
    )


def official(row: list) -> Numbers:
    """The same of a kline row."""
    return (*(Decimal(row[at]) for at in (1, 2, 3, 4, 5, 7, 9, 10)), Decimal(row[8]))


def told(one: Traded, minute: Minute) -> Numbers:
    """The same of what the aggregate trades add up to."""
    p, q = one.price_digits, one.qty_digits
    return (
        *(Decimal(getattr(minute, name)).scaleb(-p) for name in PRICES),
        Decimal(minute.volume).scaleb(-q),
        Decimal(minute.quote).scaleb(-p - q),
        Decimal(minute.taker).scaleb(-q),
        Decimal(minute.taker_quote).scaleb(-p - q),
        Decimal(minute.trades),
    )


class Verdict:
    """Every candle of a database, judged; `problems` are sentences."""

    def __init__(self, exchange: Exchange, path: Path, intervals: tuple[str, ...]) -> None:
        self.problems: list[str] = []
        self.candles = 0
        self.verified = 0
        self._exchange = exchange
        self._intervals = intervals
        self._now_ms = exchange.now_ms
        with closing(sqlite3.connect(path)) as database:
            database.row_factory = sqlite3.Row
            self._database = database
            market = (exchange.plan.market,)
            listed = database.execute("SELECT id, symbol FROM instrument WHERE market = ?", market)
            self._symbols = {row["id"]: row["symbol"] for row in listed}
            upto = (
                "SELECT symbol, closed_upto_ms FROM instrument i JOIN shard s ON s.market = i.market AND s.id = i.shard "
                "WHERE i.market = ?"
            )
            self._closed_upto_ms = dict(tuple(row) for row in database.execute(upto, market))

    def torn(self, path: Path) -> "Verdict":
        """At any instant, as after `kill -9`: nothing called verified differs, nothing called `trades` lacks one."""
        return self._judge(path, whole=False)

    def final(self, path: Path, born: dict[str, int], settled_ms: int) -> "Verdict":
        """When all has settled: nothing missing, nothing extra, everything verified or on record.

        `born`: from when on each symbol must have candles. `settled_ms`: what closed by then must be settled.
        """
        self._settled_ms = settled_ms
        self._born = born
        return self._judge(path, whole=True)

    def _judge(self, path: Path, *, whole: bool) -> "Verdict":
        with closing(sqlite3.connect(path)) as database:
            database.row_factory = sqlite3.Row
            for number, symbol in self._symbols.items():
                one = self._exchange.everyone().get(symbol)
                if symbol == ODD:
                    continue
                if one is None:
                    self.problems.append(f"{symbol}: the exchange never had it")
                    continue
                for name in self._intervals:
                    series = number * 16 + NAMES.index(name)
                    rows = database.execute(
                        "SELECT * FROM candle WHERE series = ? ORDER BY open_ms", (series,)
                    ).fetchall()
                    for row in rows:
                        self._candle(one, name, row, whole=whole)
                    if whole:
                        self._complete(one, name, [row["open_ms"] for row in rows])
            strays = database.execute(
                "SELECT count(*) FROM candle WHERE series / 16 NOT IN (SELECT id FROM instrument)"
            )
            if strays.fetchone()[0]:
                self.problems.append("candles of no instrument")
            self.problems += events.problems(database, self._exchange.plan.market, whole=whole)
            if whole:
                self._tally(database)
        return self

    def _candle(self, one: Traded, name: str, row: sqlite3.Row, *, whole: bool) -> None:
        self.candles += 1
        open_ms, origin = row["open_ms"], ORIGINS[row["origin"]]
        where = f"{one.name} {name} {open_ms} ({(open_ms - self._exchange.plan.start_ms) / 1000:+.0f} s, {origin}"
        where += f", revision {row['revision']}{', verified' if row['verified'] else ''})"
        end_ms = following(name, open_ms)
        if opening(name, open_ms) != open_ms:
            self.problems.append(f"{where}: off its grid")
            return
        if end_ms > min(self._closed_upto_ms.get(one.name, 0), self._now_ms):
            self.problems.append(f"{where}: closed before its time")
            return
        if one.retired_ms and one.ends and open_ms > one.retired_ms + LEAVING_MS:
            self.problems.append(f"{where}: made after the symbol had left")
        truth = one.row(name, open_ms, self._now_ms)
        if row["verified"]:
            self.verified += 1
            if truth is None:
                self.problems.append(f"{where}: verified, and the exchange has none")
            elif stored(row) != official(truth) and self._was_changed(one, open_ms, end_ms):
                return
            elif stored(row) != official(truth):
                self.problems.append(f"{where}: verified, {difference(stored(row), official(truth))}")
            elif name == "1m" and row["first_id"] >= 0:
                self._ids(one, row, where)
            return
        if origin == "trades" and name == "1m" and open_ms in one.minutes:
            expected = told(one, one.told_minute(open_ms))
            if stored(row) != expected:
                self.problems.append(f"{where}: {difference(stored(row), expected)}")
        if origin == "unmatched":
            if truth is not None and whole:
                self.problems.append(f"{where}: the exchange has it")
            return
        if whole and end_ms <= self._settled_ms and one.name not in self._exchange.vanished:
            self.problems.append(f"{where}: still not settled {(self._now_ms - end_ms) // 1000} s after its close")

    def _was_changed(self, one: Traded, open_ms: int, end_ms: int) -> bool:
        """Whether the exchange changed a minute of this candle so lately that no audit need have seen it."""
        return any(
            open_ms <= minute_ms < end_ms and self._now_ms - max(at_ms, end_ms) < AUDIT_S * 1_000
            for minute_ms, at_ms in one.revised.items()
        )

    def _ids(self, one: Traded, row: sqlite3.Row, where: str) -> None:
        minute = one.minutes[row["open_ms"]]
        if (row["first_id"], row["last_id"]) != (minute.first_id, minute.last_id):
            self.problems.append(
                f"{where}: ids {row['first_id']}-{row['last_id']}, true {minute.first_id}-{minute.last_id}"
            )

    def _complete(self, one: Traded, name: str, opens: list[int]) -> None:
        """Nothing is missing between the first and the last that must be there."""
        born_ms = self._born.get(one.name)
        if born_ms is None:
            return
        first_ms = opening(name, born_ms)
        if one.retired_ms:
            end_ms = min(one.retired_ms - one.retired_ms % MINUTE, self._closed_upto_ms[one.name])
        else:
            end_ms = self._closed_upto_ms[one.name]
        have = set(opens)
        at = min([first_ms, *opens]) if opens else first_ms
        end_ms = max([end_ms, *(following(name, last) for last in opens[-1:])])
        while following(name, at) <= end_ms:
            if at not in have and one.row(name, at, self._now_ms) is not None:
                self.problems.append(
                    f"{one.name} {name} {at} ({(at - self._exchange.plan.start_ms) / 1000:+.0f} s): missing"
                )
                return
            at = following(name, at)

    def _tally(self, database: sqlite3.Connection) -> None:
        counted = {
            tuple(row): 1
            for row in database.execute(
                "SELECT origin, verified, count(*) FROM candle GROUP BY origin, verified HAVING count(*) <> 0"
            )
        }
        kept = {
            tuple(row): 1
            for row in database.execute(
                "SELECT origin, verified, sum(candles) FROM tally GROUP BY origin, verified HAVING sum(candles) <> 0"
            )
        }
        if counted != kept:
            self.problems.append(f"the tally says {sorted(kept)}, there are {sorted(counted)}")


def difference(ours: Numbers, theirs: Numbers) -> str:
    names = (*PRICES, "volume", "quote", "taker volume", "taker quote", "trades")
    return "; ".join(f"{name} {a} but {b} is true" for name, a, b in zip(names, ours, theirs, strict=True) if a != b)
