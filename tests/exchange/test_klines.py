"""Kline rows to candles, exactly, and the cheapest pages."""

import gzip
import json
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klagg.errors import MalformedMessage, NumberError
from klagg.exchange.decimals import mantissa_and_scale, price_at, sum_at
from klagg.exchange.klines import page, parse_rows, weight_of
from klagg.exchange.rest import count_opens
from klagg.fixed import join, parse
from klagg.interval import INTERVALS, MINUTE, Interval, parse_interval
from klagg.model import Flag, Market, Origin

OPEN_MS = 1_700_000_040_000
ROW = [OPEN_MS, "1.50", "2.0", "1.25", "1.75", "10", OPEN_MS + 59_999, "16.5", 4, "3", "4.5", "0"]
LATE_MS = OPEN_MS + 3_600_000


def rows(*given: list, interval: Interval = MINUTE, asked_ms: int = LATE_MS, price_scale: int = 2, qty_scale: int = 0):
    return parse_rows(
        json.dumps(given).encode(),
        interval,
        start_ms=OPEN_MS - 600_000,
        end_ms=OPEN_MS + 600_000,
        asked_ms=asked_ms,
        price_scale=price_scale,
        qty_scale=qty_scale,
    )


def exact(row, name: str) -> Decimal:
    if name in ("open", "high", "low", "close"):
        return Decimal(f"{int(row[name])}e-{int(row['price_scale'])}")
    scale = int(row["qty_scale"]) + (int(row["price_scale"]) if "quote" in name else 0)
    # Written out, not `scaleb`: that rounds to the context's 28 digits.
    return Decimal(f"{join(int(row[f'{name}_hi']), int(row[f'{name}_lo']))}e-{scale}")


FIELDS = ("open", "high", "low", "close", "volume", None, "quote", None, "taker_volume", "taker_quote")


def test_a_row_is_a_verified_candle_of_the_exchange() -> None:
    (candle,) = rows(ROW).candles
    assert (candle["open_ms"], candle["open"], candle["high"], candle["low"], candle["close"]) == (
        OPEN_MS,
        150,
        200,
        125,
        175,
    )
    assert (candle["price_scale"], candle["qty_scale"], candle["trades"]) == (2, 0, 4)
    assert exact(candle, "quote") == Decimal("16.5")
    assert candle["origin"] == Origin.EXCHANGE
    assert candle["flags"] == Flag.CLOSED | Flag.VERIFIED
    assert (candle["first_id"], candle["last_id"], candle["slot"], candle["interval"]) == (-1, -1, 0, 0)


def test_a_running_candle_is_left_out_and_an_unsettled_one_not_verified() -> None:
    end_ms = OPEN_MS + 60_000
    assert len(rows(ROW, asked_ms=end_ms - 1).candles) == 0
    assert rows(ROW, asked_ms=end_ms).candles["flags"].tolist() == [Flag.CLOSED]
    assert rows(ROW, asked_ms=end_ms + 10_000).candles["flags"].tolist() == [Flag.CLOSED | Flag.VERIFIED]


def test_rows_off_the_grid_or_out_of_range_are_left_out() -> None:
    odd = [OPEN_MS + 14_789, *ROW[1:]]
    late = [OPEN_MS + 600_000, *ROW[1:]]
    answer = rows(ROW, odd, late)
    assert answer.candles["open_ms"].tolist() == [OPEN_MS]
    # A row behind the range (a running candle, say) is no sign that the page went so far.
    assert (answer.off_grid, answer.rows, answer.last_open_ms) == (1, 3, OPEN_MS + 14_789)


def test_a_row_told_twice_is_one() -> None:
    answer = rows(ROW, ROW, [OPEN_MS + 60_000, *ROW[1:]])
    assert answer.candles["open_ms"].tolist() == [OPEN_MS, OPEN_MS + 60_000]
    assert answer.repeated == 1


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ([ROW, [OPEN_MS, "1.51", *ROW[2:]]], "two different rows"),
        ([[OPEN_MS + 60_000, *ROW[1:]], ROW], "disorder"),
        ([ROW, [OPEN_MS + 60_000, *ROW[1:]], ROW], "disorder"),
        ([[OPEN_MS - 660_000, *ROW[1:]], ROW], "before the"),
    ],
)
def test_an_answer_that_is_none_is_void(given: list, reason: str) -> None:
    with pytest.raises(MalformedMessage, match=reason):
        rows(*given)


def test_a_row_with_more_digits_widens_itself() -> None:
    fine = [OPEN_MS + 60_000, "1.50001", "2.0", "1.25", "1.75", "10.001", 0, "16.123456789", 4, "3", "4.5", "0"]
    first, second = rows(ROW, fine).candles
    assert (first["price_scale"], first["qty_scale"]) == (2, 0)
    assert (second["price_scale"], second["qty_scale"]) == (5, 4)
    for at, name in enumerate(FIELDS, start=1):
        if name is not None:
            assert exact(second, name) == Decimal(fine[at])


