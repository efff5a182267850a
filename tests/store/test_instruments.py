import itertools
import sqlite3
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klagg.errors import MalformedRow
from klagg.interval import BY_NAME, parse_intervals
from klagg.model import Market, Status
from klagg.store import Life, Rename, open_store, schema
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


# Through time

NAMES = ("AUSDT", "BUSDT", "CUSDT")
LISTED = st.fixed_dictionaries(
    {
        "symbol": st.sampled_from(NAMES),
        "status": st.sampled_from(list(Status)),
        "price_scale": st.integers(1, 3),
        "qty_scale": st.integers(0, 2),
        "listed_ms": st.sampled_from([0, 40, 90, 160]),
        "delivery_ms": st.sampled_from([0, 120, 150, 10**9]),
    }
)
PUTS = st.lists(
    st.tuples(st.integers(-15, 60), st.lists(LISTED, max_size=3, unique_by=lambda one: one["symbol"])), max_size=8
)


class Twin:
    """The plain way: each symbol's statements in the order they were made, each with the instant from which it holds."""

    def __init__(self) -> None:
        self.said: dict[str, list[tuple[int, dict]]] = {}
        self.retired: dict[str, int | None] = {}
        self.listed: dict[str, int] = {}
        self.lives: dict[str, int] = {}

    def put(self, told: dict, now: int) -> None:
        symbol, gone = told["symbol"], told["status"] is Status.RETIRED
        said = self.said.setdefault(symbol, [])
        told = {**told, "listed_ms": self._life(symbol, told["listed_ms"], gone, now)}
        if said and gone:
            last = said[-1][1]
            told |= {name: last[name] for name in ("price_scale", "qty_scale", "listed_ms")}
        if said and said[-1][1] == told:
            return
        since = now
        if gone:
            since = told["delivery_ms"] if 0 < told["delivery_ms"] <= now else now
            if not said and min(told["listed_ms"], now) < since:
                said.append((min(told["listed_ms"], now), {**told, "status": Status.TRADING}))
        elif told["status"] is not Status.PENDING:
            dormant = said and said[-1][1]["status"] in {Status.PENDING, Status.RETIRED}
            if not said or (dormant and told["listed_ms"]):
                since = min(told["listed_ms"], now)
        if said:
            since = max(since, said[-1][0])
        said.append((since, told))

    def _life(self, symbol: str, listed: int, gone: bool, now: int) -> int:
        """When the life began that a statement is of: a symbol that comes back has a later listing, whatever the exchange says."""
        left = self.retired.get(symbol)
        before = self.listed.get(symbol, 0)
        if left is not None and not gone:
            self.lives[symbol] = self.lives.get(symbol, 1) + 1
            began = listed if listed >= left else now
        elif symbol in self.listed and before and left is None and self.lives.get(symbol, 1) > 1:
            began = max(listed or before, before)
        else:
            began = listed or before
        self.listed[symbol] = began
        self.retired[symbol] = (left or now) if gone else None
        return began

    def at(self, t: int) -> dict[str, dict]:
        found = {}
        for symbol, said in self.said.items():
            held = [told for since, told in said if since <= t]
            if held and held[-1]["status"] is not Status.RETIRED:
                found[symbol] = held[-1]
        return found


def test_any_past_instant_is_read_as_it_was(owned):
    """Each example has symbols of its own."""
    examples = itertools.count()

    @settings(max_examples=60, deadline=None)
    @given(PUTS)
    def play(puts):
        example, twin, now = f"-{next(examples)}", Twin(), 1
        for wait, listed in puts:
            now = max(now + wait, 1)
            for told in listed:
                twin.put(dict(told), now)
            facts = [{**told, "extra": {"delivery_ms": told["delivery_ms"]}} for told in listed]
            for one in facts:
                del one["delivery_ms"]
            owned.store.put_instruments([instrument(one.pop("symbol") + example, **one) for one in facts], now)
        for t in sorted({0, 39, 40, 90, 119, 120, 150, 160, now, now + 1, *range(1, now, 7)}):
            found = {
                past.instrument.symbol.removesuffix(example): {
                    "symbol": past.instrument.symbol.removesuffix(example),
                    "status": past.instrument.status,
                    "price_scale": past.instrument.price_scale,
                    "qty_scale": past.instrument.qty_scale,
                    "listed_ms": past.instrument.listed_ms,
                    "delivery_ms": past.instrument.extra["delivery_ms"],
                }
                for past in owned.store.instruments_at(Market.USDM, t)
                if past.instrument.symbol.endswith(example)
            }
            assert found == twin.at(t), t

    play()


