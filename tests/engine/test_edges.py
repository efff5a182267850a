# ruff: noqa: F401, F811  # `one` is a fixture
"""What lies exactly on an edge: of the window of ids, of a minute, of what is late, of a word of a sum."""

from dataclasses import replace
from decimal import Decimal

import pytest

from engine.test_properties import minutes_after, one, trade_at
from klagg.engine import matching, state
from klagg.interval import MINUTE_MS
from klagg.model import NUMBERS, Flag, Origin
from oracle import exact_candles


def minute(one, place=0):
    """A closed minute as it came out last."""
    one.collect()
    return one.came_out[one.slot, 0, one.start_ms + place * MINUTE_MS]


@pytest.mark.parametrize("ahead", [state.WINDOW - 1, state.WINDOW, state.WINDOW + 1])
def test_a_duplicate_at_the_edge_of_the_window_counts_once(one, ahead):
    """The next id is 2: one that many further comes twice."""
    one.hear(trade_at(1, one.now_ms))
    one.flush()
    one.hear(trade_at(2 + ahead, one.now_ms), trade_at(2 + ahead, one.now_ms))
    one.flush()
    assert (one.engine.tally.applied, one.engine.tally.duplicate) == (2, 1)
    minutes_after(one, 1)
    assert minute(one).trades == 2
    one.check(origins=True)


def test_ids_beyond_the_window_are_forgotten_with_the_hole_they_jump_over(one):
    one.hear(trade_at(1, one.now_ms), trade_at(5, one.now_ms), trade_at(5 + state.WINDOW, one.now_ms))
    one.flush()
    # Its place in the window is that of id 5, which was seen before the jump; it was not.
    one.hear(trade_at(5 + 2 * state.WINDOW, one.now_ms))
    one.flush()
    assert (one.engine.tally.applied, one.engine.tally.duplicate) == (4, 0)
    one.check()


def test_a_trade_at_the_very_end_of_a_minute_is_the_next_minutes(one):
    one.hear(
        trade_at(1, one.start_ms), trade_at(2, one.start_ms + MINUTE_MS - 1), trade_at(3, one.start_ms + MINUTE_MS)
    )
    minutes_after(one, 2)
    assert (minute(one).trades, minute(one, 1).trades) == (2, 1)
    one.check(origins=True)


def test_ids_that_begin_at_a_minutes_open_do_not_prove_it(one):
    """The trade before may be of the same millisecond."""
    for place in range(3):
        one.hear(trade_at(5 + place, one.start_ms + place * MINUTE_MS))
        minutes_after(one, place + 1)
    assert [minute(one, place).origin for place in (0, 1)] == [Origin.PARTIAL, Origin.TRADES]
    one.check(origins=True)


@pytest.mark.parametrize(("back", "fate"), [(state.HELD_MINUTES, "late"), (state.HELD_MINUTES + 1, "too_old")])
def test_a_trade_this_many_minutes_late_is_still_or_no_longer_taken(one, back, fate):
    one.hear(trade_at(1, one.start_ms))
    minutes_after(one, back)
    one.hear(trade_at(2, one.start_ms + 1, "99"))
    one.flush()
    assert getattr(one.engine.tally, fate) == 1
    one.check()


@pytest.mark.parametrize(
    ("ahead_ms", "is_taken"), [(state.FUTURE_TOLERANCE_MS, True), (state.FUTURE_TOLERANCE_MS + 1, False)]
)
def test_a_trade_from_the_future_is_taken_so_far(one, ahead_ms, is_taken):
    one.hear(trade_at(1, one.now_ms), trade_at(2, one.now_ms + ahead_ms))
    one.flush()
    assert one.engine.tally.applied == 1 + is_taken
    assert one.engine.tally.invalid == (not is_taken)


@pytest.mark.parametrize(("after_ms", "is_anew"), [(state.RENUMBERING_MS, False), (state.RENUMBERING_MS + 1, True)])
def test_a_lower_id_is_a_duplicate_until_it_is_dated_well_after_the_last(one, after_ms, is_anew):
    one.hear(trade_at(100, one.now_ms))
    one.wait(after_ms)
    one.hear(trade_at(50, one.start_ms + after_ms))
    one.flush()
    assert (one.engine.tally.duplicate, one.engine.tally.renumbered) == (not is_anew, is_anew)


def test_sums_that_fill_a_word_exactly_carry_on(one):
    """10^18 of the smallest unit of volume, of quote volume, and of what takers bought."""
    half = replace(trade_at(1, one.now_ms), price=Decimal(1), qty=Decimal("0.5") * 10**10, buyer_is_maker=False)
    whole = Decimal("0.00000001")
    one.hear(replace(half, price=Decimal(1), qty=half.qty - whole), replace(half, agg_id=2, first_id=2, last_id=2))
    one.hear(replace(half, agg_id=3, first_id=3, last_id=3, qty=whole))
    minutes_after(one, 1)
    found = minute(one)
    assert found.volume == found.taker_volume == found.quote == found.taker_quote == 10**10
    minutes_after(one, 60)
    one.check()


