"""Stream messages: what becomes a trade, what a closing kline, what is rejected and why."""

import json

import pytest

from exchange.venue import agg_trade
from klagg.exchange.wire import decode
from klagg.model import TradeKind

SLOTS = {"BTCUSDT": 3, "币安人生USDT": 4}
OPEN_MS = 1_700_000_040_000
TRADE = agg_trade("BTCUSDT", 9)
KLINE = {
    "e": "kline",
    "E": OPEN_MS + 60_100,
    "s": "BTCUSDT",
    "k": {
        "t": OPEN_MS,
        "T": OPEN_MS + 59_999,
        "s": "BTCUSDT",
        "i": "1m",
        "f": 100,
        "L": 129,
        "o": "83084.90",
        "c": "83091.60",
        "h": "83091.70",
        "l": "83051.20",
        "v": "13.551",
        "n": 27,
        "x": True,
        "q": "1125714.73960",
        "V": "6.426",
        "Q": "533856.66860",
        "B": "0",
    },
}


def wrapped(data: object) -> bytes:
    return json.dumps({"stream": "x", "data": data}, ensure_ascii=False, separators=(",", ":")).encode()


def one(data: object, **changes: object):
    assert isinstance(data, dict)
    return decode([wrapped({**data, **changes})], SLOTS)


def test_a_trade_wrapped_or_raw_with_keys_in_any_order() -> None:
    shuffled = dict(reversed(list({**TRADE, "brandNew": [1]}.items())))
    decoded = decode([wrapped(TRADE), json.dumps(TRADE).encode(), wrapped(shuffled)], SLOTS)
    assert decoded.rejected == []
    for trade in decoded.trades:
        assert (trade["slot"], trade["agg_id"], trade["price"], trade["price_scale"], trade["qty"]) == (3, 9, 15, 1, 2)
        assert (trade["first_id"], trade["last_id"], trade["buyer_is_maker"]) == (90, 91, 1)


def test_symbols_need_not_be_ascii() -> None:
    assert one(TRADE, s="币安人生USDT").trades["slot"].tolist() == [4]


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"X": "MARKET"}, TradeKind.MARKET),
        ({"X": "INSURANCE_FUND"}, TradeKind.OTHER),
        ({"X": "NA"}, TradeKind.OTHER),
    ],
)
def test_what_is_no_market_trade_keeps_its_id_only(changes: dict, kind: TradeKind) -> None:
    (trade,) = one(TRADE, **changes).trades
    assert (trade["kind"], trade["agg_id"]) == (kind, 9)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"p": "0.00"}, "X p q"),
        ({"q": "0"}, "X p q"),
        ({"X": "RPI"}, "X p q"),
        ({"s": "ETHUSDT"}, "s"),
        ({"s": "btcusdt"}, "s"),
        ({"p": "-5"}, "p"),
        ({"p": "abc"}, "p"),
        ({"q": "1e5"}, "q"),
        ({"p": "9" * 30}, "p"),
        ({"a": -1}, "a f l t"),
        ({"f": 9, "l": 8}, "a f l t"),
        ({"a": 2**63 - 1}, "a l t"),
        ({"T": 0}, "T"),
        ({"T": 10**16}, "T"),
        ({"m": None}, "m"),
        ({"p": 1.5}, ""),
        ({"a": "9"}, ""),
    ],
)
def test_what_claims_to_be_a_trade_and_cannot_be_is_named(changes: dict, field: str) -> None:
    decoded = decode([wrapped({**TRADE, **changes}), wrapped(TRADE)], SLOTS)
    assert len(decoded.trades) == 1, "the rest goes on"
    (rejected,) = decoded.rejected
    assert rejected.field == field
    assert rejected.reason


@pytest.mark.parametrize("payload", [b"", b"{", b'{"stream":"x","data":{"e":"aggTrade",', b"\xff\xfe"])
def test_broken_messages_are_rejected(payload: bytes) -> None:
    decoded = decode([payload, wrapped(TRADE)], SLOTS)
    assert (decoded.rejected_count, len(decoded.trades)) == (1, 1)


def test_other_messages_are_passed_over() -> None:
    others = [wrapped([TRADE]), wrapped({"e": "24hrMiniTicker", "s": "BTCUSDT", "c": "1"}), b'{"result":null,"id":1}']
    decoded = decode(others, SLOTS)
    assert (decoded.passed_over, decoded.rejected_count, len(decoded.trades)) == (3, 0, 0)


def test_a_closing_kline_is_a_candle_and_a_running_one_only_counted() -> None:
    running = {**KLINE, "k": {**KLINE["k"], "x": False}}
    decoded = decode([wrapped(running), wrapped(KLINE)], SLOTS)
    assert decoded.running_klines == 1
    (candle,) = decoded.klines
    assert (candle["slot"], candle["open_ms"], candle["trades"]) == (3, OPEN_MS, 27)
    assert (candle["first_id"], candle["last_id"], candle["high"], candle["price_scale"]) == (100, 129, 830917, 1)


def test_the_kline_of_an_empty_minute_has_no_ids() -> None:
    price = dict.fromkeys("ohlc", "5.10")
    empty = {**KLINE["k"], **price, "f": -1, "L": -1, "n": 0, **dict.fromkeys("vqVQ", "0.00")}
    (candle,) = one(KLINE, k=empty).klines
    assert (candle["first_id"], candle["last_id"], candle["trades"], candle["close"]) == (-1, -1, 0, 51)


@pytest.mark.parametrize(
    "changes",
    [{"t": OPEN_MS + 1}, {"t": 0}, {"o": "0"}, {"c": "-1"}, {"n": -1}, {"L": 2**63 - 1}, {"v": "x"}, {"t": "1"}],
)
def test_a_kline_that_cannot_be_is_rejected(changes: dict) -> None:
    decoded = one(KLINE, k={**KLINE["k"], **changes})
    assert (decoded.rejected_count, len(decoded.klines)) == (1, 0)


def test_a_feed_gone_mad_is_counted_and_not_stored() -> None:
    decoded = decode([b"{"] * 500, SLOTS)
    assert decoded.rejected_count == 500
    assert len(decoded.rejected) == 64
