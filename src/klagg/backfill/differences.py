"""Where two sources tell different numbers of one candle: counted all, named some.

What the database knows to be incomplete (`filled`, `seed`, `partial`) is no second source: that it is put right is what a
backfill is for.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import structlog

from klagg.engine.fold import restated
from klagg.fixed import join, to_text
from klagg.interval import INTERVALS
from klagg.model import NUMBERS, Candles, Flag, Ints, Market, Origin

log = structlog.get_logger()

KEPT: Final = 1_000
"""Differing fields that are named in the report (200 kB of it); further ones are counted."""
LOGGED: Final = 20
"""Those among them that are logged; the rest is in the report."""

_PRICES: Final = ("open", "high", "low", "close")
_TOTALS: Final = (
    ("volume", "volume"),
    ("quote", "quote_volume"),
    ("taker_volume", "taker_buy_volume"),
    ("taker_quote", "taker_buy_quote_volume"),
)
_WHOLE: Final = (Origin.FLAT, Origin.TRADES, Origin.EXCHANGE, Origin.UNMATCHED)


@dataclass(frozen=True, slots=True)
class Difference:
    """One field of one candle that two sources have different values of."""

    symbol: str
    interval: str
    open_time: int
    field: str
    stored: str
    brought: str
    stored_from: str
    brought_from: str


@dataclass(slots=True)
class Differences:
    """What differed: `candles` in all, `fields` of each name, and the first `KEPT` of them."""

    candles: int = 0
    fields: Counter[str] = field(default_factory=Counter)
    named: list[Difference] = field(default_factory=list)

    def note(
        self,
        market: Market,
        symbol: str,
        stored: Candles,
        brought: Candles,
        source: str,
        came_from: Callable[[int], str] = lambda _open_ms: "database",
    ) -> None:
        """Compare what a source brings with what is stored of the same opens, where both claim to be whole.

        Args:
            market: the market.
            symbol: whose candles they are.
            stored: the database's.
            brought: the source's, of the same opens and interval, one for one.
            source: what the source is called.
            came_from: what the source of the stored one of an open is called, beside its origin.

        """
        both = np.flatnonzero(_is_whole(stored) & _is_whole(brought))
        if len(both) == 0:
            return
        ours, theirs = at_one_scale(stored[both], brought[both])
        for at in np.flatnonzero(~same_numbers(ours, theirs)).tolist():
            self.candles += 1
            for name, value, other in _values(ours[at : at + 1], theirs[at : at + 1]):
                self.fields[name] += 1
                if len(self.named) < KEPT:
                    open_ms = int(ours["open_ms"][at])
                    said = f"{came_from(open_ms)} ({Origin(int(ours['origin'][at])).name.lower()})"
                    interval = INTERVALS[int(ours["interval"][at])].name
                    self._name(market, Difference(symbol, interval, open_ms, name, value, other, said, source))

    def report(self) -> dict[str, object]:
        """All of it, as JSON has it."""
        return {"candles": self.candles, "fields": dict(self.fields), "named": [asdict(one) for one in self.named]}

    def _name(self, market: Market, found: Difference) -> None:
        self.named.append(found)
        if len(self.named) <= LOGGED:
            log.warning(
                "backfill.difference",
                market=market.value,
                symbol=found.symbol,
                interval=found.interval,
                open_ms=found.open_time,
                field=found.field,
                stored=found.stored,
                brought=found.brought,
                stored_from=found.stored_from,
                brought_from=found.brought_from,
            )


def matched(stored: Candles, brought: Candles) -> tuple[Ints, Ints]:
    """The positions of the same opens in both (each ascending and of one series)."""
    _, ours, theirs = np.intersect1d(stored["open_ms"], brought["open_ms"], assume_unique=True, return_indices=True)
    return ours, theirs


def at_one_scale(one: Candles, other: Candles) -> tuple[Candles, Candles]:
    """Both at scales wide enough for all."""
    price_scale = max(int(rows["price_scale"].max()) for rows in (one, other))
    qty_scale = max(int(rows["qty_scale"].max()) for rows in (one, other))
    return restated(one, price_scale, qty_scale), restated(other, price_scale, qty_scale)


def same_numbers(one: Candles, other: Candles) -> npt.NDArray[np.bool_]:
    """Where candles of one scale are equal in every number."""
    same = np.ones(len(one), np.bool_)
    for name in NUMBERS:
        same &= one[name] == other[name]
    return same


def _is_whole(candles: Candles) -> npt.NDArray[np.bool_]:
    whole: npt.NDArray[np.bool_] = np.isin(candles["origin"], _WHOLE) | (candles["flags"] & Flag.VERIFIED != 0)
    return whole


def _values(one: Candles, other: Candles) -> list[tuple[str, str, str]]:
    """The fields that differ, with both values as decimals."""
    prices, qtys = int(one["price_scale"][0]), int(one["qty_scale"][0])
    found = [
        (name, to_text(int(one[name][0]), prices), to_text(int(other[name][0]), prices))
        for name in _PRICES
        if one[name][0] != other[name][0]
    ]
    for column, name in _TOTALS:
        scale = qtys if name in ("volume", "taker_buy_volume") else prices + qtys
        totals = [join(int(rows[f"{column}_hi"][0]), int(rows[f"{column}_lo"][0])) for rows in (one, other)]
        if totals[0] != totals[1]:
            found.append((name, to_text(totals[0], scale), to_text(totals[1], scale)))
    if one["trades"][0] != other["trades"][0]:
        found.append(("trades", str(int(one["trades"][0])), str(int(other["trades"][0]))))
    return found
