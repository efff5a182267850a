"""What the name of an archive file says: symbol, kind, and the time it covers.

Names are `<SYMBOL>-<trades|aggTrades|interval>-<YYYY-MM[-DD]>`, then `.csv` and perhaps `.zip`, `.gz` or `.zst`
(data.binance.vision). The month interval is spelled `1mo` there.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from klagg.interval import BY_NAME, DAY_MS, Interval

_NAME: Final = re.compile(
    r"(?P<prefix>(?:spot|usdm|coinm|um|cm)_)?(?P<symbol>[^-./]+)-(?P<kind>trades|aggTrades|\d+(?:mo|[mhdwM]))"
    r"-(?P<year>\d{4})-(?P<month>\d\d)(?:-(?P<day>\d\d))?(?:\.csv)?(?:\.(?:zip|gz|zst))?"
)


@dataclass(frozen=True, slots=True)
class ArchiveName:
    """The parts of an archive file's name; `interval` is None for trades, `start_ms`..`end_ms` is its day or month."""

    symbol: str
    kind: str
    interval: Interval | None
    start_ms: int
    end_ms: int
    official: bool
    """Whether it is exactly as the exchange spells it; a name with a market before it may be somebody's excerpt."""


def archive_name(path: Path) -> ArchiveName | None:
    """The parts of an archive file's name, or None where it is named otherwise."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        return None
    kind = match["kind"]
    interval = None
    if kind not in {"trades", "aggTrades"}:
        interval = BY_NAME.get(kind.replace("mo", "M"))
        if interval is None:
            return None
        kind = "klines"
    try:
        start = datetime(int(match["year"]), int(match["month"]), int(match["day"] or 1), tzinfo=UTC)
    except ValueError:
        return None
    start_ms = int(start.timestamp()) * 1000
    end_ms = start_ms + DAY_MS if match["day"] else BY_NAME["1M"].next_open(start_ms)
    return ArchiveName(match["symbol"], kind, interval, start_ms, end_ms, official=match["prefix"] is None)


def coverage(path: Path) -> tuple[int, int] | None:
    """The day or month `[start_ms, end_ms)` that an official archive file covers whole, or None for any other file."""
    name = archive_name(path)
    return (name.start_ms, name.end_ms) if name is not None and name.official else None
