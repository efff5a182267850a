"""Well-formed answers of klines that are wrong: what of them is believed, and that nothing but an error of the exchange leaves the door."""

import asyncio
import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klagg.errors import ExchangeError
from klagg.interval import MINUTE, MINUTE_MS
from repair.rig import T0, Answer, Rig, numbers

END = T0 + 1_200 * MINUTE_MS
"""Three pages of USDT-M, two of spot."""


@pytest.fixture
def rig(tmp_path):
    rig = Rig(tmp_path)
    rig.clock.jump(1_300 * MINUTE_MS)
    yield rig
    rig.store.close()


async def klines(rig, start_ms=T0, end_ms=END):
    asking = asyncio.ensure_future(
        rig.rest.klines("AAAUSDT", MINUTE, start_ms=start_ms, end_ms=end_ms, price_scale=2, qty_scale=1)
    )
    while not asking.done():
        await rig.clock.advance(1_000)
    return asking.result()


def lies(rig, *made):
    """The first answers of klines are changed by these, one after the other; None leaves one as it is."""
    left = list(made)

    def fault(path, params, _now_ms):
        change = left.pop(0) if left and path == "/klines" else None
        if change is None:
            return None
        rows = rig.exchange._klines(params, int(params["limit"]))
        return Answer(json.dumps(change(rows)).encode())

    rig.exchange.fault = fault


def empty(_rows):
    return []


def early_end(rows):
    return rows[: len(rows) // 3]


def without_head(rows):
    return rows[7:]


def doubled(rows):
    return [row for row in rows for _ in range(2)]


def backwards(rows):
    return rows[::-1]


def contradicting(rows):
    return [*rows[:5], [*rows[4][:1], "1.00", *rows[4][2:]], *rows[5:]]


def page_before(rows):
    return [[row[0] - 100 * MINUTE_MS, *row[1:]] for row in rows]


def off_grid(rows):
    return [[row[0] + 7, *row[1:]] for row in rows]


@pytest.mark.parametrize("page", [0, 1, 2])
@pytest.mark.parametrize("lie", [empty, early_end, doubled, backwards, contradicting, page_before])
async def test_an_answer_that_lies_once_takes_nothing_away(rig, lie, page):
    lies(rig, *[None] * page, lie)
    rows = await klines(rig)
    assert rows["open_ms"].tolist() == list(range(T0, END, MINUTE_MS))
    assert rows["close"].tolist() == [numbers("AAAUSDT", at // MINUTE_MS)[3] for at in range(T0, END, MINUTE_MS)]


async def test_what_is_absent_at_a_seam_of_two_answers_is_asked_for_within_one(rig):
    lies(rig, None, without_head)
    rows = await klines(rig)
    assert rows["open_ms"].tolist() == list(range(T0, END, MINUTE_MS))


async def test_an_honest_absence_costs_one_more_request_only_at_the_end(rig):
    rig.exchange.lacks["AAAUSDT"] = set(range(T0 + 20 * MINUTE_MS, T0 + 30 * MINUTE_MS, MINUTE_MS))
    assert len(await klines(rig, T0, T0 + 90 * MINUTE_MS)) == 80
    assert rig.exchange.requests("AAAUSDT") == 1
    await klines(rig, T0, T0 + 25 * MINUTE_MS)
    assert rig.exchange.requests("AAAUSDT") == 3


MANGLED = [empty, early_end, without_head, doubled, backwards, contradicting, page_before, off_grid]


def shuffled(seed):
    def change(rows):
        kept = [row for row in rows if random.Random(f"{seed}{row[0]}").random() > 0.1]
        random.Random(seed).shuffle(kept)
        return kept

    return change


def nonsense(value):
    return lambda rows: [*rows[:3], value, *rows[3:]]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=12),
    max_leaves=14,
)
changes = st.sampled_from([None, *MANGLED]) | st.integers(0, 99).map(shuffled) | values.map(nonsense)


@settings(max_examples=60, deadline=None)
@given(st.lists(changes, max_size=8))
def test_whatever_comes_what_is_taken_is_true(tmp_path_factory, made):
    async def play():
        rig = Rig(tmp_path_factory.mktemp("answers"))
        try:
            rig.clock.jump(1_300 * MINUTE_MS)
            lies(rig, *made)
            try:
                rows = await klines(rig)
            except ExchangeError:
                rows = None
            for row in rows if rows is not None else ():
                if MINUTE.is_open(int(row["open_ms"])):
                    assert int(row["close"]) == numbers("AAAUSDT", int(row["open_ms"]) // MINUTE_MS)[3]
            assert rows is None or (np.diff(rows["open_ms"]) > 0).all()
            rig.exchange.fault = lambda *_: None
            assert len(await klines(rig)) == 1_200, "honest answers resume, and all is there"
        finally:
            rig.store.close()

    asyncio.run(play())
