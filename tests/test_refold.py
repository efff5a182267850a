"""Parents are what their stored children make, and only where those tile them."""

import numpy as np
import pytest

from klagg.archive import read_klines
from klagg.interval import BY_NAME, DAY_MS, HOUR_MS, MINUTE, MINUTE_MS, parse_intervals
from klagg.model import CANDLE, Flag, Instrument, Market, Origin, Status
from klagg.refold import Span, refold
from klagg.store import Commit, open_store

T0 = 1_725_148_800_000  # 2024-09-01 00:00, a Sunday
FIVE = BY_NAME["5m"]


@pytest.fixture
def store(tmp_path):
    store = open_store(str(tmp_path / "klagg.db"), mode="create")
    store.put_instruments([Instrument(Market.USDM, "AAAUSDT", Status.TRADING, 2, 1)], 0)
    yield store
    store.close()


def minutes(closes, start_ms=T0, *, trades=1, origin=Origin.EXCHANGE, verified=True):
    rows = np.zeros(len(closes), CANDLE)
    rows["open_ms"] = start_ms + np.arange(len(closes)) * MINUTE_MS
    rows["price_scale"], rows["qty_scale"] = 2, 1
    for name in ("open", "high", "low", "close"):
        rows[name] = closes
    rows["trades"] = trades
    rows["volume_lo"] = 10 * trades
    rows["quote_lo"] = np.array(closes) * 10 * trades
    rows["first_id"] = rows["last_id"] = -1
    rows["origin"] = origin
    rows["flags"] = Flag.CLOSED | (Flag.VERIFIED if verified else 0)
    return rows


def put(store, rows):
    store.write(np.full(len(rows), 1), rows)


def own(store, closed_upto_ms):
    """Make a service own the market, closed up to an instant."""
    claim = store.claim(Market.USDM, owner="test", now_ms=0)
    store.commit(Commit(claim, range(256), closed_upto_ms))


def test_verified_minutes_make_verified_parents_level_by_level(store):
    put(store, minutes(range(100, 160)))
    refold(store, [Span(1, T0, T0 + HOUR_MS)], parse_intervals(["5m", "30m", "1h"]), None)
    hour = store.read(1, BY_NAME["1h"], T0, T0 + HOUR_MS)
    assert (hour["open"][0], hour["high"][0], hour["low"][0], hour["close"][0]) == (100, 159, 100, 159)
    assert hour["trades"][0] == 60
    assert hour["origin"][0] == Origin.EXCHANGE
    assert hour["flags"][0] & Flag.VERIFIED
    assert len(store.read(1, FIVE, T0, T0 + HOUR_MS)) == 12


def test_a_parent_with_a_missing_child_is_left_alone(store):
    rows = minutes(range(100, 110))
    put(store, np.delete(rows, 7))
    refold(store, [Span(1, T0, T0 + 10 * MINUTE_MS)], parse_intervals(["5m"]), None)
    assert store.read(1, FIVE, T0, T0 + HOUR_MS)["open_ms"].tolist() == [T0]


def test_one_unverified_child_leaves_the_parent_unverified(store):
    put(store, minutes([100, 101, 102, 103]))
    put(store, minutes([104], T0 + 4 * MINUTE_MS, origin=Origin.TRADES, verified=False))
    refold(store, [Span(1, T0, T0 + MINUTE_MS)], parse_intervals(["5m"]), None)
    parent = store.read(1, FIVE, T0, T0 + HOUR_MS)
    assert parent["origin"].tolist() == [Origin.TRADES]
    assert not parent["flags"][0] & Flag.VERIFIED


def test_a_changed_close_runs_on_through_minutes_without_trades_to_any_length(store):
    flats = minutes([100] * 200, T0 + MINUTE_MS, trades=0, origin=Origin.FLAT, verified=False)
    put(store, flats)
    put(store, minutes([100], T0 + 201 * MINUTE_MS, trades=0))
    put(store, minutes([120]))
    refold(store, [Span(1, T0, T0 + MINUTE_MS)], parse_intervals(["5m"]), None)
    rows = store.read(1, MINUTE, T0, T0 + DAY_MS)
    assert set(rows["close"][:201].tolist()) == {120}
    assert set(rows["open"][1:201].tolist()) == {120}
    assert rows["close"][201] == 100
    assert set(store.read(1, FIVE, T0 + 5 * MINUTE_MS, T0 + 200 * MINUTE_MS)["close"].tolist()) == {120}


