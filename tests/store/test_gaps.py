"""Gaps on record: opened, repaired, final, each seen apart."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klagg.interval import BY_NAME, MINUTE_MS
from klagg.model import Gap, Market, Origin, Status
from klagg.store import GapState
from klagg.store.gaps import NONE_THERE
from store.samples import T0, candle, instrument, minutes

M = MINUTE_MS


def gap(first: int, end: int, symbol: str = "BTCUSDT", reason: str = "memory bound") -> Gap:
    return Gap(Market.USDM, symbol, T0 + first * M, T0 + end * M, reason)


def unmatched(first: int, count: int):
    return minutes(
        first, count, origin=Origin.UNMATCHED, trades=0, volume_lo=0, quote_lo=0, taker_volume_lo=0, taker_quote_lo=0
    )


def seen(owned, state=None):
    return [(one.gap, one.state, one.closed_ms) for one in owned.store.gap_records(Market.USDM, 100, state)]


def settle(owned, now_ms: int = T0 + 10**7):
    return owned.store.settle_gaps(Market.USDM, now_ms)


def test_a_gap_is_open_until_the_exchange_has_settled_every_minute_of_it(owned):
    owned.commit(upto_ms=T0 + 10 * M, gaps=[gap(2, 5)], now_ms=T0 + 11 * M)
    assert seen(owned) == [(gap(2, 5), GapState.OPEN, None)]
    assert settle(owned) == []
    owned.write(minutes(2, 2, verified=True, origin=Origin.EXCHANGE), minutes(4, 1, origin=Origin.TRADES))
    assert settle(owned) == [], "one minute is there, and not verified"
    owned.write(minutes(4, 1, verified=True, origin=Origin.EXCHANGE))
    assert settle(owned, T0 + 5 * M - 1) == [], "not before it has ended"
    assert settle(owned, T0 + 20 * M) == [gap(2, 5)]
    assert settle(owned) == []
    (record,) = owned.store.gap_records(Market.USDM, 10)
    assert (record.at_ms, record.closed_ms, record.state) == (T0 + 11 * M, T0 + 20 * M, GapState.REPAIRED)
    assert owned.store.gaps(Market.USDM) == []


def test_the_same_span_lost_again_is_open_again(owned):
    owned.commit(upto_ms=T0 + 10 * M, gaps=[gap(0, 1)])
    owned.write(minutes(0, 1, verified=True, origin=Origin.EXCHANGE))
    assert settle(owned) == [gap(0, 1)]
    owned.store.record_gap(gap(0, 1), T0 + 30 * M)
    assert owned.store.gap_counts(Market.USDM) == {GapState.OPEN: 1, GapState.FINAL: 0, GapState.REPAIRED: 0}
    newest = owned.store.newest_seq()
    owned.store.record_gap(gap(0, 1), T0 + 31 * M)
    assert owned.store.newest_seq() == newest, "what is open already is no news"


def test_a_gap_of_all_symbols_needs_all_that_were_listed(owned):
    eth = owned.ids["ETHUSDT"]
    owned.commit(candle(T0), candle(T0), upto_ms=T0 + 9 * M)
    owned.commit(candle(T0), instrument_id=eth)
    owned.store.record_gap(gap(1, 3, symbol=""))
    owned.write(minutes(1, 2, verified=True, origin=Origin.EXCHANGE))
    assert settle(owned) == []
    # It left in the middle: only the first minute was its own.
    owned.store.put_instruments([instrument("ETHUSDT", status=Status.RETIRED)], T0 + 2 * M)
    owned.store.write(np.full(1, eth), minutes(1, 1, verified=True, origin=Origin.EXCHANGE))
    assert settle(owned) == [gap(1, 3, symbol="")]


def test_what_the_exchange_does_not_have_is_final_by_ranges(owned):
    owned.commit(upto_ms=T0 + 100 * M)
    owned.store.record_gap(gap(4, 8))
    owned.write(unmatched(4, 2), unmatched(10, 3))
    owned.write(candle(T0 + 60 * M, interval=BY_NAME["1h"], origin=Origin.UNMATCHED))
    assert seen(owned, GapState.FINAL) == [
        (gap(10, 13, reason=NONE_THERE), GapState.FINAL, None),
        (gap(4, 6, reason=NONE_THERE), GapState.FINAL, None),
    ]
    assert owned.store.gaps(Market.USDM) == [gap(4, 8)], "the final ones are not to be asked for again"
    owned.write(unmatched(6, 4))
    assert seen(owned, GapState.FINAL) == [(gap(4, 13, reason=NONE_THERE), GapState.FINAL, None)]
    assert settle(owned) == [gap(4, 8)], "what is final is settled"
    assert owned.store.gap_counts(Market.USDM) == {GapState.OPEN: 0, GapState.FINAL: 1, GapState.REPAIRED: 1}


def test_a_final_gap_that_the_exchange_has_after_all_is_repaired(owned):
    owned.commit(upto_ms=T0 + 100 * M)
    owned.write(unmatched(0, 2))
    assert settle(owned) == []
    owned.write(minutes(0, 1, verified=True, origin=Origin.EXCHANGE))
    assert settle(owned) == []
    owned.write(minutes(1, 1, verified=True, origin=Origin.EXCHANGE))
    assert settle(owned) == [gap(0, 2, reason=NONE_THERE)]


def test_a_write_that_is_rolled_back_leaves_no_gap(owned):
    owned.commit(upto_ms=T0 + 100 * M)
    with pytest.raises(ZeroDivisionError), owned.store.transaction():  # noqa: PT012  # what it rolls back
        owned.write(unmatched(0, 2))
        raise ZeroDivisionError
    assert seen(owned) == []


def test_many_and_long_gaps_are_looked_at_in_turn(owned, monkeypatch):
    monkeypatch.setattr("klagg.store.gaps.CHECKED_AT_ONCE", 3)
    monkeypatch.setattr("klagg.store.gaps.MINUTES_AT_ONCE", 5)
    owned.commit(upto_ms=T0 + 200 * M)
    for first in range(0, 40, 4):
        owned.store.record_gap(gap(first, first + 2))
    owned.store.record_gap(gap(100, 190))
    owned.write(
        minutes(0, 2, verified=True, origin=Origin.EXCHANGE), minutes(100, 90, verified=True, origin=Origin.EXCHANGE)
    )
    closed = []
    for round_ in range(8):
        closed += settle(owned, T0 + (300 + round_) * M)
    assert sorted(closed, key=lambda one: one.start_ms) == [gap(0, 2), gap(100, 190)]
    assert owned.store.gap_counts(Market.USDM)[GapState.OPEN] == 9


def test_final_gaps_are_the_runs_of_the_minutes_that_are_unmatched(owned):
    """However they come, in pieces that touch, overlap or stand alone; each example is a symbol of its own."""
    examples = itertools.count()

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 6)), max_size=12))
    def play(spans):
        symbol = f"S{next(examples)}USDT"
        number = owned.store.put_instruments([instrument(symbol)], T0)[symbol]
        gone: set[int] = set()
        for first, count in spans:
            owned.store.write(np.full(count, number), unmatched(first, count))
            gone |= set(range(first, first + count))
        runs = [n for n in sorted(gone) if n - 1 not in gone]
        ends = [n + 1 for n in sorted(gone) if n + 1 not in gone]
        found = [one.gap for one in owned.store.gap_records(Market.USDM, 10**6, GapState.FINAL)]
        expected = [gap(a, b, symbol, NONE_THERE) for a, b in reversed(list(zip(runs, ends, strict=True)))]
        assert [one for one in found if one.symbol == symbol] == expected

    owned.commit(upto_ms=T0 + 100 * M)
    play()
