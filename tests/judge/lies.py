"""Answers that are well-formed and wrong, as users report them of the exchange: what was asked for is not what comes.

Every number is the truth's, except in an `impossible` row and in the second of two `contradicting` ones: a wrong row that looks like
a right one cannot be told from it by anybody.
"""

import random
from decimal import Decimal

from judge.truth import Symbol

KLINES = (
    "empty",
    "short",
    "again",
    "twice",
    "contradicting",
    "disorder",
    "neighbour",
    "left_out",
    "impossible",
)
"""What an answer of klines can be: without rows; ended early; that of another request; with a row twice, equal or with other
numbers; with rows in disorder; of the range beside; without rows in the middle; with a row that cannot be."""
AGG_TRADES = ("agg_twice", "agg_disorder", "agg_left_out")
LISTS = ("list_twice", "list_lacks_one")

Row = list


class Liar:
    """One exchange's lies. A row is left out from between others, and a symbol from the list, only once: else the lie is the truth."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self._asked: dict[tuple[str, str], tuple[int, int, int]] = {}
        self._left_out: set[tuple[str, str, int]] = set()
        self._unlisted: set[str] = set()

    def klines(
        self, kind: str | None, one: Symbol, interval: str, asked: tuple[int, int, int], now_ms: int
    ) -> tuple[list[Row], bool]:
        """The rows of an answer, and whether they are a lie; `asked` is start, end and limit, `kind` None for the truth."""
        key = one.name, interval
        before = self._asked.get(key)
        self._asked[key] = asked
        start_ms, end_ms, limit = asked
        rows = one.rows(interval, start_ms, end_ms, limit, now_ms)
        if kind is None or not rows:
            return rows, False
        told = rows
        if kind == "empty":
            told = []
        elif kind == "short":
            told = rows[: self.chance.randrange(len(rows))]
        elif kind == "again" and before is not None and before[:2] != asked[:2]:
            told = one.rows(interval, *before, now_ms)
        elif kind == "neighbour":
            shift_ms = (rows[-1][6] + 1 - rows[0][0]) * self.chance.choice((-1, 1))
            told = one.rows(interval, start_ms + shift_ms, end_ms + shift_ms, limit, now_ms)
        elif kind in {"twice", "contradicting"}:
            at = self.chance.randrange(len(rows))
            again = rows[at] if kind == "twice" else [*rows[at][:8], rows[at][8] + 1, *rows[at][9:]]
            told = [*rows[: at + 1], again, *rows[at + 1 :]]
        elif kind == "disorder":
            at = self.chance.randrange(len(rows))
            told = [*rows[at:], *rows[:at]] if self.chance.random() < 0.5 else rows[::-1]
        elif kind == "left_out" and len(rows) > 2:
            told = self._thinned(key, rows)
        elif kind == "impossible":
            at = self.chance.randrange(len(rows))
            told = [*rows[:at], self._impossible(rows[at]), *rows[at + 1 :]]
        return told, told != rows

    def _thinned(self, key: tuple[str, str], rows: list[Row]) -> list[Row]:
        at = self.chance.randrange(1, len(rows) - 1)
        gone = {row[0] for row in rows[at : min(at + self.chance.choice((1, 1, 2, 5)), len(rows) - 1)]}
        fresh = {open_ms for open_ms in gone if (*key, open_ms) not in self._left_out}
        self._left_out |= {(*key, open_ms) for open_ms in fresh}
        return [row for row in rows if row[0] not in fresh]

    def _impossible(self, row: Row) -> Row:
        """A row that breaks one of the rules that every candle keeps."""
        ways = [{3: "0"}, {1: "0", 3: "0"}, {10: _more(row[7])}, {9: _more(row[5])}]
        if Decimal(row[2]) > Decimal(row[3]):
            ways += [{2: row[3], 3: row[2]}]
        ways += [{8: 0}, {5: "0", 9: "0"}, {7: _more(row[7])}] if row[8] else [{8: 3}, {5: "1"}]
        changed = self.chance.choice(ways)
        return [changed.get(at, value) for at, value in enumerate(row)]

    def agg_trades(self, kind: str, rows: list[dict]) -> tuple[list[dict], bool]:
        """Aggregate trades as told."""
        if len(rows) < 2:
            return rows, False
        at = self.chance.randrange(1, len(rows))
        if kind == "agg_twice":
            told = [*rows[:at], rows[self.chance.randrange(at)], *rows[at:]]
        elif kind == "agg_disorder":
            told = [*rows[at:], *rows[:at]]
        else:
            told = [*rows[:at], *rows[at + 1 :]]
        return told, True

    def listed(self, kind: str, rows: list[dict]) -> tuple[list[dict], bool]:
        """The symbol list as told."""
        if kind == "list_twice":
            at = self.chance.randrange(len(rows))
            return [*rows[: at + 1], *rows[self.chance.randrange(at + 1) :]], True
        fresh = [row["symbol"] for row in rows if row["symbol"] not in self._unlisted]
        if len(fresh) < 2:
            return rows, False
        gone = self.chance.choice(fresh[1:])
        self._unlisted.add(gone)
        return [row for row in rows if row["symbol"] != gone], True


def _more(text: str) -> str:
    return str(Decimal(text) * 3 + 1)
