"""The guard in SQL against the rules, for any sequence of writers and candles."""

import sqlite3
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klagg.interval import MINUTE, MINUTE_MS
from klagg.model import Market, Origin, Source
from klagg.rules import Action, Leave, State, decide
from klagg.store import Commit, Kind, What, open_store
from store.samples import SHARDS, T0, Owned, candle, flat, instrument


@dataclass(frozen=True)
class Attempt:
    fenced: bool
    amended: bool
    origin: int
    verified: bool
    close: int  # hundredths
    wide: bool  # the same number, written at a wider scale
    trades: int
    first_id: int
    source: int


def offer(attempt: Attempt) -> State:
    numbers = Decimal(attempt.close) / 100, attempt.trades
    ids = (attempt.first_id, 11) if attempt.trades else (-1, -1)
    return State(Origin(attempt.origin), attempt.verified, numbers, attempt.trades, *ids, source=Source(attempt.source))


def leave(attempt: Attempt) -> Leave:
    if not attempt.fenced:
        return Leave.UNFENCED
    return Leave.OWNER_AMENDS if attempt.amended else Leave.OWNER


attempts = st.builds(
    Attempt,
    fenced=st.booleans(),
    amended=st.booleans(),
    origin=st.integers(0, 6),
    verified=st.sampled_from([False, False, True]),
    close=st.sampled_from([110, 111]),
    wide=st.booleans(),
    trades=st.sampled_from([0, 4, 5]),
    first_id=st.sampled_from([-1, 7]),
    source=st.sampled_from(Source),
)


def as_candle(attempt: Attempt):
    factor = 1000 if attempt.wide else 1
    told = {
        "verified": attempt.verified,
        "amended": attempt.amended,
        "origin": attempt.origin,
        "source": attempt.source,
    }
    if not attempt.trades:
        return flat(price=attempt.close * factor, price_scale=5 if attempt.wide else 2, **told)
    prices = {"open": 100 * factor, "high": 120 * factor, "low": 90 * factor, "close": attempt.close * factor}
    return candle(
        **told,
        trades=attempt.trades,
        first_id=attempt.first_id,
        last_id=11,
        price_scale=5 if attempt.wide else 2,
        quote_lo=550_000 * factor,
        taker_quote_lo=110_000 * factor,
        **prices,
    )


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    store = open_store(str(tmp_path_factory.mktemp("guard") / "g.db"), mode="create")
    ids = store.put_instruments([instrument("BTCUSDT")], T0)
    owned = Owned(store, ids, store.claim(Market.USDM, owner="first", now_ms=T0))
    owned.commit(upto_ms=T0 + MINUTE_MS)
    yield owned
    store.close()


@settings(max_examples=250, deadline=None)
@given(st.lists(attempts, min_size=1, max_size=6), st.booleans())
def test_every_history_ends_as_the_plain_rules_say(shared, tries, together):
    store, expected = shared.store, None
    rolled_back = RuntimeError()
    with pytest.raises(RuntimeError), store.transaction():  # noqa: PT012  # the example is rolled back at its end
        for number, attempt in enumerate(tries):
            decision = decide(expected, offer(attempt), leave(attempt))
            seq = store.newest_seq()
            done = (shared.commit if attempt.fenced else shared.write)(as_candle(attempt))
            assert done.accepted[0] == (decision.action is not Action.REFUSE), number
            assert done.revisions[0] == decision.state.revision, number
            told = [what for event in store.events(seq, 9) if event.kind is Kind.CANDLES for what in event.values[:, 2]]
            happened = (
                What.CLOSED * (decision.action is Action.INSERT)
                | What.REVISED * (decision.action is Action.REPLACE)
                | What.VERIFIED * decision.became_verified
            )
            assert told == ([happened] if happened else []), number
            expected = decision.state
        (row,) = shared.stored()
        close = Decimal(int(row["close"])).scaleb(-int(row["price_scale"]))
        (revision,) = store.revisions(shared.btc, MINUTE, 0, 2**60)
        trades, first_id, last_id = (int(row[name]) for name in ("trades", "first_id", "last_id"))
        marks = row["origin"], bool(row["flags"] & 2)
        stored = State(*marks, (close, trades), trades, first_id, last_id, revision, Source(int(row["source"])))
        assert stored == expected
        counted = [(count.origin, count.verified, count.candles) for count in store.candle_counts(Market.USDM)]
        assert counted == [(expected.origin, expected.verified, 1)]
        raise rolled_back


def test_one_batch_may_hold_a_candle_twice_and_the_second_is_judged_against_the_first(owned):
    result = owned.commit(
        candle(origin=Origin.PARTIAL), candle(close=111), candle(origin=Origin.FLAT), upto_ms=T0 + MINUTE_MS
    )
    assert result.accepted.tolist() == [True, True, False]
    assert result.revisions.tolist() == [0, 1, 1]
    assert (result.written, result.refused, result.revised) == (2, 1, 1)
    assert [(c.origin, c.candles) for c in owned.store.candle_counts(Market.USDM)] == [(Origin.TRADES, 1)]


def test_the_statement_decides_also_where_a_stale_process_writes(owned, db):
    """The rule is in the database's statement, so a second store that knows nothing of the first cannot undo it."""
    owned.commit(candle(origin=Origin.EXCHANGE, verified=True), upto_ms=T0 + MINUTE_MS)
    other = open_store(str(db), mode="write")
    result = other.write(np.array([owned.btc]), candle(close=119))
    other.close()
    assert not result.accepted[0]
    assert owned.stored()["close"].tolist() == [110]


def test_a_two_word_sum_is_compared_across_scales(owned):
    wide = {"qty_scale": 6, "quote_lo": 550_000_000, "taker_volume_lo": 10**6, "taker_quote_lo": 110_000_000}
    owned.commit(candle(volume_hi=0, volume_lo=2 * 10**15), upto_ms=T0 + MINUTE_MS)
    assert not owned.write(candle(volume_hi=2, volume_lo=0, **wide)).changed[0]
    assert owned.write(candle(volume_hi=2, volume_lo=1, **wide)).changed[0]


def test_a_closed_candle_is_never_replaced_by_an_open_one(owned, db):
    owned.commit(candle(), upto_ms=T0 + MINUTE_MS)
    owned.commit(candle(closed=False, close=119))
    assert owned.stored()["close"].tolist() == [110]
    with sqlite3.connect(db) as connection:
        assert connection.execute("SELECT close, closed FROM candles").fetchall() == [("1.10", 1)]


def test_an_older_open_snapshot_does_not_replace_a_newer(owned):
    owned.commit(candle(T0 + MINUTE_MS, closed=False, close=115))
    owned.commit(candle(T0, closed=False, close=95))
    assert owned.store.open_candle(owned.btc, MINUTE)["close"].tolist() == [115]


def test_a_last_close_removes_the_snapshot_it_overtakes(owned):
    owned.commit(candle(closed=False))
    owned.commit(candle(), upto_ms=T0 + MINUTE_MS)
    assert len(owned.store.open_candle(owned.btc, MINUTE)) == 0


def test_several_commits_are_one_transaction(owned):
    ids, one = np.array([owned.btc]), candle()
    result = owned.store.commit_all(
        [
            Commit(owned.claim, SHARDS, T0 + MINUTE_MS, ids, one),
            Commit(owned.claim, SHARDS, T0 + 2 * MINUTE_MS, ids, candle(T0 + MINUTE_MS)),
        ]
    )
    assert result.written == 2
    assert owned.store.closed_upto(Market.USDM) == T0 + 2 * MINUTE_MS
