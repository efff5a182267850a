"""The kernels and the plain parsers say the same of every row."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from klagg import fixed
from klagg.archive import kernels
from klagg.archive.kline_layout import STANDARD
from klagg.archive.klines import _put, _Rows
from klagg.archive.layout import Layout, Role, from_header, headerless
from klagg.archive.rows import BadRow, Row, parse_row
from klagg.errors import NumberError
from klagg.model import TRADE

digits = st.text("0123456789", min_size=1, max_size=20)
decimals = st.one_of(
    st.tuples(digits, digits).map(".".join),
    digits,
    st.integers(0, 10**12).map(lambda n: fixed.to_text(n, 8)),
    st.text("0123456789.-+e ", max_size=12),
)
ids = st.one_of(st.integers(0, 10**19).map(str), st.sampled_from(["-1", "", "x", "+1"]))
times = st.one_of(
    st.integers(10**12, 10**13 - 1).map(str),
    st.integers(10**15, 10**16 - 1).map(str),
    st.sampled_from(["", "12", "1" * 14]),
)
booleans = st.sampled_from(["true", "false", "True", "False", "1", "0", "", "tru", "yes", "10"])

AGG = headerless("1,1,1,1,1,1,true")
RECORDER = from_header(
    "TimestampOfReceive,Stream,EventType,EventTime,TransactionTime,Symbol,TradeId,Price,Quantity,IsBuyerMarketMaker,XUnknownParameter"
)
SYMBOLS = ["A", "币安", "ABCDEF"]

agg_rows = st.tuples(ids, decimals, decimals, ids, ids, times, booleans).map(",".join)
recorder_rows = st.tuples(
    times,
    st.sampled_from(["a@trade", "", '"']),
    st.sampled_from(["trade", "aggTrade", "kline", ""]),
    st.just("1"),
    times,
    st.sampled_from([*SYMBOLS, "B", ""]),
    ids,
    decimals,
    decimals,
    booleans,
    st.sampled_from(["MARKET", "", "MARKETS", "INSURANCE_FUND"]),
).map(",".join)


@settings(max_examples=400)
@given(decimals)
def test_decimals(text: str) -> None:
    mantissas, scales = np.zeros(1, np.int64), np.zeros(1, np.uint8)
    odd = kernels.parse_decimals(
        mantissas, scales, np.zeros(kernels.STATE_WORDS, np.int64), np.frombuffer(text.encode() + b"\n", np.uint8)
    )
    if not odd:
        assert (int(mantissas[0]), int(scales[0])) == fixed.parse(text)
        return
    try:
        mantissa, _ = fixed.parse(text)
    except NumberError:
        return
    # What is held but not plain: signs, and zeros beyond eighteen digits.
    assert mantissa <= 0 or text[0] == "+" or len(text.replace(".", "")) > 18


def kernel_row(line: str, layout: Layout) -> tuple[object, ...] | None:
    out, receive, lines = np.zeros(1, TRADE), np.full(1, -1, np.int64), np.zeros(1, np.int64)
    names, lengths = np.zeros((6, 64), np.uint8), np.zeros(6, np.int64)
    for index, name in enumerate([*kernels.WORDS, *SYMBOLS]):
        encoded = np.frombuffer(name.encode(), np.uint8)
        names[index, : len(encoded)] = encoded
        lengths[index] = len(encoded)
    state = np.zeros(kernels.STATE_WORDS, np.int64)
    buf = np.frombuffer(line.encode() + b"\n", np.uint8)
    odd = kernels.parse_rows(out, receive, lines, state, buf, np.array(layout.roles, np.uint8), names, lengths, 6, 0)
    if odd:
        assert state.tolist() == [0, 0, 0]
        return None
    assert state.tolist() == [len(buf), 1, 1]
    assert lines.tolist() == [1]
    return (*out[0].tolist(), int(receive[0]))


def plain_row(line: str, layout: Layout) -> tuple[object, ...] | str:
    try:
        row = parse_row(line, layout, "A")
    except BadRow:
        return "bad"
    if not isinstance(row, Row):
        return "other"
    slot = SYMBOLS.index(row.symbol) if row.symbol in SYMBOLS else -1
    return (slot, *row[1:3], int(row.buyer_is_maker), *row[4:])


@settings(max_examples=400)
@given(st.one_of(agg_rows.map(lambda row: (row, AGG)), recorder_rows.map(lambda row: (row, RECORDER))))
def test_rows(case: tuple[str, Layout]) -> None:
    line, layout = case
    fast = kernel_row(line, layout)
    if fast is not None:
        assert plain_row(line, layout) == fast


@given(
    st.integers(0, 10**17),
    st.integers(0, 10**12),
    st.integers(0, 18),
    st.integers(0, 12),
    st.integers(10**12, 10**13 - 1),
    st.booleans(),
)
def test_a_plain_row_is_taken_by_the_kernel(
    price: int, qty: int, price_scale: int, qty_scale: int, time: int, maker: bool
) -> None:
    line = f"7,{fixed.to_text(price, min(price_scale, 17))},{fixed.to_text(qty, qty_scale)},10,12,{time},{maker}"
    assert kernel_row(line, AGG) == plain_row(line, AGG)


kline_rows = st.tuples(
    times, decimals, decimals, decimals, decimals, decimals, times, decimals, ids, decimals, decimals, st.just("0")
)
plain = st.tuples(st.integers(0, 10**9), st.integers(0, 10**6), st.integers(0, 12)).map(
    lambda n: f"{n[0]}.{n[1]:0{n[2]}d}"
)
good_kline_rows = st.tuples(
    st.just("1723161240000"), *[plain] * 5, st.just("1723161299999"), plain, st.just("7"), plain, plain, st.just("0")
)


@settings(max_examples=400)
@given(st.one_of(kline_rows, good_kline_rows).map(",".join))
def test_kline_rows(line: str) -> None:
    fast, slow = _Rows(), _Rows()
    state = np.zeros(kernels.STATE_WORDS, np.int64)
    buf = np.frombuffer(line.encode() + b"\n", np.uint8)
    odd = kernels.parse_klines(fast.times[:1], fast.wholes[:1], fast.fractions[:1], fast.digits[:1], state, buf)
    if odd:
        return
    _put(slow, 0, line, STANDARD)
    for name in ("times", "wholes", "fractions", "digits"):
        assert getattr(fast, name)[0].tolist() == getattr(slow, name)[0].tolist()


def test_roles_are_what_the_kernel_was_compiled_with() -> None:
    assert [int(role) for role in Role] == list(range(12))