def test_large_sums_use_both_words() -> None:
    huge = [*ROW[:5], "123456789012345678901.5", ROW[6], "9" * 30, *ROW[8:]]
    (candle,) = rows(huge, price_scale=2, qty_scale=1).candles
    assert exact(candle, "volume") == Decimal("123456789012345678901.5")
    assert exact(candle, "quote") == Decimal("9" * 30)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[[1,2",
        b'[["x"]]',
        b"[[1]]",
        b"[1]",
        b"[null]",
        json.dumps([[*ROW[:8], 4.0, *ROW[9:]]]).encode(),
        b'{"code":-1121,"msg":"Invalid symbol."}',
        json.dumps([[*ROW[:1], "1e5", *ROW[2:]]]).encode(),
        json.dumps([[*ROW[:1], "-1", *ROW[2:]]]).encode(),
        json.dumps([[*ROW[:1], 1.5, *ROW[2:]]]).encode(),
        json.dumps([[*ROW[:8], -4, *ROW[9:]]]).encode(),
        b"<html>",
        b"\xff\xfe",
    ],
)
def test_garbage_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedMessage, match="kline"):
        parse_rows(body, MINUTE, start_ms=0, end_ms=10**14, asked_ms=10**14, price_scale=0, qty_scale=0)


@pytest.mark.parametrize("file", ["rest_samples.json.gz", "rest_samples_2026.json"])
def test_recorded_answers_are_read_exactly(shared_data: Path, file: str) -> None:
    raw = (shared_data / file).read_bytes()
    samples = json.loads(gzip.decompress(raw) if file.endswith("gz") else raw)
    read = 0
    for sample in samples:
        if "lines" not in sample["path"]:
            continue
        interval = parse_interval(dict(part.split("=") for part in sample["query"].split("&"))["interval"])
        body = json.dumps(sample["data"]).encode()
        answer = parse_rows(body, interval, start_ms=0, end_ms=10**14, asked_ms=10**14, price_scale=1, qty_scale=1)
        assert answer.off_grid == 0
        assert len(answer.candles) == len(sample["data"])
        for row, candle in zip(sample["data"], answer.candles, strict=True):
            assert candle["open_ms"] == row[0]
            assert candle["trades"] == row[8]
            values = [exact(candle, name) for name in FIELDS if name is not None]
            assert values == [Decimal(row[at]) for at in (1, 2, 3, 4, 5, 7, 9, 10)]
            read += 1
    assert read >= 4


@pytest.mark.parametrize(
    ("market", "wanted", "limit", "weight"),
    [
        (Market.USDM, 1, 1, 1),
        (Market.USDM, 100, 100, 1),
        (Market.USDM, 101, 101, 2),
        (Market.USDM, 5_000, 500, 2),
        (Market.SPOT, 5_000, 1_000, 2),
        (Market.SPOT, 7, 7, 2),
    ],
)
def test_pages_are_the_cheapest(market: Market, wanted: int, limit: int, weight: int) -> None:
    assert page(market, wanted) == (limit, weight)


@given(st.integers(1, 5_000))
def test_no_other_way_to_ask_is_cheaper(wanted: int) -> None:
    ladder = ((100, 1), (500, 2), (1_000, 5), (1_500, 10))
    best = min(weight * -(-wanted // limit) for limit, weight in ladder)
    assert weight_of(Market.USDM, wanted) <= best


@given(st.sampled_from(INTERVALS), st.integers(0, 4 * 10**12), st.integers(0, 3 * 10**11))
def test_opens_are_counted_as_they_are_listed(interval: Interval, start_ms: int, length_ms: int) -> None:
    length_ms %= 40 * max(interval.step_ms, 86_400_000)
    if interval.step_ms and interval.step_ms < 86_400_000:
        length_ms %= 50 * interval.step_ms
    end_ms = start_ms + length_ms
    assert count_opens(interval, start_ms, end_ms) == len(list(interval.opens(start_ms, end_ms)))


DECIMAL = st.from_regex(r"[0-9]{1,12}(\.[0-9]{0,20})?", fullmatch=True) | st.text("0123456789.-+e ", max_size=12)


@given(DECIMAL)
def test_decimals_are_read_as_the_slow_twin_reads_them(text: str) -> None:
    try:
        slow = parse(text)
    except NumberError:
        slow = None
    if slow is None or slow[0] < 0:
        with pytest.raises(NumberError):
            mantissa_and_scale(text)
        with pytest.raises(NumberError):
            price_at(text, 18)
    else:
        assert mantissa_and_scale(text) == slow


@given(DECIMAL, st.integers(0, 18))
def test_sums_are_exact_or_refused(text: str, scale: int) -> None:
    try:
        value = sum_at(text, scale)
    except NumberError:
        return
    assert Decimal(f"{value}e-{scale}") == Decimal(text)
