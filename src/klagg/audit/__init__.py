"""Audit: the database against the exchange.

Closed, settled candles are compared, field by field as decimals, with the exchange's own by REST.

| module | is about |
|---|---|
| `planning` | which candles: what a series is expected to hold, cut into pieces, and random older ones |
| `comparing` | two candles as exact decimals |
| `judging` | one piece: what is wrong with it, and mending it in one transaction |
| `auditor` | asking, judging, mending, counting |
| `report` | what was found |
"""

from klagg.audit.auditor import Auditor, OnRepaired
from klagg.audit.planning import AGE_MS, Coverage, Piece, covered, pieces, samples
from klagg.audit.report import Finding, Kind, Report

__all__ = [
    "AGE_MS",
    "Auditor",
    "Coverage",
    "Finding",
    "Kind",
    "OnRepaired",
    "Piece",
    "Report",
    "covered",
    "pieces",
    "samples",
]
