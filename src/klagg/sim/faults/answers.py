"""Answers that are well-formed and wrong: empty, short, of another range, doubled, in disorder, with holes, with rows that cannot be.

Every number is the market's own, except in an impossible row and in the second of two contradicting ones.
"""

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, TypeVar, cast

import msgspec

from klagg.sim.faults.playing import Playing
from klagg.sim.faults.rows import RowFault
from klagg.sim.faults.schedule import Fault, fits

T = TypeVar("T")
Row = list[int | str]
OPEN_TIME, OPEN, HIGH, LOW, _CLOSE, VOLUME, _END, QUOTE, COUNT, TAKER_VOLUME, TAKER_QUOTE = range(11)


class EmptyAnswer(RowFault, frozen=True, kw_only=True, tag_field="kind", tag="empty_answer"):
    """An answer has no rows, although the range has."""


class ShortAnswer(RowFault, frozen=True, kw_only=True, tag_field="kind", tag="short_answer"):
    """An answer ends early: of its rows it has `keeps`."""

    keeps: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.5


class OtherPage(RowFault, frozen=True, kw_only=True, tag_field="kind", tag="other_page"):
    """An answer is that of the request before it for the same symbol and interval, or of the range before or after the one asked for."""

    which: Literal["last", "before", "after"] = "last"


class DoubledRow(RowFault, frozen=True, kw_only=True, tag_field="kind", tag="doubled_row"):
    """A row stands twice in an answer; with `differs` the second has another number of trades."""

    differs: bool = False


class Disorder(RowFault, frozen=True, kw_only=True, tag_field="kind", tag="disorder"):
    """The rows of an answer are not in order."""


class LeftOut(RowFault, frozen=True, kw_only=True, tag_field="kind", tag="left_out"):
    """Up to `rows` rows from the middle of an answer are not there; other ones each time."""

    rows: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 1


class ImpossibleRow(RowFault, frozen=True, kw_only=True, tag_field="kind", tag="impossible_row"):
    """A row of an answer is none of a candle that can be."""

    how: Literal["prices", "zero_price", "no_trades", "no_volume", "quote", "taker"] = "prices"


class DoubledSymbol(Fault, frozen=True, kw_only=True, tag_field="kind", tag="doubled_symbol"):
    """Symbols stand twice in the symbol list."""

    symbols: tuple[str, ...] = ("*",)


class MissingSymbol(Fault, frozen=True, kw_only=True, tag_field="kind", tag="missing_symbol"):
    """Symbols do not stand in the symbol list, although they trade."""

    symbols: tuple[str, ...] = ("*",)


class TradeRows(Fault, frozen=True, kw_only=True, tag_field="kind", tag="trade_rows"):
    """An answer of aggregate trades has a row twice, is not in order, or lacks a row."""

    symbols: tuple[str, ...] = ("*",)
    how: Literal["doubled", "disorder", "left_out"] = "doubled"


KlineAnswer = EmptyAnswer | ShortAnswer | OtherPage | DoubledRow | Disorder | LeftOut | ImpossibleRow
ListAnswer = DoubledSymbol | MissingSymbol
AnswerFault = KlineAnswer | ListAnswer | TradeRows