def test_the_open_parent_comes_back_folded_to_shortly_before_the_boundary(store):
    own(store, T0 + 47 * MINUTE_MS)
    put(store, minutes(range(100, 147)))
    intervals = parse_intervals(["5m", "30m", "1h"])
    refolded = refold(store, [Span(1, T0, T0 + MINUTE_MS)], intervals, T0 + 47 * MINUTE_MS)
    assert refolded.upto_ms.tolist() == [T0 + 42 * MINUTE_MS]
    base = refolded.bases[0]
    assert (base["interval"], base["open_ms"], base["trades"], base["close"]) == (BY_NAME["1h"].code, T0, 42, 141)
    refolded = refold(store, [Span(1, T0 + 46 * MINUTE_MS, T0 + 47 * MINUTE_MS)], intervals, T0 + 47 * MINUTE_MS)
    found = {
        int(b["interval"]): (int(u), int(b["trades"])) for b, u in zip(refolded.bases, refolded.upto_ms, strict=True)
    }
    assert found == {
        FIVE.code: (T0 + 45 * MINUTE_MS, 0),
        BY_NAME["30m"].code: (T0 + 42 * MINUTE_MS, 12),
        BY_NAME["1h"].code: (T0 + 42 * MINUTE_MS, 42),
    }


def test_an_open_parent_is_folded_up_to_where_the_engine_begins(store):
    """Of the minutes before it began the engine knows nothing: a base that ended earlier would leave them out."""
    own(store, T0 + 47 * MINUTE_MS)
    put(store, minutes(range(100, 147)))
    for held_ms, upto_ms in ((T0, 42), (T0 + 45 * MINUTE_MS, 45), (T0 + 60 * MINUTE_MS, 47)):
        span = Span(1, T0 + 46 * MINUTE_MS, T0 + 47 * MINUTE_MS, held_ms=held_ms)
        refolded = refold(store, [span], parse_intervals(["1h"]), T0 + 47 * MINUTE_MS)
        assert refolded.upto_ms.tolist() == [T0 + upto_ms * MINUTE_MS]
        assert refolded.bases["trades"].tolist() == [upto_ms]


def test_pieces_that_are_not_stored_complete_an_open_parent_and_a_break_gives_none(store):
    week_ms = BY_NAME["1w"].open_at(T0)
    own(store, T0 + 10 * MINUTE_MS)
    put(store, minutes(range(100, 110)))
    intervals = parse_intervals(["1w"])
    span = Span(1, T0, T0 + MINUTE_MS)
    assert len(refold(store, [span], intervals, T0 + 10 * MINUTE_MS).bases) == 0
    days = minutes(range(50, 56), trades=1_000)
    days["interval"] = BY_NAME["1d"].code
    days["open_ms"] = week_ms + np.arange(6) * DAY_MS
    refolded = refold(store, [span], intervals, T0 + 10 * MINUTE_MS, extra_pieces={1: days})
    assert refolded.bases["trades"].tolist() == [6_005]
    assert (refolded.bases["open"][0], refolded.bases["close"][0]) == (50, 104)


def test_nothing_is_written_past_what_the_owner_has_closed(store):
    own(store, T0 + 10 * MINUTE_MS)
    put(store, minutes(range(100, 110)))
    refold(store, [Span(1, T0, T0 + 10 * MINUTE_MS)], parse_intervals(["5m", "1h"]), T0 + 5 * MINUTE_MS)
    assert len(store.read(1, FIVE, T0, T0 + HOUR_MS)) == 1


def test_a_month_of_official_minutes_rolls_up_the_same_by_any_way(shared_data, store):
    rows = np.concatenate(list(read_klines(shared_data / "usdm_ALGOUSDT-1m-2024-09.csv.gz", symbol="AAAUSDT")))
    put(store, rows)
    end_ms = T0 + 30 * DAY_MS
    refold(store, [Span(1, T0, end_ms)], parse_intervals(["5m", "1h", "1d", "1M"]), None, numbers_changed=False)
    chained = store.read(1, BY_NAME["1M"], T0, end_ms)
    refold(store, [Span(1, T0, end_ms)], parse_intervals(["1d"]), None, numbers_changed=False)
    days = store.read(1, BY_NAME["1d"], T0, end_ms)
    assert len(days) == 30
    assert chained["trades"][0] == rows["trades"].sum() == days["trades"].sum()
    assert chained["high"][0] * 10 ** int(rows["price_scale"][0] - chained["price_scale"][0]) == rows["high"].max()
    assert chained["open"][0] == days["open"][0]
