"""The trades that the engine's figures are measured on: a made market of the size of an exchange."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from klagg.engine.engine import Engine
from klagg.interval import DEFAULT_INTERVALS, MINUTE_MS
from klagg.model import TRADE, Origin, Trades

SYMBOLS = 500
TRADES = 2_000_000
SPAN_MS = 120 * MINUTE_MS
MONDAY_MS = 1_699_833_600_000
"""2023-11-13T00:00Z."""
START_MS = MONDAY_MS + 3_600_000


@dataclass(frozen=True)
class Market:
    """`trades` as a feed brings them: times ascend, ids run without a hole in each symbol.

    Which symbol trades is Zipf's: the first has a seventh of all trades, the last hundred have one or two a minute each.
    """

    trades: Trades
    price_scales: npt.NDArray[np.int64]
    qty_scales: npt.NDArray[np.int64]
    first_prices: npt.NDArray[np.int64]

    def engine(self, start_ms: int = START_MS) -> Engine:
        """An engine that has taken these symbols in and knows the id before the first of each."""
        engine = Engine(DEFAULT_INTERVALS, capacity=len(self.price_scales))
        for price_scale, qty_scale, price in zip(self.price_scales, self.qty_scales, self.first_prices, strict=True):
            engine.add(int(price_scale), int(qty_scale), start_ms, int(price), Origin.FILLED)
        engine.sight(range(len(self.price_scales)), start_ms)
        return engine


@cache
def market(trades: int = TRADES, symbols: int = SYMBOLS) -> Market:
    random = np.random.default_rng(20_231_113)
    weights = 1 / np.arange(1, symbols + 1)
    slots = random.choice(symbols, trades, p=weights / weights.sum())
    price_scales, qty_scales = random.integers(2, 8, symbols), random.integers(0, 5, symbols)
    first_prices = np.exp(random.uniform(np.log(1e3), np.log(1e8), symbols)).astype(np.int64)
    made = np.zeros(trades, TRADE)
    made["slot"] = slots
    made["price_scale"], made["qty_scale"] = price_scales[slots], qty_scales[slots]
    made["buyer_is_maker"] = random.integers(0, 2, trades)
    made["agg_id"] = 1_000_000 + count_within(slots)
    made["first_id"] = made["agg_id"] * 3
    made["last_id"] = made["first_id"] + random.integers(0, 3, trades)
    made["price"] = np.maximum(first_prices[slots] * np.exp(random.normal(0, 2e-3, trades)), 1)
    made["qty"] = np.exp(random.uniform(0, np.log(1e7), trades))
    # A minute's first trade comes after its boundary, as it does after the tick.
    made["time_ms"] = START_MS + 1 + np.sort(random.integers(0, SPAN_MS, trades))
    return Market(made, price_scales, qty_scales, first_prices)


def count_within(slots: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How many earlier places hold the same slot."""
    order = np.argsort(slots, kind="stable")
    sizes = np.bincount(slots)
    counts = np.empty(len(slots), np.int64)
    counts[order] = np.arange(len(slots)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return counts


def disturbed(calm: Trades, share: float = 0.02) -> Trades:
    """The same trades as two merged connections bring them: that share comes twice, and that share a place too late."""
    random = np.random.default_rng(7)
    order = np.arange(len(calm))
    late = random.choice(len(calm) - 1, int(share * len(calm)), replace=False)
    order[late], order[late + 1] = order[late + 1], order[late].copy()
    twice = np.sort(random.choice(len(calm), int(share * len(calm)), replace=False))
    return calm[np.insert(order, twice, order[twice])]
