"""What a backfill tells: how far it is, and what it did."""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from klagg.backfill.differences import Differences
from klagg.model import Candles, Ints

Progress = Callable[[int, int, float, float], None]
"""Told (done, total, weight per minute, seconds left) in days of symbols."""
OnRepaired = Callable[[Ints, Candles, Ints, Candles, int], Awaitable[None]]


@dataclass(slots=True)
class BackfillSummary:
    """What a backfill did: candles by whether they were new or equal, minutes the exchange lacks, symbols it refused."""

    written: int = 0
    changed: int = 0
    folded: int = 0
    unmatched: int = 0
    skipped_days: int = 0
    requested_days: int = 0
    refused_symbols: tuple[str, ...] = ()


@dataclass(slots=True)
class FileSummary:
    """What files brought.

    `rows` are klines, `trades` trades read; `written` candles that are new or better than what was there, `equal` those that
    were there already, `refused` those the database knew better; `filled` minutes that files of klines lack; `off_grid` rows
    that open at no candle's open; `checksums` files that a checksum beside them was held to; `tally` what became of trades,
    `passed_over` the other messages of recordings, `other_symbols` files of symbols not wanted.
    """

    files: int = 0
    rows: int = 0
    trades: int = 0
    written: int = 0
    equal: int = 0
    refused: int = 0
    folded: int = 0
    filled: int = 0
    off_grid: int = 0
    checksums: int = 0
    other_symbols: int = 0
    seconds: float = 0.0
    tally: Counter[str] = field(default_factory=Counter)
    passed_over: Counter[str] = field(default_factory=Counter)
    differences: Differences = field(default_factory=Differences)

    def report(self) -> dict[str, object]:
        """All of it, as JSON has it."""
        plain = {name: getattr(self, name) for name in self.__slots__ if isinstance(getattr(self, name), int | float)}
        tallies = {"tally": dict(self.tally), "passed_over": dict(self.passed_over)}
        return {**plain, **tallies, "differences": self.differences.report()}