def test_a_hole_is_given_up_after_its_patience_and_not_before(one):
    one.hear(trade_at(1, one.now_ms), trade_at(3, one.now_ms))
    one.wait(state.HOLE_PATIENCE_MS - 1)
    one.expire_holes()
    assert one.engine.tally.holes == 0
    one.wait(1)
    one.expire_holes()
    assert one.engine.tally.holes == 1


def test_a_feed_that_was_blind_leaves_no_flat_minute_but_one_that_ids_prove(one):
    one.hear(trade_at(1, one.start_ms))
    minutes_after(one, 2)
    one.hear(trade_at(2, one.start_ms + 2 * MINUTE_MS))
    minutes_after(one, 4)
    one.blind(one.start_ms)
    minutes_after(one, 5)
    one.check(origins=True)
    assert [minute(one, place).origin for place in (1, 3)] == [Origin.FLAT, Origin.FILLED]


def test_open_and_close_go_by_id_however_trades_arrive(one):
    one.hear(trade_at(0, one.start_ms))
    minutes_after(one, 1)
    at_ms = one.now_ms
    one.hear(trade_at(2, at_ms, "102", buyer_is_maker=True), trade_at(5, at_ms, "95", buyer_is_maker=True))
    one.hear(trade_at(4, at_ms, "104"), trade_at(3, at_ms, "110"), trade_at(1, at_ms, "90"))
    minutes_after(one, 2)
    found = minute(one, 1)
    assert (found.open, found.high, found.low, found.close) == (90, 110, 90, 95)
    assert found.taker_volume == 3
    one.check()


def test_a_late_trade_moves_what_follows_it_without_trades_but_nothing_of_the_exchanges(one):
    one.hear(trade_at(1, one.start_ms))
    minutes_after(one, 2)
    one.collect()
    one.hear(trade_at(2, one.start_ms + 5, "120"))
    minutes_after(one, 3)
    assert [minute(one, place).close for place in (0, 1, 2)] == [120, 120, 120]
    one.check()


def test_a_snapshot_of_a_running_minute_holds_none_of_its_trades(one):
    one.hear(trade_at(1, one.start_ms, "101"))
    minutes_after(one, 1)
    one.hear(trade_at(2, one.now_ms + 1, "150"))
    one.flush()
    rows = one.engine.snapshots()
    found = dict(exact_candles(rows))[one.slot, 0, one.boundary_ms]
    assert not (rows["flags"] & Flag.CLOSED).any()
    assert (found.open, found.trades) == (101, 0)


def test_sums_of_two_minutes_that_fill_a_word_exactly_carry_on(one):
    half = replace(trade_at(1, one.now_ms), price=Decimal(1), qty=Decimal(5) * 10**9, buyer_is_maker=False)
    one.hear(replace(half, qty=half.qty - Decimal("0.00000001")))
    minutes_after(one, 1)
    one.hear(replace(half, agg_id=2, first_id=2, last_id=2, time_ms=one.now_ms, qty=half.qty + Decimal("0.00000001")))
    minutes_after(one, 4)
    one.collect()
    three = next(candle for key, candle in one.came_out.items() if key[1] == 1 and candle.trades)
    assert three.volume == three.quote == three.taker_volume == three.taker_quote == 10**10
    rows = one.engine.snapshots()
    for name in ("volume", "quote", "taker_volume", "taker_quote"):
        assert (rows[f"{name}_lo"] < 10**18).all(), name
    one.check()


def test_a_trade_too_late_for_any_candle_leaves_its_minute_unproven(one):
    one.hear(trade_at(1, one.start_ms))
    minutes_after(one, 6)
    one.hear(trade_at(3, one.now_ms), trade_at(2, one.start_ms + MINUTE_MS + 1))
    one.flush()
    assert one.engine.tally.too_old == 1
    assert [minute(one, place).origin for place in (1, 2)] == [Origin.FILLED, Origin.FLAT]
    one.check(origins=True)


def test_a_hole_takes_the_proof_from_every_minute_up_to_its_far_edge(one):
    one.hear(trade_at(1, one.start_ms))
    minutes_after(one, 2)
    assert minute(one, 1).origin == Origin.FLAT
    one.hear(trade_at(3, one.start_ms + 2 * MINUTE_MS))
    one.wait(state.HOLE_PATIENCE_MS)
    one.expire_holes()
    assert minute(one, 1).origin == Origin.FILLED
    one.check(origins=True)


@pytest.mark.parametrize("name", NUMBERS)
def test_a_minute_equals_the_exchanges_only_in_every_number(one, name):
    one.hear(trade_at(1, one.now_ms, buyer_is_maker=False))
    minutes_after(one, 1)
    kline = one.engine.collect()
    kline = kline[(kline["interval"] == 0) & (kline["open_ms"] == one.start_ms)][:1].copy()
    kline["slot"] = one.slot
    other = kline.copy()
    other[name] += 1
    assert one.engine.compare(other).tolist() == [matching.DIFFERS]
    assert one.engine.compare(kline).tolist() == [matching.EQUAL]
