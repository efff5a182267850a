"""What a check found."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from klagg.interval import Interval
from klagg.model import Gap, Market

MAX_FINDINGS: Final = 1_000
"""Findings kept in full, enough to see what is wrong; beyond it they are only counted."""


class Kind(StrEnum):
    """What can be wrong with a series."""

    HOLE = "hole"
    """Candles are missing; the finding's open time is that of the first."""
    MISALIGNED = "misaligned"
    """An open that is no open of the interval."""
    PRICES = "prices"
    """High and low do not contain open and close, or a price is not positive."""
    VOLUMES = "volumes"
    """A negative or malformed volume, taker volume above volume, volume without trades."""
    VALUE = "value"
    """A quote volume that no trades within the prices and the volume can make."""
    IDS = "ids"
    """Trade ids of a minute that contradict themselves or its trades, or of a longer candle that are not its minutes'."""
    SCALE = "scale"
    """A scale that no number can have, or one that contradicts the candles before and after by powers of ten."""
    ORIGIN = "origin"
    """An origin that klagg does not know."""
    MARKS = "marks"
    """Origin, verified and the number of trades contradict each other."""
    AHEAD = "ahead"
    """Closed candles after what their owner has closed, or at a time that no candle can have."""
    SNAPSHOT = "snapshot"
    """An open snapshot that is not newer than the closed candles of its series."""
    CLOSED_UPTO = "closed_upto"
    """Shards that claim to be closed up to another minute than their open snapshots show."""
    TALLY = "tally"
    """The tally of candles is not what is stored."""
    FLAT = "flat"
    """A candle without trades that is not its previous close throughout."""
    PARENT = "parent"
    """A longer candle that is not the fold of its minutes, all of which are there."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong: the series, the candle's open time, and the values at fault."""

    kind: Kind
    market: Market
    symbol: str
    interval: Interval
    open_ms: int
    values: dict[str, str | int]

    def as_dict(self) -> dict[str, Any]:
        """The finding with plain values."""
        return {
            "kind": self.kind.value,
            "market": self.market.value,
            "symbol": self.symbol,
            "interval": self.interval.name,
            "open_time_ms": self.open_ms,
            "values": self.values,
        }


@dataclass(slots=True)
class Report:
    """What was looked at and what is wrong.

    `findings` holds the first `limit`; `counts` has all, by kind. `gaps` are the spans on record as not kept: known, so
    no findings; where candles are missing there still, the hole is. `malformed` are rows of no series, and those a start
    would refuse, a line each.
    """

    limit: int = MAX_FINDINGS
    series: int = 0
    candles: int = 0
    parents_compared: int = 0
    findings: list[Finding] = field(default_factory=list)
    counts: Counter[Kind] = field(default_factory=Counter)
    gaps: list[Gap] = field(default_factory=list)
    malformed: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """All findings, kept or only counted."""
        return self.counts.total()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.total and not self.malformed

    def add(self, finding: Finding) -> None:
        """Count a finding, and keep it while there is room."""
        self.counts[finding.kind] += 1
        if len(self.findings) < self.limit:
            self.findings.append(finding)

    def as_dict(self) -> dict[str, Any]:
        """The report with plain values, as `klagg check --json` prints it."""
        return {
            "ok": self.ok,
            "series": self.series,
            "candles": self.candles,
            "parents_compared": self.parents_compared,
            "total": self.total,
            "counts": {kind.value: count for kind, count in sorted(self.counts.items())},
            "malformed": self.malformed,
            "findings": [finding.as_dict() for finding in self.findings],
            "gaps": [
                {
                    "market": gap.market.value,
                    "symbol": gap.symbol,
                    "start_ms": gap.start_ms,
                    "end_ms": gap.end_ms,
                    "reason": gap.reason,
                }
                for gap in self.gaps
            ],
        }
