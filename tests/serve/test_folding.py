"""Folding at read against a plain fold in Python, and numbers written column by column against one by one."""

import json
from decimal import Decimal

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from klagg.fixed import WORD, to_text
from klagg.interval import BY_NAME, DAY_MS, INTERVALS, MINUTE, MINUTE_MS
from klagg.model import CANDLE, Candles, Flag, Instrument, Market, Origin, Status
from klagg.serve import digits
from klagg.serve.digits import Digits, Texts, kline_rows
from klagg.serve.folding import SUMS, fold, fold_source, joined, opens_of, sum_of, with_later
from klagg.serve.source import Frame

START_MS = 1_753_876_800_000
ZONES = st.integers(-12 * 4, 14 * 4).map(lambda quarters: quarters * 15 * MINUTE_MS)
FRAMES = st.builds(Frame, st.sampled_from(INTERVALS), ZONES)


@st.composite
def minutes(draw: st.DrawFn, most: int = 60) -> Candles:
    """Consecutive minutes of one series, some without trades, with sums of one and of two words and mixed scales."""
    count = draw(st.integers(1, most))
    rows = np.zeros(count, CANDLE)
    first_ms = START_MS + draw(st.integers(0, 3 * 24 * 60)) * MINUTE_MS
    rows["open_ms"] = first_ms + np.arange(count) * MINUTE_MS
    seed = draw(st.integers(0, 2**32 - 1))
    chance = np.random.default_rng(seed)
    big = draw(st.sampled_from([10**6, 10**17, 10**18 - 1]))
    rows["price_scale"], rows["qty_scale"] = draw(st.integers(0, 9)), draw(st.integers(0, 8))
    if draw(st.booleans()) and big < 10**17:
        rows["price_scale"][: count // 2] = max(0, int(rows["price_scale"][0]) - 2)
    for name in ("open", "close"):
        rows[name] = chance.integers(1, 10**7, count)
    rows["high"] = np.maximum(rows["open"], rows["close"])
    rows["low"] = np.minimum(rows["open"], rows["close"])
    rows["trades"] = chance.integers(0, 3, count)
    for name in SUMS:
        rows[f"{name}_lo"] = np.where(rows["trades"] > 0, chance.integers(0, big, count), 0)
        if big == 10**18 - 1:
            rows[f"{name}_hi"] = np.where(rows["trades"] > 0, chance.integers(0, 1000, count), 0)
    rows["first_id"] = np.where(rows["trades"] > 0, np.arange(count), -1)
    rows["last_id"] = rows["first_id"]
    rows["flags"] = Flag.CLOSED.value | chance.choice([0, Flag.VERIFIED.value], count)
    rows["origin"] = Origin.TRADES.value
    return rows


def price(row: np.void, name: str) -> Decimal:
    return Decimal(int(row[name])).scaleb(-int(row["price_scale"]))


def total(rows: Candles, name: str) -> Decimal:
    places = [int(r["qty_scale"]) + (int(r["price_scale"]) if "quote" in name else 0) for r in rows]
    return sum((Decimal(to_text(sum_of(r, name), s)) for r, s in zip(rows, places, strict=True)), Decimal(0))


def assert_is_fold(parent: np.void, children: Candles) -> None:
    traded = children[children["trades"] > 0]
    of = traded if len(traded) else children[:1]
    assert price(parent, "open") == price(of[0], "open")
    assert price(parent, "close") == price(of[-1], "close")
    assert price(parent, "high") == max(price(row, "high") for row in of)
    assert price(parent, "low") == min(price(row, "low") for row in of)
    assert parent["trades"] == children["trades"].sum()
    assert parent["first_id"] == (traded["first_id"][0] if len(traded) else -1)
    assert parent["last_id"] == (traded["last_id"][-1] if len(traded) else -1)
    for name in SUMS:
        assert total(np.array([parent]), name) == total(children, name)
        assert 0 <= parent[f"{name}_lo"] < WORD
    assert bool(parent["flags"] & Flag.VERIFIED) == bool((children["flags"] & Flag.VERIFIED != 0).all())


@given(minutes(), FRAMES)
def test_a_fold_is_that_of_its_children(children: Candles, frame: Frame) -> None:
    folded = fold(children, frame)
    opens = sorted({frame.open_at(t) for t in children["open_ms"].tolist()})
    assert folded.candles["open_ms"].tolist() == opens
    for parent, whole in zip(folded.candles, folded.whole, strict=True):
        open_ms = int(parent["open_ms"])
        of = children[[frame.open_at(t) == open_ms for t in children["open_ms"].tolist()]]
        assert_is_fold(parent, of)
        assert whole == (len(of) * MINUTE_MS == frame.next_open(open_ms) - open_ms)


@given(minutes())
def test_a_child_that_lacks_leaves_its_parent_not_whole(children: Candles) -> None:
    frame = Frame(BY_NAME["5m"])
    without = np.delete(children, len(children) // 2)
    gone_ms = frame.open_at(int(children["open_ms"][len(children) // 2]))
    folded = fold(without, frame)
    assert not folded.whole[folded.candles["open_ms"] == gone_ms].any()


@given(minutes(), FRAMES, st.integers(0, 59), st.integers(-1, 59), st.integers(0, MINUTE_MS - 1))
def test_the_candle_of_the_listing_is_whole_with_all_of_its_pieces_since(
    children: Candles, frame: Frame, listed_at: int, gone: int, late_ms: int
) -> None:
    listed_ms = int(children["open_ms"][listed_at % len(children)]) + late_ms
    since = children[children["open_ms"] > listed_ms - MINUTE_MS]
    children = since[np.arange(len(since)) != gone]
    folded = fold(children, frame, listed_ms)
    assert folded.candles.tobytes() == fold(children, frame).candles.tobytes()
    there = set(children["open_ms"].tolist())
    for parent, whole in zip(folded.candles, folded.whole, strict=True):
        open_ms = int(parent["open_ms"])
        first_ms = max(open_ms, listed_ms - listed_ms % MINUTE_MS)
        assert whole == there.issuperset(range(first_ms, frame.next_open(open_ms), MINUTE_MS))


@given(minutes())
def test_spans_join(children: Candles) -> None:
    whole = joined(children)
    assert_is_fold(whole[0], children)
    middle = len(children) // 2
    if middle > 0 and len(set(children["price_scale"].tolist())) == 1:
        both = with_later(joined(children[:middle]), joined(children[middle:]))
        for name in CANDLE.names or ():
            if name not in {"flags", "origin"}:
                assert both[name] == whole[name], name


@given(FRAMES, st.integers(0, 2_000_000_000_000))
def test_opens_of_columns_are_those_of_the_calendar(frame: Frame, t_ms: int) -> None:
    assert opens_of(np.array([t_ms], np.int64), frame).tolist() == [frame.open_at(t_ms)]
    plain = frame.plain
    assert plain.open_at(t_ms) == frame.open_at(t_ms)


@given(FRAMES, st.integers(0, 2_000_000_000_000))
def test_what_a_frame_is_folded_from_tiles_it(frame: Frame, t_ms: int) -> None:
    child = fold_source(frame.plain, INTERVALS)
    open_ms = frame.open_at(t_ms)
    assert child.is_open(open_ms)
    assert child.is_open(frame.next_open(open_ms))
    if child.step_ms != DAY_MS:
        assert fold_source(frame, [MINUTE]) is MINUTE


@given(minutes(), st.integers(0, 3), st.integers(0, 3), st.sampled_from([1, 1_000]))
def test_rows_are_written_exactly(rows: Candles, more_price: int, more_qty: int, unit: int) -> None:
    instrument = Instrument(Market.USDM, "X", Status.TRADING, int(rows["price_scale"].max()), int(rows["qty_scale"][0]))
    plain = Digits.of(instrument)
    places = Digits(plain.price + more_price, plain.qty + more_qty, plain.quote + more_price + more_qty)
    body = kline_rows(rows, Frame(MINUTE), places, unit)
    for text, row in zip(json.loads(body), rows, strict=True):
        assert text[0] == row["open_ms"] * unit
        assert text[6] == (row["open_ms"] + MINUTE_MS) * unit - 1
        for at, name in ((1, "open"), (2, "high"), (3, "low"), (4, "close")):
            assert Decimal(text[at]) == price(row, name)
            assert len(text[at].partition(".")[2]) == places.price
        for at, name, count in ((5, "volume", places.qty), (7, "quote", places.quote), (9, "taker_volume", places.qty)):
            assert Decimal(text[at]) == total(np.array([row]), name)
            assert len(text[at].partition(".")[2]) == count
        assert text[8] == row["trades"]
        assert text[11] == "0"
    assert body == digits._one_by_one(digits.at_one_scale(rows), Frame(MINUTE), places, unit)
    assert Texts(rows[0], places).c == json.loads(body)[0][4]
