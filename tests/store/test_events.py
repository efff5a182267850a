"""The event log: an event exactly where there is its change, in one order, read on from any number; and the two barriers."""

import sqlite3
import zlib

import numpy as np
import pytest

from klagg.errors import MalformedRow
from klagg.interval import BY_NAME, MINUTE, MINUTE_MS
from klagg.model import Gap, Market, Origin, Status
from klagg.store import Commit, Kind, What, events, open_store
from klagg.store.barrier import PASSED_AT_ONCE, PATIENCE_MS
from store.samples import SHARDS, SYMBOLS, T0, Owned, candle, flat, instrument, minutes

T1, T2 = T0 + MINUTE_MS, T0 + 2 * MINUTE_MS


def told(owned: Owned, after: int = 0, kinds=tuple(Kind)):
    """Every event after a number, one by one."""
    return [
        (event.kind, event.at_ms, *map(int, row))
        for event in owned.store.events(after, 10_000)
        if event.kind in kinds
        for row in event.values
    ]


def candles_told(owned: Owned, after: int = 0):
    return [(row[3] - T0, What(row[4]), row[5]) for row in told(owned, after, (Kind.CANDLES,))]


def test_each_change_of_a_closed_candle_is_told_once(owned):
    closed, revised, verified = What.CLOSED, What.REVISED, What.VERIFIED
    seq = owned.store.newest_seq()
    owned.commit(minutes(0, 2), candle(T2, closed=False), upto_ms=T2, now_ms=T2 + 5)
    assert candles_told(owned, seq) == [(0, closed, 0), (MINUTE_MS, closed, 0)]
    (event,) = [event for event in owned.store.events(seq, 100) if event.kind is Kind.CANDLES]
    assert (event.at_ms, event.market, event.last_seq) == (T2 + 5, Market.USDM, event.seq + 1)
    assert (event.instrument_ids.tolist(), event.interval_codes.tolist()) == ([owned.btc] * 2, [MINUTE.code] * 2)
    for brought, told_ in [
        ({}, []),  # the same once more
        ({"origin": Origin.PARTIAL}, []),  # refused
        ({"verified": True}, [(0, verified, 0)]),
        ({"verified": True}, []),
        ({"verified": True, "origin": Origin.EXCHANGE, "close": 111}, [(0, revised | verified, 1)]),
        ({"close": 95}, []),
    ]:
        seq = owned.store.newest_seq()
        owned.write(candle(**brought))
        assert candles_told(owned, seq) == told_, brought
    seq = owned.store.newest_seq()
    owned.commit(candle(T1, origin=Origin.PARTIAL, amended=True, trades=3))
    assert candles_told(owned, seq) == [(MINUTE_MS, revised, 1)]


def test_history_is_no_news_until_it_changes(owned):
    ids, seq = np.array([owned.btc]), owned.store.newest_seq()
    with owned.store.knowing(T2, publish_new=False) as store:
        store.write(ids, candle(origin=Origin.TRADES))
        assert candles_told(owned, seq) == []
        store.write(ids, candle(verified=True, origin=Origin.EXCHANGE))
        assert candles_told(owned, seq) == [(0, What.VERIFIED, 0)]
        store.write(ids, candle(verified=True, origin=Origin.EXCHANGE, close=111))
        assert candles_told(owned, seq)[1:] == [(0, What.REVISED | What.VERIFIED, 1)]
    owned.write(candle(T1))
    assert candles_told(owned, seq)[2:] == [(MINUTE_MS, What.CLOSED, 0)]


def test_what_is_rolled_back_was_never_told(owned):
    seq, known = owned.store.newest_seq(), owned.store.oldest_seq()
    with pytest.raises(RuntimeError), owned.store.transaction():  # noqa: PT012
        owned.commit(candle(), upto_ms=T1)
        owned.store.put_instruments([instrument("NEWUSDT")], T1)
        assert owned.store.newest_seq() > seq
        raise RuntimeError
    assert (owned.store.newest_seq(), owned.store.oldest_seq()) == (seq, known)


def test_symbols_and_gaps_are_told(owned):
    new, btc = instrument("NEWUSDT"), instrument("BTCUSDT")
    seq = owned.store.newest_seq()
    number = owned.store.put_instruments([btc, new], T0)["NEWUSDT"]
    owned.store.put_instruments([instrument("BTCUSDT", status=Status.RETIRED)], T1)
    owned.store.put_instruments([new], T1)
    gap = Gap(Market.USDM, "NEWUSDT", T0, T1, "memory bound")
    owned.store.record_gap(gap, T2)
    owned.store.record_gap(gap, T2)
    owned.commit(gaps=(Gap(Market.USDM, "", T0, T1, "stall"),), now_ms=T2)
    owned.store.put_instruments([btc], T2)
    assert told(owned, seq) == [
        (Kind.ADDED, T0, number),
        (Kind.RETIRED, T1, owned.btc),
        (Kind.GAP, T2, number, T0, T1),
        (Kind.GAP, T2, 0, T0, T1),
        (Kind.ADDED, T2, owned.btc),
    ]


