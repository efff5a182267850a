"""What the name of an archive file says: symbol, kind, and the time it covers.

Names are `<SYMBOL>-<trades|aggTrades|interval>-<YYYY-MM[-DD]>`, then `.csv` and perhaps `.zip`, `.gz` or `.zst`
(data.binance.vision). The month interval is spelled `1mo` there.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from klagg.archive.layout import FileMarket
from klagg.archive.text import member_name
from klagg.errors import FileFormatError, UsageError
from klagg.interval import BY_NAME, DAY_MS, Interval
from klagg.model import Market

_NAME: Final = re.compile(
    r"(?P<prefix>(?:spot|usdm|coinm|um|cm)[_-])?(?P<symbol>[^-./]+)-(?P<kind>trades|aggTrades|\d+(?:mo|[smhdwM]))"
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


def archive_name(path: Path) -> ArchiveName | None:
    """The parts of an archive file's name, or None where it is named otherwise."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        return None
    kind = match["kind"]
    interval = None
    if kind not in {"trades", "aggTrades"}:
        # Klines of a second are folded to minutes.
        interval = BY_NAME.get("1m" if kind == "1s" else kind.replace("mo", "M"))
        if interval is None:
            return None
        kind = "klines"
    try:
        start = datetime(int(match["year"]), int(match["month"]), int(match["day"] or 1), tzinfo=UTC)
    except ValueError:
        return None
    start_ms = int(start.timestamp()) * 1000
    end_ms = start_ms + DAY_MS if match["day"] else BY_NAME["1M"].next_open(start_ms)
    return ArchiveName(match["symbol"].upper(), kind, interval, start_ms, end_ms)


# What a path says of its file


_MARKETS: Final[dict[str, FileMarket]] = {
    **dict.fromkeys(("spot",), Market.SPOT),
    **dict.fromkeys(("um", "usdm", "usd-m"), Market.USDM),
    **dict.fromkeys(("cm", "coinm", "coin-m"), "coinm"),
}
"""The names of folders, and of what stands before a file's name, that tell a market (the exchange's archive: `futures/um`)."""
_OTHER_KLINES: Final = {
    "markpriceklines": "mark prices",
    "indexpriceklines": "prices of an index",
    "premiumindexklines": "premiums",
}
"""Klines that are not of trades, by the name of their folder in the exchange's archive."""
_COIN_MARGINED: Final = re.compile(r"[A-Z0-9]+USD_(?:PERP|\d{6})")


def market_of_path(path: Path) -> FileMarket | None:
    """The market that a path says its file is of, the nearest folder first; None where it says nothing."""
    parts = [part.lower() for part in path.parts]
    parts.append(re.split(r"[_-]", parts[-1])[0])
    return next((_MARKETS[part] for part in reversed(parts) if part in _MARKETS), None)


def refuse_other_market(path: Path, symbol: str, market: Market) -> None:
    """Refuse a file that its path, or its symbol, says to be of another market.

    Raises:
        UsageError: what the path says, and what was asked for.

    """
    said = "coinm" if _COIN_MARGINED.fullmatch(symbol) else market_of_path(path)
    if said == "coinm":
        raise UsageError(f"{path}: {symbol} is coin-margined, whose volumes are contracts: klagg does not read these")
    if said is not None and said is not market:
        raise UsageError(f"{path}: its path says {said}, the command {market}: give --market {said}, or move the file")


def refuse_microseconds(path: Path, time: str, market: Market) -> None:
    """Refuse times in microseconds where nobody chose the market: since 2025 spot's archive has them, USDT-M's has not.

    Raises:
        UsageError: what the times say.

    """
    if len(time.partition(".")[0]) == _MICROSECONDS:
        raise UsageError(
            f"{path}: its times are in microseconds, as those of spot are: give --market spot (or --market {market} if it is so)"
        )


_MICROSECONDS: Final = 16


def refuse_other_klines(path: Path) -> None:
    """Refuse klines that the path, or the name within a zip, says not to be of trades.

    Raises:
        FileFormatError: what they are.

    """
    for part in (*path.parts, *Path(member_name(path)).parts):
        text = "".join(letter for letter in part.lower() if letter.isalnum())
        for name, what in _OTHER_KLINES.items():
            if name in text:
                raise FileFormatError(f"{path}: klines of {what} are no candles of trades (its path says {part})")
