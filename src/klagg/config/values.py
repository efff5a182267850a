"""What people write on the command line, in the environment and in `klagg.toml`, parsed once.

Every function raises `UsageError` with one line that names the text, what was expected and what to write instead.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Final
from urllib.parse import urlsplit

from klagg.errors import UsageError
from klagg.interval import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from klagg.model import Market

ALL: Final = "all"
"""The word for every symbol."""

_UNITS_MS: Final = {
    "w": 7 * DAY_MS,
    "d": DAY_MS,
    "h": HOUR_MS,
    "m": MINUTE_MS,
    "s": SECOND_MS,
    "ms": 1,
}
_DURATION_PART: Final = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)(ms|[wdhms])", re.ASCII)
_SYMBOL: Final = re.compile(r"[^\s/:,'\"\\=!\x00-\x1f]{1,40}")
_CCXT: Final = re.compile(r"([^/:\s]+)/([^/:\s]+?)(?::([^/:\s-]+)(?:-(\d{6}))?)?")
_LAST_TIME_MS: Final = 253_402_300_800_000
"""The year 10000: no later instant is meant."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A ready `; did you mean …?` for the known name closest to a word, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def parse_duration_ms(text: str) -> int:
    """Milliseconds of a duration as people write it: `2d`, `90m`, `1h30m`, `500ms`, `0`."""
    written = text.strip().lower()
    if written == "0":
        return 0
    parts = _DURATION_PART.findall(written)
    if not parts or "".join(amount + unit for amount, unit in parts) != written:
        raise UsageError(f"{text!r} is not a duration: write for example 2d, 12h, 90m, 1h30m or 30s")
    return round(sum(float(amount) * _UNITS_MS[unit] for amount, unit in parts))


def parse_time_ms(text: str, now_ms: int) -> int:
    """An instant, UTC ms: ISO 8601 (UTC where it names no zone), milliseconds, `-7d` from now, `today`, `now`."""
    written = text.strip()
    lowered = written.lower()
    today_ms = now_ms - now_ms % DAY_MS
    named = {"now": now_ms, "today": today_ms, "yesterday": today_ms - DAY_MS}
    if lowered in named:
        return named[lowered]
    if lowered.startswith(("-", "+")):
        sign = -1 if lowered[0] == "-" else 1
        return now_ms + sign * parse_duration_ms(lowered[1:])
    if written.isascii() and written.isdigit():
        if 11 <= len(written) <= 15 and int(written) < _LAST_TIME_MS:
            return int(written)
        raise UsageError(f"{text!r} is not a time in milliseconds: write 13 digits, or a date such as 2025-07-30")
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        expected = "ISO 8601 (2025-07-30, 2025-07-30T12:00Z), milliseconds, -7d, today or now"
        raise UsageError(f"{text!r} is not a time: write {expected}") from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return round(moment.timestamp() * 1_000)


def parse_range_ms(start: str | None, end: str | None, now_ms: int) -> tuple[int | None, int | None]:
    """A half-open range; an end that was not written is None."""
    start_ms = None if start is None else parse_time_ms(start, now_ms)
    end_ms = None if end is None else parse_time_ms(end, now_ms)
    if start_ms is not None and end_ms is not None and start_ms >= end_ms:
        raise UsageError(f"the range is empty: --start {start} is not before --end {end}")
    return start_ms, end_ms


def split_list(texts: Iterable[str]) -> tuple[str, ...]:
    """The words of lists written with commas, blanks, or one by one; each once, in order."""
    words = (word for text in texts for word in re.split(r"[,\s]+", text))
    return tuple(dict.fromkeys(word for word in words if word))


def parse_market(text: str) -> Market:
    """`usdm` or `spot`."""
    try:
        return Market(text.strip().lower())
    except ValueError:
        known = " or ".join(market.value for market in Market)
        raise UsageError(f"unknown market {text!r}: use {known}") from None


def parse_symbol(text: str, market: Market) -> str | None:
    """The exchange's name of a symbol or a glob, `all` kept; None if it is plainly one of the other market.

    Understood beside the exchange's own names are those of ccxt: `BTC/USDT` (spot, and taken for the perpetual on usdm),
    `BTC/USDT:USDT` (perpetual), `BTC/USDT:USDT-251226` (delivery).
    """
    written = text.strip()
    if written.lower() == ALL:
        return ALL
    match = _CCXT.fullmatch(written)
    if match is None:
        if not _SYMBOL.fullmatch(written):
            raise UsageError(f"{text!r} is no symbol: write BTCUSDT, BTC/USDT:USDT, a glob such as '*USDT', or all")
        return written.upper()
    base, quote, settle, expiry = (part and part.upper() for part in match.groups())
    if settle is not None and settle != quote:
        raise UsageError(
            f"{text!r} is coin-margined, which klagg does not read: use a symbol settled in its quote asset"
        )
    if settle is not None and market is Market.SPOT:
        return None
    return f"{base}{quote}_{expiry}" if expiry else f"{base}{quote}"