@pytest.mark.parametrize("step", [1, 2, 3, 100])
def test_reading_on_from_any_number_gives_all_once(owned, step):
    owned.commit(minutes(0, 5), upto_ms=T0 + 5 * MINUTE_MS)
    spot = owned.store.put_instruments([instrument("X", market=Market.SPOT)], T0)["X"]
    owned.store.write(np.full(3, spot), minutes(0, 3))
    whole = told(owned)
    seq, found = 0, []
    while batch := owned.store.events(seq, step):
        assert sum(len(event.values) for event in batch) <= step
        for event in batch:
            assert event.seq == seq + 1
            seq = event.last_seq
            found += [(event.kind, event.at_ms, *map(int, row)) for row in event.values]
    assert found == whole
    assert seq == owned.store.newest_seq() == len(whole)
    of_spot = owned.store.events(0, 100, Market.SPOT)
    assert [(event.kind, len(event.values)) for event in of_spot] == [(Kind.ADDED, 1), (Kind.CANDLES, 3)]


def test_old_events_go_as_new_ones_come_and_the_numbers_go_on(owned, monkeypatch):
    monkeypatch.setattr(events, "KEPT_EVENTS", 40)
    for number in range(60):
        owned.commit(candle(T0 + number * MINUTE_MS), upto_ms=T0 + (number + 1) * MINUTE_MS)
    assert owned.store.newest_seq() > 120
    assert 40 <= owned.store.newest_seq() - owned.store.oldest_seq() + 1 <= 45
    assert owned.store.events(0, 1)[0].seq == owned.store.oldest_seq()
    newest = owned.store.newest_seq()
    late_ms = T0 + 60 * MINUTE_MS + events.KEPT_MS
    for number in range(40):
        owned.write(candle(T0, close=91 + number % 2, verified=True, origin=Origin.EXCHANGE))  # known at its end: old
        owned.store.record_gap(Gap(Market.USDM, "", T0, late_ms + number, "x"))
    assert owned.store.oldest_seq() > newest


def test_events_are_read_with_sqlite_alone(owned, db):
    owned.commit(minutes(0, 3), upto_ms=T0 + 3 * MINUTE_MS)
    with sqlite3.connect(db) as connection:
        count, body = connection.execute("SELECT count, body FROM event WHERE kind = 'candles'").fetchone()
    columns = np.cumsum(np.frombuffer(zlib.decompress(body), "<i8").reshape(-1, count), axis=1)
    assert columns.tolist() == [[owned.btc * 16] * 3, [T0, T1, T2], [What.CLOSED] * 3, [0] * 3]


@pytest.mark.parametrize("wrong", ["body = x'00'", "count = 7", "kind = 'other'"])
def test_a_row_that_cannot_be_read_is_named(owned, db, wrong):
    owned.commit(minutes(0, 3), upto_ms=T0 + 3 * MINUTE_MS)
    with sqlite3.connect(db) as connection:
        connection.execute(f"UPDATE event SET {wrong} WHERE kind = 'candles'")
    with pytest.raises(MalformedRow, match=r"table event, seq \d+"):
        owned.store.events(0, 100)


# Barriers

BARRIERS = (Kind.DURABLE, Kind.VERIFIED)


def test_a_barrier_is_durable_when_every_shard_is(owned):
    seq = owned.store.newest_seq()
    half = range(128)
    ids = np.array(list(owned.ids.values()))

    def commit(shards, upto_ms):
        snapshots = np.concatenate([candle(upto_ms, closed=False)] * len(ids))
        owned.store._directory.cover(ids)
        chosen = np.isin(owned.store._directory.shards[ids], list(shards))
        owned.store.commit(Commit(owned.claim, shards, upto_ms, ids[chosen], snapshots[chosen], now_ms=upto_ms + 3))

    owned.commit(upto_ms=T0)
    for shards, upto_ms in [(half, T1), (half, T2), (range(128, 256), T1), (range(128, 256), T2), (SHARDS, T2)]:
        commit(shards, upto_ms)
    durable = [row for row in told(owned, seq, (Kind.DURABLE,)) if row[2] > T0]
    assert durable == [(Kind.DURABLE, T1 + 3, T1, len(SYMBOLS)), (Kind.DURABLE, T2 + 3, T2, len(SYMBOLS))]


