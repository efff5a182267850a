"""What an audit found: counts, by symbol and altogether, and the findings themselves up to a bound."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from klagg.interval import Interval
from klagg.model import Market

MAX_FINDINGS: Final = 1_000
"""Findings kept in full, enough to see what is wrong; beyond it they are only counted."""


class Kind(StrEnum):
    """What can be wrong with a candle, seen against the exchange's."""

    VERIFIED_DIFFERS = "verified_differs"
    """Marked verified, and its numbers are not the exchange's: the gravest, since it breaks a promise."""
    DIFFERS = "differs"
    """Not marked verified, and its numbers are not the exchange's."""
    MISSING = "missing"
    """The exchange has a candle where the series has none."""
    EXTRA = "extra"
    """The series has a candle where the exchange has none, or where none can be; not one that is on record as unmatched."""
    UNMATCHED_THERE = "unmatched_there"
    """On record as unmatched, and the exchange has it after all."""


FAULTY: Final = (Kind.VERIFIED_DIFFERS, Kind.DIFFERS, Kind.UNMATCHED_THERE)


@dataclass(frozen=True, slots=True)
class Finding:
    """One candle: the series, its open time, and by field what we have and what the exchange has."""

    kind: Kind
    market: Market
    symbol: str
    interval: Interval
    open_ms: int
    fields: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The finding with plain values."""
        return {
            "kind": self.kind.value,
            "market": self.market.value,
            "symbol": self.symbol,
            "interval": self.interval.name,
            "open_time_ms": self.open_ms,
            "fields": {name: {"database": ours, "exchange": theirs} for name, (ours, theirs) in self.fields.items()},
            "note": self.note,
        }


@dataclass(slots=True)
class Report:
    """What was compared and what is wrong.

    `equal_verified` and `equal_unverified` candles have the exchange's numbers; `unmatched` ones are on record as candles the
    exchange has none for, and it has none. `undecided` ones are too young to say, or the exchange gave two answers.
    `repaired` are findings whose candle now is the exchange's (or is gone, or on record as unmatched); `verified` are equal
    ones that the repair marked so. `requests` and `weight` are what the comparison cost.
    """

    limit: int = MAX_FINDINGS
    series: int = 0
    equal_verified: int = 0
    equal_unverified: int = 0
    unmatched: int = 0
    undecided: int = 0
    repaired: int = 0
    verified: int = 0
    requests: int = 0
    weight: int = 0
    findings: list[Finding] = field(default_factory=list)
    counts: Counter[Kind] = field(default_factory=Counter)
    by_symbol: dict[str, Counter[Kind]] = field(default_factory=dict)
    refused_symbols: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """All findings, kept or only counted."""
        return self.counts.total()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong, or is any more."""
        return self.repaired >= self.total

    @property
    def equal(self) -> int:
        """Candles that have the exchange's numbers."""
        return self.equal_verified + self.equal_unverified

    @property
    def compared(self) -> int:
        """Candles that both have."""
        return self.equal + sum(self.counts[kind] for kind in FAULTY)

    @property
    def drift(self) -> float:
        """The share of the compared candles whose numbers are not the exchange's."""
        return sum(self.counts[kind] for kind in FAULTY) / max(self.compared, 1)

    def add(self, finding: Finding) -> None:
        """Count a finding, and keep it while there is room."""
        self.counts[finding.kind] += 1
        self.by_symbol.setdefault(finding.symbol, Counter())[finding.kind] += 1
        if len(self.findings) < self.limit:
            self.findings.append(finding)

    def as_dict(self) -> dict[str, Any]:
        """The report with plain values, as `klagg audit --json` prints it."""
        return {
            "ok": self.ok,
            "series": self.series,
            "compared": self.compared,
            "equal_verified": self.equal_verified,
            "equal_unverified": self.equal_unverified,
            "unmatched": self.unmatched,
            "undecided": self.undecided,
            "drift": self.drift,
            "total": self.total,
            "counts": {kind.value: self.counts[kind] for kind in Kind},
            "repaired": self.repaired,
            "verified": self.verified,
            "by_symbol": {
                symbol: {kind.value: count for kind, count in sorted(counts.items())}
                for symbol, counts in sorted(self.by_symbol.items())
            },
            "refused_symbols": sorted(set(self.refused_symbols)),
            "findings": [finding.as_dict() for finding in self.findings],
            "requests": self.requests,
            "weight": self.weight,
        }