@dataclass(frozen=True, slots=True)
class SymbolFilter:
    """Which symbols of one market are wanted: exact names, globs, or all of them."""

    market: Market
    patterns: tuple[str, ...]

    @classmethod
    def parse(cls, texts: Iterable[str], market: Market) -> "SymbolFilter":
        """The filter of one market from what was written (for all markets together).

        Raises:
            UsageError: not a symbol, or none of them can be of this market.

        """
        words = split_list(texts)
        patterns = tuple(symbol for word in words if (symbol := parse_symbol(word, market)) is not None)
        if not patterns:
            written = f"{', '.join(words)} names perpetuals only" if words else "none was given"
            raise UsageError(f"no symbol is wanted of market {market.value}: {written}; use all, or another --market")
        return cls(market, patterns)

    @property
    def wants_all(self) -> bool:
        """Whether every symbol is wanted."""
        return ALL in self.patterns

    def wants(self, symbol: str) -> bool:
        """Whether a symbol, named as the exchange does, is wanted."""
        return self.wants_all or any(fnmatchcase(symbol, pattern) for pattern in self.patterns)

    def resolve(self, known: Iterable[str]) -> tuple[str, ...]:
        """The wanted ones of the known symbols, in their order.

        Raises:
            UsageError: a name is not known, or a glob matches nothing.

        """
        known = tuple(known)
        for pattern in self.patterns:
            if pattern == ALL or any(fnmatchcase(symbol, pattern) for symbol in known):
                continue
            if any(char in pattern for char in "*?["):
                raise UsageError(
                    f"the glob {pattern!r} matches none of the {len(known)} symbols of {self.market.value}"
                )
            raise UsageError(f"unknown symbol {pattern!r} on market {self.market.value}{nearest(pattern, known)}")
        return tuple(symbol for symbol in known if self.wants(symbol))


def parse_urls(
    texts: Sequence[str], markets: Sequence[Market], setting: str, schemes: Sequence[str]
) -> dict[Market, str]:
    """Base URLs by market, from `URL` (one market runs) or `spot=URL`, `usdm=URL`; no trailing slash."""
    urls: dict[Market, str] = {}
    for text in texts:
        name, equals, rest = text.partition("=")
        if equals and name.strip().lower() in {market.value for market in Market}:
            market, url = parse_market(name), rest.strip()
        elif len(markets) == 1:
            market, url = markets[0], text.strip()
        else:
            raise UsageError(f"{setting} {text!r}: several markets run, so write spot=URL and usdm=URL")
        urls[market] = _checked_url(url, setting, schemes)
    return urls


def _checked_url(url: str, setting: str, schemes: Sequence[str]) -> str:
    expected = " or ".join(f"{scheme}://HOST[:PORT]" for scheme in schemes)
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - reading it is what checks it
    except ValueError as error:
        raise UsageError(f"{setting} {url!r} is no URL ({error}): write {expected}") from None
    if parts.scheme not in schemes or not parts.hostname or parts.query or parts.fragment:
        raise UsageError(f"{setting} {url!r} is no base URL: write {expected}")
    return url.rstrip("/")


def parse_margin(text: str | int) -> int | None:
    """A margin in ms, 0 to 10,000; None for `auto`."""
    written = str(text).strip().lower()
    if written == "auto":
        return None
    if not (written.isascii() and written.isdigit()) or len(written) > 5 or int(written) > 10_000:
        raise UsageError(f"margin_ms {text!r}: write a whole number of milliseconds from 0 to 10000, or auto")
    return int(written)


def parse_endpoint(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT` (`[::1]:8420` for IPv6)."""
    try:
        parts = urlsplit(f"//{text.strip()}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if host is None or port is None or parts.path:
        raise UsageError(f"{text!r} is no HOST:PORT: write for example 127.0.0.1:8420")
    return host, port


def one_of(text: str, known: Sequence[str] | Mapping[str, object], what: str) -> str:
    """The text if it is one of the known words."""
    if text in known:
        return text
    raise UsageError(f"unknown {what} {text!r}: use {', '.join(known)}{nearest(text, known)}")