class AnswerFaults:
    """What becomes of the rows of answers; answers are numbered in the order in which they are made."""

    def __init__(self, faults: Sequence[Playing[AnswerFault]], passed: Callable[[], int]) -> None:
        self._faults = faults
        self._passed = passed
        self._number = 0

    def other_page(self, symbol: str, interval: str) -> str | None:
        """Which other request a request for klines gets the answer of: the `last` one, that for the range `before` or `after` it."""
        if not self._faults:
            return None
        self._number += 1
        for playing in self._faults:
            fault = playing.fault
            if isinstance(fault, OtherPage) and self._hits(playing, symbol, interval):
                return fault.which
        return None

    def klines(self, symbol: str, interval: str, rows: list[Row]) -> list[Row]:
        """The rows of a kline answer as they are served."""
        for playing in self._faults:
            fault = playing.fault
            if rows and isinstance(fault, RowFault) and not isinstance(fault, OtherPage):
                short = len(rows) < _least(fault)
                if not short and self._hits(playing, symbol, interval):
                    rows = _harmed(cast("KlineAnswer", fault), rows, playing.draw("at", symbol, interval, self._number))
        return rows

    def trades(self, symbol: str, rows: list[T]) -> list[T]:
        """The rows of an answer of aggregate trades as they are served."""
        self._number += bool(self._faults)
        for playing in self._faults:
            fault = playing.fault
            if isinstance(fault, TradeRows) and len(rows) > 1 and fits(symbol, fault.symbols):
                if not playing.strikes(self._passed(), symbol, self._number):
                    continue
                at = 1 + int(playing.draw("at", symbol, self._number) * (len(rows) - 1))
                last = {"doubled": rows[at - 1 :], "disorder": rows[:at], "left_out": rows[at + 1 :]}[fault.how]
                rows = (rows[at:] if fault.how == "disorder" else rows[:at]) + last
        return rows

    def symbols(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows of the symbol list as they are served."""
        self._number += bool(self._faults)
        for playing in self._faults:
            fault = playing.fault
            if isinstance(fault, DoubledSymbol | MissingSymbol):
                copies = 0 if isinstance(fault, MissingSymbol) else 2
                hit = {
                    row["symbol"]
                    for row in rows
                    if fits(row["symbol"], fault.symbols)
                    and playing.strikes(self._passed(), row["symbol"], self._number)
                }
                rows = [row for row in rows for _ in range(copies if row["symbol"] in hit else 1)]
        return rows

    @property
    def concern_the_list(self) -> bool:
        """Whether the symbol list is ever wrong."""
        return any(isinstance(playing.fault, DoubledSymbol | MissingSymbol) for playing in self._faults)

    def _hits(self, playing: Playing[AnswerFault], symbol: str, interval: str) -> bool:
        fault = playing.fault
        return (
            isinstance(fault, RowFault)
            and fits(symbol, fault.symbols)
            and fits(interval, fault.intervals)
            and playing.strikes(self._passed(), symbol, interval, self._number)
        )


def _least(fault: RowFault) -> int:
    """How many rows an answer must have to be harmed so."""
    return 3 if isinstance(fault, LeftOut) else 2 if isinstance(fault, Disorder) else 1


def _harmed(fault: KlineAnswer, rows: list[Row], draw: float) -> list[Row]:
    at = int(draw * len(rows))
    match fault:
        case EmptyAnswer():
            return []
        case ShortAnswer():
            return rows[: int(len(rows) * fault.keeps)]
        case Disorder():
            at = max(at, 1)
            return rows[at:] + rows[:at]
        case LeftOut():
            first = 1 + int(draw * (len(rows) - 2))
            return rows[:first] + rows[min(first + fault.rows, len(rows) - 1) :]
        case DoubledRow():
            again = list(rows[at])
            if fault.differs:
                again[COUNT] = int(again[COUNT]) + 1
            return [*rows[: at + 1], again, *rows[at + 1 :]]
        case ImpossibleRow():
            return [*rows[:at], _IMPOSSIBLE[fault.how](rows[at]), *rows[at + 1 :]]
        case _:
            return rows


def _with(row: Row, **changes: int | str) -> Row:
    places = {"open": OPEN, "high": HIGH, "low": LOW, "volume": VOLUME, "quote": QUOTE, "count": COUNT}
    places |= {"taker": TAKER_VOLUME, "taker_quote": TAKER_QUOTE}
    changed = list(row)
    for name, value in changes.items():
        changed[places[name]] = value
    return changed


def _more(text: int | str) -> str:
    return str(Decimal(text) * 3 + 1)


_IMPOSSIBLE: Final[dict[str, Callable[[Row], Row]]] = {
    "prices": lambda row: _with(row, high=str(Decimal(row[LOW]) / 2)),
    "zero_price": lambda row: _with(row, low="0"),
    "no_trades": lambda row: _with(row, count=0, volume=row[VOLUME] if Decimal(row[VOLUME]) else "1"),
    "no_volume": lambda row: _with(row, volume="0", taker="0", count=max(int(row[COUNT]), 1)),
    "quote": lambda row: _with(row, quote=_more(row[QUOTE])),
    "taker": lambda row: _with(row, taker=_more(row[VOLUME])),
}
"""What can be wrong with a row: high below the others, a price of zero, volume without trades, trades without volume, a quote volume
that no price of it gives, more bought by takers than was traded."""
