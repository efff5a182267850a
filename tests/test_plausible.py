"""Which rows can be no candle: against plain arithmetic, and on every kline of the exchange that is recorded here."""

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klagg.archive import read_klines
from klagg.fixed import WORD, join
from klagg.interval import BY_NAME, MINUTE
from klagg.model import Origin
from klagg.plausible import impossible
from store.samples import T0, candle, flat

GOOD = candle(verified=True, origin=Origin.EXCHANGE)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"low": 101, "open": 100}, "low is above"),
        ({"high": 109}, "high is below"),
        ({"low": 0}, "not above zero"),
        ({"open": -3, "low": -3}, "not above zero"),
        ({"trades": 0}, "volume and no trades"),
        ({"volume_lo": 0, "taker_volume_lo": 0}, "trades and no volume"),
        ({"taker_volume_lo": 5_001}, "taker_volume is more"),
        ({"taker_quote_lo": 550_001}, "taker_quote is more"),
        ({"quote_lo": 600_005}, "above high times volume"),
        ({"quote_lo": 449_995}, "below low times volume"),
        ({"trades": 5}, "ids are fewer"),
        ({"trades": -1}, "negative"),
        ({"first_id": 11, "last_id": 10}, "ids are fewer"),
        ({"open_ms": T0 + 1}, "opens at no open"),
        ({"interval": 15}, "opens at no open"),
    ],
)
def test_a_row_that_contradicts_itself_is_named(columns, reason):
    row = GOOD.copy()
    for name, value in columns.items():
        row[name] = value
    found = impossible(np.concatenate([GOOD, row, GOOD]))
    assert [at for at, _ in found] == [1]
    assert reason in found[0][1]


def test_without_trades_there_is_one_price():
    assert impossible(flat(verified=True)) == []
    assert "moves without a trade" in impossible(flat(high=111, verified=True))[0][1]


@pytest.mark.parametrize("quote", [600_004, 449_996])
def test_the_last_digit_of_each_trade_may_be_rounded(quote):
    assert impossible(candle(quote_lo=quote)) == []


numbers = st.integers(1, 10**9) | st.integers(1, 10**18 - 1)


@settings(max_examples=500, deadline=None)
@given(
    low=numbers,
    spread=st.integers(0, 5),
    volume=st.integers(1, 10**6) | st.integers(1, 10**30),
    trades=st.integers(1, 3),
    scales=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    off=st.integers(-12, 12) | st.integers(-(10**13), 10**13),
    of_high=st.booleans(),
)
def test_the_quote_volume_is_held_to_the_prices_exactly(low, spread, volume, trades, scales, off, of_high):
    """Against whole numbers of any size; the products pass 63 bits, and a double's 53."""
    high = min(low + spread, 10**18 - 1)
    quote = (high if of_high else low) * volume + off
    if not 0 <= quote < 10**18 * 2**62:
        return
    hi, lo = divmod(volume, WORD)
    quote_hi, quote_lo = divmod(quote, WORD)
    row = candle(
        open=low,
        low=low,
        high=high,
        close=high,
        trades=trades,
        first_id=-1,
        last_id=-1,
        volume_hi=hi,
        volume_lo=lo,
        quote_hi=quote_hi,
        quote_lo=quote_lo,
        taker_volume_lo=0,
        taker_quote_lo=0,
        price_scale=scales[0],
        qty_scale=scales[1],
    )
    unit = 10 ** max(sum(scales) - 8, 0)
    tolerance = trades * unit + quote // 2**52
    possible = low * volume - tolerance <= quote <= high * volume + tolerance
    # Where the tolerance is itself of the size of a double's error, its own last bit may decide either way.
    near = min(abs(quote - low * volume + tolerance), abs(high * volume + tolerance - quote))
    if near > tolerance >> 40:
        assert (impossible(row) == []) == possible


@pytest.mark.parametrize(
    ("name", "symbol", "interval"),
    [
        ("usdm_ALGOUSDT-1m-2024-09.csv.gz", "ALGOUSDT", "1m"),
        ("usdm_NEARUSDT-1m-2023-02.csv.gz", "NEARUSDT", "1m"),
        ("usdm_BTCUSDT_20240808_klines_1m.csv", "BTCUSDT", "1m"),
        ("usdm_ETHUSDT_20240718-19_klines_1m.csv", "ETHUSDT", "1m"),
        ("usdm_TRXUSDT_20250304_klines_1m.csv", "TRXUSDT", "1m"),
        ("spot_BTCUSDT_20240808-09_klines_5m.csv", "BTCUSDT", "5m"),
    ],
)
def test_every_recorded_kline_of_the_exchange_is_possible(shared_data, name, symbol, interval):
    reader = read_klines(shared_data / name, symbol=symbol, interval=BY_NAME[interval])
    rows = np.concatenate(list(reader))
    assert len(rows)
    assert impossible(rows) == []


def test_a_candle_is_as_the_plain_numbers_say():
    (row,) = GOOD
    low, volume = Decimal(int(row["low"])).scaleb(-2), Decimal(int(row["volume_lo"])).scaleb(-3)
    quote = Decimal(join(int(row["quote_hi"]), int(row["quote_lo"]))).scaleb(-5)
    assert low * volume <= quote <= Decimal("1.20") * volume
    assert row["interval"] == MINUTE.code
