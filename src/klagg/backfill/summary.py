"""What a backfill tells: how far it is, and what it did."""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, fields

from klagg.backfill.differences import Differences
from klagg.model import Candles, Ints


@dataclass(frozen=True, slots=True)
class Pace:
    """How far a backfill is: days of symbols done of all, candles fetched, rates so far (0 at first), and seconds left."""

    done: int
    total: int
    candles: int
    candles_per_s: float
    weight_per_min: float
    allowed_per_min: int
    """The weight that a backfill may use in a minute."""
    left_s: float


Progress = Callable[[Pace], None]
"""Told after each day of a symbol, and once before."""
OnRepaired = Callable[[Ints, Candles, Ints, Candles, int], Awaitable[None]]


@dataclass(slots=True)
class BackfillSummary:
    """What a backfill did.

    `fetched` candles came from the exchange; `written` are those that are new or were confirmed, `changed` those whose
    numbers it put right; `filled` minutes that it did not give between others, made so that the series has no hole, and asked for
    again; `unmatched` minutes that it was seen not to have, twice; days of symbols `requested`, or there already (`skipped`);
    `weight` spent on klines.
    """

    fetched: int = 0
    written: int = 0
    changed: int = 0
    folded: int = 0
    filled: int = 0
    unmatched: int = 0
    skipped_days: int = 0
    requested_days: int = 0
    weight: int = 0
    seconds: float = 0.0
    refused_symbols: tuple[str, ...] = ()
    differences: Differences = field(default_factory=Differences)

    def report(self) -> dict[str, object]:
        """All of it, as JSON has it."""
        return _plain(self) | {
            "refused_symbols": list(self.refused_symbols),
            "candles_per_s": round(self.fetched / self.seconds) if self.seconds else 0,
            "weight_per_min": round(self.weight / self.seconds * 60) if self.seconds else 0,
            "differences": self.differences.report(),
        }


@dataclass(slots=True)
class FileSummary:
    """What files brought.

    `rows` are klines, `trades` trades read; `written` candles that are new or better than what was there, `equal` those that
    were there already, `refused` those the database knew better; `filled` minutes that files of klines lack; `off_grid` rows
    that open at no candle's open; `repeated` rows told twice; `contradicting` candles of which one file has different rows, and
    `unproven` last candles of files that may still have been running: neither is verified; `unproven_trades` of a kind that klagg does
    not know or with an amount missing: their minutes are not proven; `broken_minutes` that klines of a second
    do not fill; `checksums` files that a checksum beside them was held to; `tally` what became of trades, `passed_over` the other
    messages of recordings, `other_symbols` and `other_markets` files of those that are not wanted; `taken` files by what they were
    taken for.
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
    repeated: int = 0
    contradicting: int = 0
    unproven: int = 0
    unproven_trades: int = 0
    broken_minutes: int = 0
    checksums: int = 0
    other_symbols: int = 0
    other_markets: int = 0
    seconds: float = 0.0
    taken: Counter[str] = field(default_factory=Counter)
    tally: Counter[str] = field(default_factory=Counter)
    passed_over: Counter[str] = field(default_factory=Counter)
    differences: Differences = field(default_factory=Differences)

    def report(self) -> dict[str, object]:
        """All of it, as JSON has it."""
        tallies = {"taken": dict(self.taken), "tally": dict(self.tally), "passed_over": dict(self.passed_over)}
        return _plain(self) | tallies | {"differences": self.differences.report()}


def _plain(summary: BackfillSummary | FileSummary) -> dict[str, object]:
    values = {one.name: getattr(summary, one.name) for one in fields(summary)}
    return {name: value for name, value in values.items() if isinstance(value, int | float)}
