import sqlite3

import pytest

from klagg.errors import MalformedRow
from klagg.interval import BY_NAME, parse_intervals
from klagg.model import Market, Status
from klagg.store import Life, open_store
from store.samples import T0, instrument


def stored(owned, symbol="BTCUSDT"):
    return next(found for found in owned.store.instruments(Market.USDM) if found.instrument.symbol == symbol)


def put(owned, **changes):
    return owned.store.put_instruments([instrument("BTCUSDT", **changes)], changes.pop("at_ms", T0 + 5))["BTCUSDT"]


def test_identifiers_stay_across_updates_and_processes(owned, db):
    assert put(owned, status=Status.HALTED) == owned.btc
    other = open_store(str(db), mode="write")
    again = other.put_instruments([instrument("NEWUSDT"), instrument("BTCUSDT")], T0)
    assert again["BTCUSDT"] == owned.btc
    assert again["NEWUSDT"] not in owned.ids.values()
    other.close()


def test_scales_only_widen(owned):
    put(owned, price_scale=5, qty_scale=1)
    assert (stored(owned).instrument.price_scale, stored(owned).instrument.qty_scale) == (5, 3)


def test_one_name_in_two_markets_is_two_instruments(owned):
    spot = owned.store.put_instruments([instrument("BTCUSDT", market=Market.SPOT)], T0)
    assert spot["BTCUSDT"] != owned.btc
    assert len(owned.store.instruments()) == 4
    assert [found.instrument.market for found in owned.store.instruments(Market.SPOT)] == [Market.SPOT]


def test_retiring_and_listing_again_are_two_lives(owned):
    store = owned.store
    put(owned, listed_ms=100)
    assert store.lives(owned.btc) == [Life(100, None)]
    store.put_instruments([instrument("BTCUSDT", status=Status.RETIRED, listed_ms=100)], T0 + 10)
    store.put_instruments([instrument("BTCUSDT", status=Status.RETIRED, listed_ms=100)], T0 + 20)
    assert stored(owned).retired_ms == T0 + 10
    assert store.lives(owned.btc) == [Life(100, T0 + 10)]
    store.put_instruments([instrument("BTCUSDT", listed_ms=100)], T0 + 30)  # the exchange still tells the first listing
    store.put_instruments([instrument("BTCUSDT", listed_ms=100)], T0 + 40)
    assert stored(owned).retired_ms is None
    assert store.lives(owned.btc) == [Life(100, T0 + 10), Life(T0 + 30, None)]
    assert stored(owned, "ETHUSDT").retired_ms is None


def test_everything_the_exchange_said_comes_back(owned):
    told = instrument(
        "X", base="X", quote="USDT", native_status="BREAK", listed_ms=7, extra={"contractType": "PERPETUAL"}
    )
    owned.store.put_instruments([told], T0)
    back = stored(owned, "X").instrument
    assert (back, back.extra) == (told, told.extra)


def test_kept_intervals(owned):
    assert owned.store.intervals(Market.USDM) == ()
    owned.store.set_intervals(Market.USDM, parse_intervals(["1h", "1M"]))
    owned.store.set_intervals(Market.USDM, parse_intervals(["1w"]))
    assert owned.store.intervals(Market.USDM) == (BY_NAME["1m"], BY_NAME["1w"])
    assert owned.store.intervals(Market.SPOT) == ()


@pytest.mark.parametrize("change", ["status = 'odd'", "price_scale = 19", "extra = '{'"])
def test_a_malformed_instrument_is_named(owned, db, change):
    with sqlite3.connect(db) as connection:
        connection.execute(f"UPDATE instrument SET {change} WHERE symbol = 'BTCUSDT'")
    connection.close()
    with pytest.raises(MalformedRow, match="table instrument, symbol BTCUSDT: " + change.split()[0]):
        owned.store.instruments(Market.USDM)


def test_ids_of_a_transaction_that_was_rolled_back_are_forgotten(owned):
    with pytest.raises(ZeroDivisionError), owned.store.transaction():  # noqa: PT012  # what it rolls back
        owned.store.put_instruments([instrument("NEWUSDT")], T0)
        raise ZeroDivisionError
    assert "NEWUSDT" not in {found.instrument.symbol for found in owned.store.instruments()}
