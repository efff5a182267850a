"""Which events a reader wants."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from klagg.config import parse_symbol
from klagg.errors import UsageError
from klagg.interval import Interval
from klagg.model import Market
from klagg.serve.feed.page import CANDLE, GROUPS, KINDS, Page, Told
from klagg.serve.native.asking import interval_of, words_of
from klagg.serve.native.problem import Problem
from klagg.serve.source import Live

EVERYTHING: Final = Told(255)
FEW: Final = 64
"""With so many names the events of each are looked up; with more, or with globs, every event is looked at."""
MOST_WORDS: Final = 4_096
MOST_GLOBS: Final = 16


@dataclass(frozen=True, slots=True)
class Filter:
    """What is wanted; None for all. Two equal filters get the very same bytes."""

    market: Market | None = None
    symbols: frozenset[str] | None = None
    globs: tuple[str, ...] = ()
    intervals: frozenset[str] | None = None
    kinds: Told = EVERYTHING

    def wants_symbol(self, symbol: str) -> bool:
        """Whether events of a symbol are wanted; those of all symbols ("") always are."""
        if self.symbols is None or not symbol or symbol in self.symbols:
            return True
        return any(fnmatchcase(symbol, glob) for glob in self.globs)

    def wants_interval(self, interval: str) -> bool:
        """Whether events of an interval are wanted; those of none ("") always are."""
        return self.intervals is None or not interval or interval in self.intervals

    def chosen(self, page: Page) -> list[int]:
        """The places of the wanted events of a page."""
        places: list[int] | range = range(len(page.entries))
        if self.symbols is not None:
            by_symbol = page.by_symbol()
            if len(self.symbols) <= FEW and not self.globs:
                wanted = [symbol for symbol in (*self.symbols, "") if symbol in by_symbol]
            else:
                wanted = [symbol for symbol in by_symbol if self.wants_symbol(symbol)]
            places = sorted(place for symbol in wanted for place in by_symbol[symbol])
        if self.market is None and self.intervals is None and self.kinds == EVERYTHING:
            return list(places)
        entries = page.entries
        return [
            place
            for place in places
            if (self.market is None or entries[place].market is self.market)
            and entries[place].told & self.kinds
            and self.wants_interval(entries[place].interval)
        ]


def filter_of(live: Live, query: Mapping[str, str | None]) -> Filter:
    """The filter that a query's `market`, `symbols`, `intervals` and `kinds` say.

    Raises:
        Problem: one of them cannot be.

    """
    market = _market(live, query.get("market"))
    symbols, globs = symbol_filter(
        query.get("symbols") or query.get("symbol"), market or next(iter(live.markets), Market.USDM)
    )
    intervals = interval_filter(query.get("intervals") or query.get("interval"))
    return Filter(market, symbols, globs, intervals, _kinds(query.get("kinds")))


def _market(live: Live, text: str | None) -> Market | None:
    if text is None:
        return None
    try:
        market = Market(text.strip().lower())
    except ValueError:
        raise Problem("unknown_market", "The market is usdm or spot.", 400, "market") from None
    if market not in live.markets:
        raise Problem("market_not_served", f"The market {market.value} is not served here.", 404, "market")
    return market


def symbol_filter(text: str | None, market: Market) -> tuple[frozenset[str] | None, tuple[str, ...]]:
    """The names and globs of a list; None for all. A name need not be known yet: it may be listed tomorrow.

    Raises:
        Problem: a word that can be no symbol, or too many of them.

    """
    words = words_of(text)
    if not words or any(word in ("*", "all") for word in words):
        return None, ()
    names = set()
    for word in words:
        try:
            name = parse_symbol(word, market)
        except UsageError:
            raise Problem("unknown_symbol", f"{word[:40]!r} can be no symbol.", 400, "symbols") from None
        if name is not None:
            names.add(name)
    globs = tuple(sorted(name for name in names if any(char in name for char in "*?[")))
    if len(names) > MOST_WORDS or len(globs) > MOST_GLOBS:
        raise Problem("too_much", f"At most {MOST_WORDS} symbols, {MOST_GLOBS} of them globs.", 413, "symbols")
    return frozenset(names), globs


def interval_filter(text: str | None) -> frozenset[str] | None:
    """The intervals of a list; None for all.

    Raises:
        Problem: one that is none.

    """
    words = words_of(text)
    return frozenset(str(interval_of(word)) for word in words) if words else None


def _kinds(text: str | None) -> Told:
    kinds = Told(0)
    for word in words_of(text):
        found = KINDS.get(word) or GROUPS.get(word)
        if found is None:
            known = " ".join([*KINDS, *GROUPS])
            raise Problem("unknown_kind", f"{word[:40]!r} is no kind of event: use {known}.", 400, "kinds")
        kinds |= found
    return kinds or EVERYTHING


def is_kept(interval: Interval, wanted: frozenset[str] | None) -> bool:
    """Whether running candles of an interval are wanted."""
    return wanted is None or interval.name in wanted


__all__ = ["CANDLE", "EVERYTHING", "Filter", "filter_of", "interval_filter", "is_kept", "symbol_filter"]
