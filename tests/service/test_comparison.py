"""A closing push against our minute: equal ones verify; one that trades do not confirm verifies nothing."""

import numpy as np
import pytest

from engine.test_edges import one  # noqa: F401 - a fixture
from engine.test_properties import minutes_after, trade_at
from klagg.engine import matching
from klagg.interval import MINUTE, MINUTE_MS
from klagg.model import Candles, Flag, Origin
from klagg.service.comparison import GRACE_MS, Comparison


class Core:
    """What a comparison needs of a shard."""

    def __init__(self, engine):
        self.engine = engine

    def compare(self, klines):
        return self.engine.compare(klines)

    def replace(self, klines):
        return self.engine.replace(klines)


def push_of(rows: Candles, slot: int, open_ms: int) -> Candles:
    """The push that equals a minute."""
    push = rows[(rows["interval"] == MINUTE.code) & (rows["open_ms"] == open_ms)][:1].copy()
    push["slot"], push["origin"] = slot, Origin.EXCHANGE
    push["flags"] = Flag.CLOSED | Flag.VERIFIED
    return push


@pytest.fixture
def told(one):  # noqa: F811
    """Two minutes, the first proven by ids, the second with a trade missing, and the pushes that equal them."""
    one.hear(trade_at(1, one.start_ms - 1), trade_at(2, one.start_ms))
    minutes_after(one, 1)
    one.hear(trade_at(3, one.now_ms), trade_at(5, one.now_ms + 1))
    one.wait(5_000)
    one.expire_holes()
    minutes_after(one, 2)
    rows = one.engine.collect()
    pushes = [push_of(rows, one.slot, one.start_ms + n * MINUTE_MS) for n in range(2)]
    return one, Comparison(Core(one.engine)), pushes  # type: ignore[arg-type]


def origin_and_verified(one, place):  # noqa: F811
    row = one.engine._rows[(one.start_ms // MINUTE_MS + place) % 64, one.slot]
    return Origin(int(row["origin"])), bool(row["flags"] & Flag.VERIFIED)


def test_an_equal_push_verifies(told):
    one, comparison, pushes = told  # noqa: F811
    comparison.take(np.concatenate(pushes), one.now_ms)
    verified, replaced = comparison.judge(one.now_ms)
    assert (len(verified), len(replaced), comparison.take_asked()) == (2, 0, [])
    assert [origin_and_verified(one, place)[1] for place in (0, 1)] == [True, True]


def test_a_push_that_trades_do_not_confirm_verifies_nothing_and_the_exchange_is_asked(told):
    one, comparison, pushes = told  # noqa: F811
    before = [origin_and_verified(one, place)[0] for place in (0, 1)]
    assert before == [Origin.TRADES, Origin.PARTIAL]
    other = np.concatenate(pushes)
    other["volume_lo"] += 1
    comparison.take(other, one.now_ms)
    verified, replaced = comparison.judge(one.now_ms + GRACE_MS)
    assert len(verified) == 0
    assert comparison.take_asked() == [(one.slot, one.start_ms), (one.slot, one.start_ms + MINUTE_MS)]
    assert comparison.take_asked() == []
    # What is known to be incomplete is filled, what stands on evidence stays.
    assert [origin_and_verified(one, place) for place in (0, 1)] == [(before[0], False), (Origin.EXCHANGE, False)]
    assert replaced["open_ms"].tolist() == [one.start_ms + MINUTE_MS]
    assert (comparison.differences, comparison.completed) == (1, 1)
    # The settled kline decides, whichever it says.
    settled = np.concatenate(pushes)
    assert one.engine.replace(settled).tolist() == [matching.EQUAL, matching.EQUAL]
    assert [origin_and_verified(one, place)[1] for place in (0, 1)] == [True, True]


def test_a_difference_may_be_a_trade_on_its_way(told):
    one, comparison, pushes = told  # noqa: F811
    other = pushes[0].copy()
    other["trades"] += 1
    comparison.take(other, one.now_ms)
    assert [len(part) for part in comparison.judge(one.now_ms + GRACE_MS - 1)] == [0, 0]
    assert comparison.take_asked() == []
