"""Instruments and candles to put into a store, and a store with its one owner."""

from dataclasses import dataclass

import numpy as np

from klagg.interval import MINUTE, MINUTE_MS, Interval
from klagg.model import LAST_TRADE, VIRTUAL_SHARDS, Candles, Flag, Instrument, Market, Origin, Status, no_candles
from klagg.store import Claim, Commit, CommitResult, SqliteStore

T0 = 1_700_006_400_000
"""A minute, an hour: 2023-11-15T00:00:00Z."""
SHARDS = range(VIRTUAL_SHARDS)
SYMBOLS = ("BTCUSDT", "ETHUSDT", "币安人生USDT")


def instrument(symbol: str, **changes) -> Instrument:
    facts = {"market": Market.USDM, "symbol": symbol, "status": Status.TRADING, "price_scale": 2, "qty_scale": 3}
    return Instrument(**{**facts, **changes})


def candle(
    open_ms: int = T0, *, interval: Interval = MINUTE, closed=True, verified=False, amended=False, **columns
) -> Candles:
    one = no_candles(1)
    defaults = {"open": 100, "high": 120, "low": 90, "close": 110, "volume_lo": 5_000, "quote_lo": 550_000, "trades": 4}
    defaults |= {"taker_volume_lo": 1_000, "taker_quote_lo": 110_000, "first_id": 7, "last_id": 10}
    defaults |= {"origin": Origin.TRADES, "price_scale": 2, "qty_scale": 3}
    for name, value in (defaults | columns).items():
        one[name] = value
    one["open_ms"], one["interval"] = open_ms, interval.code
    one["flags"] = Flag.CLOSED * closed | Flag.VERIFIED * verified | Flag.AMENDED * amended
    return one


def flat(open_ms: int = T0, *, price: int = 110, **columns) -> Candles:
    """A candle without trades."""
    prices = dict.fromkeys(("open", "high", "low", "close"), price)
    sums = dict.fromkeys(("volume_lo", "quote_lo", "taker_volume_lo", "taker_quote_lo", "trades"), 0)
    ids = {"first_id": -1, "last_id": -1, "origin": Origin.FLAT}
    return candle(open_ms, **(prices | sums | ids | columns))


def minutes(first: int, count: int, **columns) -> Candles:
    return np.concatenate([candle(T0 + (first + n) * MINUTE_MS, **columns) for n in range(count)])


def last_trade(agg_id=5, price=110):
    trade = np.zeros(1, LAST_TRADE)
    trade["agg_id"], trade["price"], trade["price_scale"], trade["time_ms"] = agg_id, price, 2, T0
    return {"last_trades": trade}


@dataclass
class Owned:
    """A store, its instruments' ids, and the claim of its one owner."""

    store: SqliteStore
    ids: dict[str, int]
    claim: Claim

    @property
    def btc(self) -> int:
        return self.ids["BTCUSDT"]

    def commit(self, *candles: Candles, upto_ms: int = 0, instrument_id: int | None = None, **more) -> CommitResult:
        together = np.concatenate([no_candles(), *candles])
        ids = np.full(len(together), instrument_id or self.btc)
        return self.store.commit(Commit(self.claim, SHARDS, upto_ms, ids, together, **more))

    def write(self, *candles: Candles):
        together = np.concatenate(candles)
        return self.store.write(np.full(len(together), self.btc), together)

    def stored(self, interval: Interval = MINUTE) -> Candles:
        return self.store.read(self.btc, interval, 0, 2**60)
