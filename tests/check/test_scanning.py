"""The rules of one series: no false alarm from what the exchange does, and each contradiction told."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from klagg import fixed
from klagg.check.report import Kind, Report
from klagg.check.scanning import Scan, Series
from klagg.interval import MINUTE, MINUTE_MS
from klagg.model import Candles, Flag, Market, Origin, no_candles

T0 = 1_725_235_200_000


def traded(trades: Sequence[Sequence[tuple[int, int, bool]]], scale: int = 2, qty_scale: int = 3) -> Candles:
    """Verified minutes of trades: (price, quantity, taker buys) each, all at one scale, priced by plain integers."""
    rows = no_candles(len(trades))
    number = 1_000
    price = trades[0][0][0] if trades and trades[0] else 100
    for at, (row, minute) in enumerate(zip(rows, trades, strict=True)):
        row["open_ms"] = T0 + at * MINUTE_MS
        row["price_scale"], row["qty_scale"] = scale, qty_scale
        row["origin"], row["flags"] = Origin.TRADES if minute else Origin.FLAT, Flag.CLOSED | Flag.VERIFIED
        row["first_id"] = row["last_id"] = -1
        prices = [one[0] for one in minute] or [price]
        price = prices[-1]
        row["open"], row["high"], row["low"], row["close"] = prices[0], max(prices), min(prices), price
        row["trades"] = len(minute)
        for name, takers in (("", False), ("taker_", True)):
            chosen = [one for one in minute if one[2] or not takers]
            row[f"{name}volume_hi"], row[f"{name}volume_lo"] = fixed.split(sum(qty for _, qty, _ in chosen))
            row[f"{name}quote_hi"], row[f"{name}quote_lo"] = fixed.split(sum(p * qty for p, qty, _ in chosen))
        if minute:
            row["first_id"], row["last_id"] = number, number + len(minute) - 1
            number += len(minute)
    return rows


def scan(candles: Candles, widest: int = 18, pieces: int = 1) -> list[tuple[Kind, int]]:
    report = Report()
    reading = Scan(Series(Market.USDM, "X", MINUTE, (), widest), report)
    for piece in np.array_split(candles, pieces):
        reading.feed(piece)
    reading.finish(None)
    return [(found.kind, (found.open_ms - T0) // MINUTE_MS) for found in report.findings]


one_trade = st.tuples(st.integers(1, 10**11), st.integers(1, 10**12), st.booleans())
markets = st.lists(st.lists(one_trade, max_size=4), min_size=1, max_size=8)


@given(markets, st.integers(0, 8), st.integers(0, 8), st.integers(1, 3))
def test_whatever_is_traded_contradicts_nothing(
    trades: list[list[tuple[int, int, bool]]], scale: int, qty_scale: int, pieces: int
) -> None:
    assert scan(traded(trades, scale, qty_scale), scale, pieces) == []


@given(markets, st.integers(8, 11), st.integers(0, 8))
def test_quote_volumes_that_the_exchange_cut_to_eight_digits_contradict_nothing(
    trades: list[list[tuple[int, int, bool]]], scale: int, qty_scale: int
) -> None:
    candles = traded(trades, scale, qty_scale)
    unit = 10 ** (scale + qty_scale - 8)
    for row, minute in zip(candles, trades, strict=True):
        for name, takers in (("quote", False), ("taker_quote", True)):
            cut = sum(p * qty // unit * unit for p, qty, buys in minute if buys or not takers)
            row[f"{name}_hi"], row[f"{name}_lo"] = fixed.split(cut)
    assert scan(candles, scale) == []


prices = st.lists(st.integers(10_000, 20_000), min_size=6, max_size=12)


@given(prices, st.integers(1, 4), st.integers(1, 5), st.booleans())
def test_a_price_that_gets_finer_or_coarser_is_no_finding(
    walk: list[int], digits: int, at: int, redenominated: bool
) -> None:
    """The exchange changes its scale; with a redenomination the price moves by the same power of ten."""
    candles = traded([[(price, 7, True)] for price in walk])
    part = candles[at:]
    part["price_scale"] += digits
    if not redenominated:
        for name in ("open", "high", "low", "close", "quote_lo", "taker_quote_lo"):
            part[name] *= 10**digits
    assert scan(candles, 2 + digits) == []


@given(prices, st.integers(1, 9), st.data())
def test_a_scale_changed_by_hand_is_found(walk: list[int], digits: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(1, len(walk) - 2))
    end = data.draw(st.integers(first + 1, len(walk) - 1))
    candles = traded([[(price, 7, True)] for price in walk])
    candles["price_scale"][first:end] += digits
    assert scan(candles, pieces=data.draw(st.integers(1, 4))) == [(Kind.SCALE, first)]


@given(prices, st.integers(1, 9), st.data())
def test_a_scale_beyond_the_instruments_is_found_at_either_end(
    walk: list[int], digits: int, data: st.DataObject
) -> None:
    at = data.draw(st.integers(1, len(walk) - 1))
    at_the_end = data.draw(st.booleans())
    candles = traded([[(price, 7, True)] for price in walk])
    part = candles[at:] if at_the_end else candles[:at]
    part["price_scale"] += digits
    assert scan(candles, 2) == [(Kind.SCALE, at if at_the_end else 0)]


@given(markets, st.data())
def test_a_volume_or_price_of_another_order_is_found(
    trades: list[list[tuple[int, int, bool]]], data: st.DataObject
) -> None:
    traded_in = [at for at, minute in enumerate(trades) if minute]
    assume(traded_in)
    at = data.draw(st.sampled_from(traded_in))
    candles = traded(trades)
    assume(candles["high"][at] < 2 * candles["low"][at])
    if data.draw(st.booleans()):
        volume = fixed.join(int(candles["volume_hi"][at]), int(candles["volume_lo"][at])) * 3
        candles["volume_hi"][at], candles["volume_lo"][at] = fixed.split(volume)
        for name in ("taker_volume", "taker_quote"):
            candles[f"{name}_hi"][at] = candles[f"{name}_lo"][at] = 0
    else:
        for name in ("open", "high", "low", "close"):
            candles[name][at] *= 3
    # A minute without trades after it goes on at another price now: that is told too.
    assert (Kind.VALUE, at) in scan(candles)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"first_id": 1_003}, [(Kind.IDS, 1)]),
        ({"last_id": -1}, [(Kind.IDS, 1)]),
        ({"first_id": -1, "last_id": -1}, []),
        ({"origin": Origin.FLAT}, [(Kind.MARKS, 1)]),
        ({"origin": Origin.FILLED}, [(Kind.MARKS, 1)]),
        ({"origin": Origin.UNMATCHED}, [(Kind.MARKS, 1)]),
        ({"origin": Origin.UNMATCHED, "flags": Flag.CLOSED}, []),
        ({"origin": Origin.PARTIAL, "flags": Flag.CLOSED}, []),
        ({"origin": 99}, [(Kind.ORIGIN, 1)]),
        ({"volume_lo": 0, "taker_volume_lo": 0}, [(Kind.VOLUMES, 1)]),
        # What waits for the exchange may be wrong: that is on record.
        ({"origin": Origin.PARTIAL, "flags": Flag.CLOSED, "quote_lo": 10**9}, []),
    ],
)
def test_marks_and_ids_that_contradict_each_other(change: dict[str, int], found: list[tuple[Kind, int]]) -> None:
    candles = traded([[(100, 5, True)], [(101, 5, True), (102, 6, False)], [(101, 5, True)]])
    for name, value in change.items():
        candles[name][1] = value
    assert scan(candles) == found


def test_swapped_minutes_show_in_their_ids_and_a_new_numbering_does_not() -> None:
    candles = traded([[(100, 5, True)] * 2 for _ in range(6)])
    candles["first_id"][[2, 3]], candles["last_id"][[2, 3]] = (
        candles["first_id"][[3, 2]],
        candles["last_id"][[3, 2]],
    )
    assert scan(candles) == [(Kind.IDS, 2), (Kind.IDS, 3)]
    anew = traded([[(100, 5, True)] * 2 for _ in range(6)])
    anew["first_id"][3:] -= 1_000
    anew["last_id"][3:] -= 1_000
    assert scan(anew) == []


def test_what_follows_a_candle_that_waits_for_the_exchange_is_not_accused() -> None:
    candles = traded([[(100, 5, True)], [(101, 5, True)], [], []])
    candles["origin"][1], candles["flags"][1] = Origin.PARTIAL, Flag.CLOSED
    for name in ("open", "high", "low", "close"):
        candles[name][2:] = 103
    assert scan(candles) == []
    candles["flags"][1], candles["origin"][1] = Flag.CLOSED | Flag.VERIFIED, Origin.TRADES
    assert scan(candles) == [(Kind.FLAT, 2)]
