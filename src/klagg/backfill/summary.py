"""What a backfill tells: how far it is, and what it did."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class FileSummary:
    """What archive files of klines brought."""

    files: int
    rows: int
    written: int
    folded: int
    off_grid: int
