"""What is asked for, out of the text of a query: market, symbols, intervals of any length, times, time zone."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from klagg.config import parse_symbol, parse_time_ms
from klagg.errors import UsageError
from klagg.interval import BY_NAME, DAY_MS, HOUR_MS, INTERVALS, MINUTE_MS, Interval
from klagg.model import Market
from klagg.serve.native.problem import Problem
from klagg.serve.source import Frame, Listing, Live

OTHER_CODE: Final = 15
"""The code of intervals that are none of the exchange's: above all others, so that each of these can be its piece."""
LONGEST_MS: Final = 400 * DAY_MS
LAST_MS: Final = 253_402_300_799_000
"""The last second of the year 9999: no later time is meant, and none before 1970."""
MOST_INTERVALS: Final = 64
_OTHER: Final = re.compile(r"([1-9][0-9]{0,6})([mhdw])", re.ASCII)
_STEPS: Final = {"m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS, "w": 7 * DAY_MS}
_ZONE: Final = re.compile(r"([+-]?)(\d{1,2})(?::?([0-5]\d))?", re.ASCII)
_LOST_PLUS: Final = re.compile(r" (\d\d:?\d\d)$", re.ASCII)
"""A plus sign that was not written as %2B arrives as a blank."""
_WORDS: Final = re.compile(r"[,\s]+")


@dataclass(frozen=True, slots=True)
class Named:
    """A frame and the name by which it is asked for and answered."""

    name: str
    frame: Frame


def market_of(live: Live, text: str | None) -> Market:
    """The market of a request: the named one, the only one that is served, or usdm.

    Raises:
        Problem: unknown, not served, or still starting.

    """
    if text is None:
        served = live.markets
        market = served[0] if len(served) == 1 else Market.USDM
    else:
        try:
            market = Market(text.strip().lower())
        except ValueError:
            raise Problem("unknown_market", "The market is usdm or spot.", 400, "market") from None
    if market not in live.markets:
        raise Problem("market_not_served", f"The market {market.value} is not served here.", 404, "market")
    if not live.is_live(market):
        raise Problem("starting", f"The market {market.value} is still starting: try again soon.", 503, "market")
    return market


def words_of(text: str | None) -> list[str]:
    """The words of a list, each once."""
    return list(dict.fromkeys(word for word in _WORDS.split(text or "") if word))


def symbols_of(listings: Mapping[str, Listing], text: str | None, market: Market) -> list[Listing]:
    """The symbols that a list names: names, ccxt's names, globs, `*` for all.

    Raises:
        Problem: none is named, or one is not known.

    """
    words = words_of(text)
    if not words:
        raise Problem(
            "missing_parameter", "Say which symbols: names with commas between, or * for all.", 400, "symbols"
        )
    found: dict[str, Listing] = {}
    for word in words:
        if word in listings:
            found[word] = listings[word]
        elif word in ("*", "all"):
            found |= listings
        else:
            found |= _matching(listings, word, market)
    return list(found.values())


def _matching(listings: Mapping[str, Listing], word: str, market: Market) -> dict[str, Listing]:
    try:
        name = parse_symbol(word, market)
    except UsageError:
        name = None
    if name is not None and name in listings:
        return {name: listings[name]}
    if name is not None and any(char in name for char in "*?"):
        chosen = {symbol: one for symbol, one in listings.items() if fnmatchcase(symbol, name)}
        if chosen:
            return chosen
    raise Problem(
        "unknown_symbol", f"{word[:40]!r} is no symbol of {market.value}; /v1/symbols lists them.", 404, "symbols"
    )


def intervals_of(text: str | None, shift_ms: int = 0) -> list[Named]:
    """The intervals that a list names, with their candles cut in a time zone; `1m` where none is named.

    Raises:
        Problem: one that cannot be.

    """
    words = words_of(text) or ["1m"]
    if len(words) > MOST_INTERVALS:
        raise Problem("too_much", f"At most {MOST_INTERVALS} intervals may be asked for at once.", 413, "intervals")
    named = [interval_of(word) for word in words]
    return [Named(interval.name, Frame(interval, shift_ms).plain) for interval in dict.fromkeys(named)]


def interval_of(word: str) -> Interval:
    """An interval of any length: the exchange's, or whole minutes, hours, days or weeks.

    Candles of other lengths are counted from 1970, weeks from a Monday.

    Raises:
        Problem: no such interval.

    """
    if word in BY_NAME:
        return BY_NAME[word]
    match = _OTHER.fullmatch(word)
    step_ms = 0 if match is None else int(match[1]) * _STEPS[match[2]]
    if match is None or step_ms > LONGEST_MS:
        raise Problem(
            "unknown_interval",
            f"{word[:20]!r} is no interval: write minutes, hours, days or weeks up to 400 days (2m, 45m, 1h, 1d, 1w), or 1M.",
            400,
            "intervals",
        )
    anchor_ms = BY_NAME["1w"].anchor_ms if match[2] == "w" else 0
    for known in INTERVALS:
        if known.step_ms == step_ms and (known.anchor_ms - anchor_ms) % step_ms == 0:
            return known
    return Interval(word, OTHER_CODE, step_ms, anchor_ms % step_ms)


def zone_of(text: str | None) -> int:
    """The offset of a time zone east of UTC: `+08:00`, `-3`, `0530`.

    Raises:
        Problem: none, or beyond a day's edge.

    """
    match = _ZONE.fullmatch((text or "0").strip())
    minutes = 0 if match is None else (int(match[2]) * 60 + int(match[3] or 0)) * (-1 if match[1] == "-" else 1)
    if match is None or not -12 * 60 <= minutes <= 14 * 60:
        raise Problem("bad_timezone", "A time zone is an offset from -12:00 to +14:00, such as +08:00.", 400, "tz")
    return minutes * MINUTE_MS


def time_of(text: str | None, now_ms: int, parameter: str) -> int | None:
    """An instant as the command line takes it, and milliseconds of any size; within 1970 to 9999.

    Raises:
        Problem: it is none.

    """
    if text is None:
        return None
    written = _LOST_PLUS.sub(r"+\1", text.strip())
    if written.isascii() and written.isdigit() and len(written) <= 15:
        return min(int(written), LAST_MS)
    try:
        return max(0, min(parse_time_ms(written, now_ms), LAST_MS))
    except (UsageError, ValueError, OverflowError):
        raise Problem(
            "bad_time", "A time is milliseconds, ISO 8601 (2025-07-30T12:00Z), -7d, today or now.", 400, parameter
        ) from None


def one_symbol(listings: Mapping[str, Listing], text: str | None, market: Market) -> Listing:
    """The one symbol that is named.

    Raises:
        Problem: none, more than one, or one that is not known.

    """
    found: Sequence[Listing] = symbols_of(listings, text, market)
    if len(found) != 1:
        raise Problem("bad_parameter", "Name one symbol.", 400, "symbol")
    return found[0]