def test_a_barrier_is_verified_when_the_last_candle_is_settled(owned):
    five = BY_NAME["5m"]
    upto_ms = T0 + 5 * MINUTE_MS
    for number in range(5):
        closed = [candle(T0 + number * MINUTE_MS)] + [flat(interval=five)] * (number == 4)
        owned.commit(*closed, upto_ms=T0 + (number + 1) * MINUTE_MS)
    assert told(owned, 0, (Kind.VERIFIED,)) == []
    assert owned.store.verified_upto(Market.USDM) == T0
    for number, passed in [(1, []), (0, [T1, T2]), (2, [T0 + 3 * MINUTE_MS]), (4, []), (3, [T0 + 4 * MINUTE_MS])]:
        seq = owned.store.newest_seq()
        owned.write(candle(T0 + number * MINUTE_MS, verified=True))
        assert [row[2:] for row in told(owned, seq, (Kind.VERIFIED,))] == [(boundary_ms, 0) for boundary_ms in passed]
    seq = owned.store.newest_seq()
    with owned.store.knowing(upto_ms + 9):
        owned.write(flat(interval=five, origin=Origin.UNMATCHED))
    assert told(owned, seq, (Kind.VERIFIED,)) == [(Kind.VERIFIED, upto_ms + 9, upto_ms, 0)]
    assert owned.store.verified_upto(Market.USDM) == upto_ms


def test_what_is_never_settled_is_waited_for_only_so_long(owned):
    owned.commit(candle(), candle(interval=BY_NAME["5m"]), upto_ms=T1, now_ms=T1)
    owned.commit(candle(T1), instrument_id=owned.ids["ETHUSDT"], upto_ms=T2)
    seq = owned.store.newest_seq()
    late_ms = T1 + PATIENCE_MS
    for boundary_ms in range(T2, late_ms, MINUTE_MS):
        owned.commit(upto_ms=boundary_ms, now_ms=late_ms - 1)
    assert told(owned, seq, (Kind.VERIFIED,)) == []
    owned.commit(upto_ms=late_ms, now_ms=late_ms)
    assert told(owned, seq, (Kind.VERIFIED,)) == [(Kind.VERIFIED, late_ms, T1, 1)]
    owned.commit(upto_ms=late_ms + MINUTE_MS, now_ms=late_ms + MINUTE_MS)
    assert told(owned, seq, (Kind.VERIFIED,))[1][2:] == (T2, 1)


def test_after_an_absence_the_wait_begins_anew_and_is_passed_in_pieces(owned):
    hours = 120
    back_ms = T0 + hours * MINUTE_MS
    owned.commit(candle(verified=True), upto_ms=T1)
    filled = minutes(1, hours - 1, origin=Origin.FILLED)
    owned.commit(filled, upto_ms=back_ms, now_ms=back_ms + 1)
    assert owned.store.verified_upto(Market.USDM) == T1
    seq = owned.store.newest_seq()
    owned.write(minutes(1, hours - 1, origin=Origin.EXCHANGE, verified=True))
    assert [row[3] for row in told(owned, seq, (Kind.VERIFIED,))] == [0] * PASSED_AT_ONCE
    while owned.store.verified_upto(Market.USDM) < back_ms:
        before_ms = owned.store.verified_upto(Market.USDM)
        owned.write(candle(T0, close=int(before_ms % 7) + 100, verified=True, origin=Origin.EXCHANGE))
        assert owned.store.verified_upto(Market.USDM) > before_ms
    passed = [row[2] for row in told(owned, seq, (Kind.VERIFIED,))]
    assert passed == list(range(T2, back_ms + 1, MINUTE_MS))


def test_the_barrier_walks_the_indexes_of_what_is_unverified(owned, db):
    owned.commit(minutes(0, 1), upto_ms=T1)
    statements = []
    store = open_store(str(db), mode="write")
    store._database.connection.set_trace_callback(statements.append)
    store.write(np.array([owned.btc]), candle(verified=True))
    store._database.connection.set_trace_callback(None)
    (looked, *_) = [statement for statement in statements if "candle_urgent" in statement]
    plan = " ".join(row[3] for row in store._database.all(f"EXPLAIN QUERY PLAN {looked}"))
    assert "SEARCH c USING COVERING INDEX candle_urgent (open_ms=?" in plan
    store.close()
