import itertools

import numpy as np
import pytest

from klagg.errors import UsageError
from klagg.model import Market
from klagg.sim import ExchangeSettings, ListingEvent, Venue
from klagg.sim.calendar import DAY_MS, HOUR_MS
from sim.client import START_MS


def venue(**settings) -> Venue:
    return Venue.synthetic(ExchangeSettings(**{"start_ms": START_MS, "history_ms": 2 * DAY_MS} | settings))


def test_the_same_seed_makes_the_same_trades_whenever_it_is_started():
    one, other = venue(), venue(start_ms=START_MS + 5 * HOUR_MS, history_ms=3 * DAY_MS)
    span = (START_MS - HOUR_MS - 17, START_MS + 12_345)
    for ours, theirs in zip(
        one.trades("ETHUSDT", *span).columns(), other.trades("ETHUSDT", *span).columns(), strict=True
    ):
        assert len(ours) > 1_000
        assert np.array_equal(ours, theirs)


def test_another_seed_makes_others():
    span = (START_MS - HOUR_MS, START_MS)
    assert not np.array_equal(
        venue().trades("ETHUSDT", *span).time_ms[:50], venue(seed=2).trades("ETHUSDT", *span).time_ms[:50]
    )


@pytest.mark.parametrize("market", list(Market))
@pytest.mark.parametrize("symbol", ["ETHUSDT", "币安人生USDT", "CELRUSDT"])
def test_ids_run_on_across_hours_and_days(market, symbol):
    trades = venue(market=market, symbols=50).trades(symbol, START_MS - 2 * DAY_MS, START_MS + DAY_MS)
    assert len(trades) > 100
    assert np.all(np.diff(trades.agg_id) == 1)
    assert np.all(np.diff(trades.time_ms) >= 0)
    assert np.all(trades.last_id >= trades.first_id)
    steps = trades.first_id[1:] - trades.last_id[:-1]
    if market is Market.SPOT:
        assert np.all(steps == 1)
    else:
        assert np.all(steps >= 1)
        assert np.any(steps > 1)


def test_it_looks_like_a_market():
    market = venue()
    busy = market.trades("BTCUSDT", START_MS - DAY_MS, START_MS)
    assert 3 < len(busy) / 86_400 < 12
    assert 0.2 < np.mean(np.diff(busy.time_ms) == 0) < 0.8
    rows = market.klines("BTCUSDT", "1m", START_MS - DAY_MS, START_MS)
    assert len(rows) == 1_440
    moved = np.mean([later[1] != earlier[4] for earlier, later in itertools.pairwise(rows)])
    assert 0.2 < moved < 0.8
    quiet = list(market.contracts)[39]
    assert np.mean([row[8] == 0 for row in market.klines(quiet, "1m", START_MS - DAY_MS, START_MS)]) > 0.6


def test_a_scheduled_listing_begins_with_id_one_and_has_no_candle_before():
    listed_ms = START_MS + 90_000
    market = venue(listings=(ListingEvent(90_000, "FRESHUSDT"),))
    trades = market.trades("FRESHUSDT", START_MS - HOUR_MS, START_MS + HOUR_MS)
    assert trades.agg_id[0] == 1
    assert trades.first_id[0] == 1
    assert trades.time_ms[0] >= listed_ms
    assert market.klines("FRESHUSDT", "1m", 0, START_MS + HOUR_MS) == []


def test_a_delisting_ends_the_trades():
    market = venue(listings=(ListingEvent(90_000, "ETHUSDT", "delist"),))
    trades = market.trades("ETHUSDT", START_MS, START_MS + HOUR_MS)
    assert len(trades) > 0
    assert trades.time_ms[-1] < START_MS + 90_000


def test_settings_out_of_range_are_named():
    with pytest.raises(UsageError, match="rate is 0"):
        ExchangeSettings(rate=0)
    with pytest.raises(UsageError, match="symbols is 0"):
        ExchangeSettings(symbols=0)
    with pytest.raises(UsageError, match="has no symbol 'NOPE'"):
        venue().contract("NOPE")