def at(owned, t_ms, symbol="BTCUSDT"):
    found = [past for past in owned.store.instruments_at(Market.USDM, t_ms) if past.instrument.symbol == symbol]
    return found[0] if found else None


def test_a_listing_a_tick_a_halt_and_a_delivery_each_at_its_time(owned):
    def told(at_ms, **facts):
        facts = {"listed_ms": T0 + 100, "native_status": "TRADING", **facts}
        owned.store.put_instruments([instrument("NEWUSDT", **facts)], at_ms)

    told(T0 + 10, status=Status.PENDING, native_status="PENDING_TRADING")
    told(T0 + 130)
    told(T0 + 130)
    told(T0 + 200, price_scale=4)
    told(T0 + 300, price_scale=4, status=Status.HALTED, native_status="ODD")
    told(T0 + 500, price_scale=4, status=Status.RETIRED, native_status="SETTLING", extra={"delivery_ms": T0 + 400})

    def facts(t_ms):
        past = at(owned, t_ms, "NEWUSDT")
        return past and (past.instrument.status, past.instrument.price_scale, past.since_ms - T0, past.told_ms - T0)

    assert facts(T0 + 9) is None
    assert facts(T0 + 99) == (Status.PENDING, 2, 10, 10)
    assert facts(T0 + 100) == (Status.TRADING, 2, 100, 130)
    assert facts(T0 + 200) == (Status.TRADING, 4, 200, 200)
    assert facts(T0 + 399) == (Status.HALTED, 4, 300, 300)
    assert facts(T0 + 400) is None
    assert owned.store.instrument_changes(Market.USDM) == 3 + 5, "what is told again is no change"


def test_room_for_the_digits_of_an_archive_is_no_change_of_the_exchange(owned):
    owned.store.widen_scales(owned.btc, 7, 1)
    assert (stored(owned).instrument.price_scale, stored(owned).instrument.qty_scale) == (7, 3)
    assert at(owned, T0).instrument.price_scale == 2


def test_a_rename_links_two_identifiers(owned):
    new = owned.store.put_instruments([instrument("POLUSDT")], T0)["POLUSDT"]
    owned.store.put_rename(owned.btc, new, T0 + 5)
    owned.store.put_rename(owned.btc, owned.ids["ETHUSDT"], T0 + 9)
    assert owned.store.renames(Market.USDM) == [Rename(owned.btc, new, T0 + 5)]
    assert owned.store.renames(Market.SPOT) == []


def test_an_older_database_keeps_what_can_be_known(db):
    with closing(sqlite3.connect(db)) as connection:
        connection.executescript(schema.MIGRATIONS[0])
        connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 1")
        connection.execute(
            "INSERT INTO instrument VALUES (1, 'usdm', 'BTCUSDT', 'BTC', 'USDT', 'trading', 'TRADING', 2, 3, 300, NULL, 0, '{}')"
        )
        connection.execute("INSERT INTO life VALUES (1, 0, 100, 200), (1, 1, 300, NULL)")
        connection.commit()
    with closing(open_store(str(db), mode="write")) as store:
        listed = {
            t: [past.instrument.native_status for past in store.instruments_at(Market.USDM, t)]
            for t in (99, 100, 200, 300)
        }
        assert listed == {99: [], 100: [""], 200: [], 300: ["TRADING"]}
        store.put_instruments(
            [instrument("BTCUSDT", base="BTC", quote="USDT", native_status="TRADING", listed_ms=300)], T0
        )
        assert store.instrument_changes(Market.USDM) == 3
