"""What is asked of a reader, checked once, the same for a database and a service."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase
from typing import Final, Literal, get_args

from klagg.client.events import KINDS, Kind
from klagg.client.feed import Filter
from klagg.config import parse_market, parse_symbol, parse_time_ms, split_list
from klagg.errors import UsageError
from klagg.export import Numbers, iso
from klagg.model import Market
from klagg.serve.native.asking import LAST_MS, Named, intervals_of, zone_of
from klagg.serve.native.problem import Problem

Time = int | str | datetime | date
"""An instant: UTC milliseconds, a datetime (UTC where it has no zone), or what the command line takes (`-7d`, `2025-07-30`)."""
Verified = Literal["any", "only"]
Unmatched = Literal["keep", "drop"]
MOST_LIMIT: Final = 10_000
"""As many candles of a series as one answer of a service holds."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Candles that are asked for. `limit`: the newest of each series; `at_ms`: those that contain the instant."""

    symbols: tuple[str, ...]
    intervals: tuple[Named, ...]
    zone: str
    start_ms: int
    end_ms: int
    at_ms: int | None
    limit: int | None
    as_of_ms: int | None
    verified: Verified
    unmatched: Unmatched
    numbers: Numbers

    @property
    def has_start(self) -> bool:
        """Whether it says where the series begin; without that each begins with its first candle."""
        return self.start_ms > 0 or self.at_ms is not None


def time_ms(value: Time) -> int:
    """UTC milliseconds of an instant.

    Raises:
        UsageError: it is none.

    """
    if isinstance(value, bool):
        raise UsageError(f"{value!r} is not a time")
    if isinstance(value, int):
        return value
    if isinstance(value, datetime):
        moment = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        return round(moment.timestamp() * 1_000)
    if isinstance(value, date):
        return time_ms(datetime(value.year, value.month, value.day, tzinfo=UTC))
    return parse_time_ms(value, time.time_ns() // 1_000_000)


def words(value: str | Iterable[str], what: str) -> tuple[str, ...]:
    """A name, names with commas between, or an iterable of names.

    Raises:
        UsageError: there is none.

    """
    found = split_list([value] if isinstance(value, str) else value)
    if not found:
        raise UsageError(f"no {what} is given")
    return found


def market_of(value: str | None, there: Iterable[Market]) -> Market:
    """The market that is meant: the named one, the only one that is there, or usdm.

    Raises:
        UsageError: it is not there.

    """
    known = tuple(there)
    market = parse_market(value) if value is not None else known[0] if len(known) == 1 else Market.USDM
    if market not in known:
        raise UsageError(f"market {market.value} is not there: there is {', '.join(known) or 'none'}")
    return market


def expanded(names: Iterable[str], market: Market, there: Callable[[], Iterable[str]]) -> tuple[str, ...]:
    """The exchange's names of symbols, each once; of globs and `*` those that are `there`, by name.

    Raises:
        UsageError: no name, a name of the other market, a glob that matches nothing.

    """
    found: list[str] = []
    for written in names:
        name = parse_symbol("all" if written == "*" else written, market)
        if name is None:
            raise UsageError(f"{written!r} is a perpetual: it is on market usdm, not on {market.value}")
        if name == "all":
            found += sorted(there())
        elif set(name) & set("*?["):
            matching = sorted(symbol for symbol in there() if fnmatchcase(symbol, name))
            if not matching:
                raise UsageError(f"the glob {written!r} matches no symbol of market {market.value}")
            found += matching
        else:
            found.append(name)
    return tuple(dict.fromkeys(found))


def feed_filter(
    market: Market, symbols: str | Iterable[str], intervals: str | Iterable[str], kinds: Iterable[Kind]
) -> Filter:
    """Which events are wanted, checked.

    Raises:
        UsageError: what can be no symbol, no interval, or no kind.

    """
    wanted = frozenset(kinds)
    if unknown := wanted - set(KINDS):
        raise UsageError(f"unknown kind {min(unknown)!r}: use one of {' '.join(KINDS)}")
    # A symbol need not be known yet: it may be listed tomorrow.
    named = words(symbols, "symbol") if symbols and symbols != "*" else ()
    names = frozenset(parse_symbol(name, market) or name for name in named)
    frames = frames_of(intervals, "+00:00") if intervals else ()
    return Filter(names - {"all"}, frozenset(frame.name for frame in frames), wanted)


def frames_of(intervals: str | Iterable[str], zone: str) -> tuple[Named, ...]:
    """The intervals that are named, of any length.

    Raises:
        UsageError: one that cannot be, or no such time zone.

    """
    try:
        return tuple(intervals_of(",".join(words(intervals, "interval")), zone_of(zone)))
    except Problem as problem:
        raise UsageError(problem.message) from None


def asked(
    symbols: str | Iterable[str],
    intervals: str | Iterable[str],
    start: Time | None,
    end: Time | None,
    *,
    at: Time | None,
    limit: int | None,
    as_of: Time | None,
    tz: str | None,
    verified: Verified,
    unmatched: Unmatched,
    numbers: Numbers,
) -> Asked:
    """The question, checked.

    Raises:
        UsageError: what is wrong with it.

    """
    for name, value, known in (
        ("verified", verified, get_args(Verified)),
        ("unmatched", unmatched, get_args(Unmatched)),
        ("numbers", numbers, get_args(Numbers)),
    ):
        if value not in known:
            raise UsageError(f"{name} is {value!r}: use one of {' '.join(known)}")
    if at is not None and not (start is None and end is None and limit is None):
        raise UsageError("at is an instant by itself: give it without start, end and limit")
    if limit is not None and (not 1 <= limit <= MOST_LIMIT or start is not None):
        raise UsageError(f"limit is the number of the newest candles, 1 to {MOST_LIMIT}, and goes without start")
    start_ms, end_ms = (0 if start is None else time_ms(start)), (LAST_MS if end is None else time_ms(end))
    if start_ms >= end_ms:
        raise UsageError(f"the range is empty: it starts at {iso(start_ms)} and ends at {iso(end_ms)}")
    zone = tz or "+00:00"
    return Asked(
        words(symbols, "symbol"),
        frames_of(intervals, zone),
        zone,
        max(start_ms, 0),
        min(end_ms, LAST_MS),
        None if at is None else max(0, min(time_ms(at), LAST_MS)),
        limit,
        None if as_of is None else max(0, min(time_ms(as_of), LAST_MS)),
        verified,
        unmatched,
        numbers,
    )
