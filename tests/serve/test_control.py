"""The control language, held to the offline exchange's, which was written apart."""

import json

import pytest

from klagg.model import Market
from klagg.serve.control import MAX_STREAMS, Control
from klagg.serve.streams import Kind, Route, parse_stream, route_of
from klagg.sim.control import Control as TheirControl
from klagg.sim.hub import Hub as TheirHub
from klagg.sim.streams import Route as TheirRoute
from klagg.sim.streams import parse_stream as parse_theirs


class Ear:
    unit = 1

    def __init__(self, *, combined: bool) -> None:
        self.combined = combined

    def deliver(self, text: str) -> None:
        raise AssertionError(text)


TEXTS = [
    '{"method":"SUBSCRIBE","params":["btcusdt@kline_1m","nope@x"],"id":1}',
    '{"method":"SUBSCRIBE","params":["btcusdt@kline_1m"]}',
    '{"method":"LIST_SUBSCRIPTIONS","id":3}',
    '{"method":"UNSUBSCRIBE","params":["btcusdt@kline_1m","never@asked"],"id":4}',
    '{"method":"LIST_SUBSCRIPTIONS","id":5}',
    '{"method":"GET_PROPERTY","params":["combined"],"id":6}',
    '{"method":"SET_PROPERTY","params":["combined",true],"id":7}',
    '{"method":"GET_PROPERTY","params":["combined"],"id":8}',
    '{"method":"SET_PROPERTY","params":["combined","yes"],"id":9}',
    '{"method":"SET_PROPERTY","params":["combined"],"id":9}',
    '{"method":"GET_PROPERTY","params":["other"],"id":9}',
    '{"method":"GET_PROPERTY","params":[1],"id":9}',
    '{"method":"SUBSCRIBE","params":[1],"id":9}',
    '{"method":"SUBSCRIBE","params":"x","id":9}',
    '{"method":"DANCE","id":9}',
    '{"id":9}',
    "[]",
    "{",
]  # fmt: skip


@pytest.mark.parametrize("market", list(Market))
def test_answers_are_those_of_the_offline_exchange(market: Market) -> None:
    route = TheirRoute.SPOT if market is Market.SPOT else TheirRoute.MARKET
    theirs = TheirControl(TheirHub(), Ear(combined=False), route, MAX_STREAMS)
    ours = Control(market, False, lambda _: None, lambda _: None)
    for text in TEXTS:
        reply, answer = ours.answer(text.encode()), theirs.answer(text)
        assert json.loads(reply.text) == json.loads(answer.text) or json.loads(reply.text)["error"]["code"] == 3, text
        assert reply.close_reason == answer.close_reason


def test_one_stream_too_many_ends_the_connection() -> None:
    told: list[str] = []
    control = Control(Market.USDM, False, told.append, told.remove)
    assert control.subscribe(f"s{n}@kline_1m" for n in range(MAX_STREAMS))
    assert len(told) == MAX_STREAMS
    reply = control.answer(b'{"method":"SUBSCRIBE","params":["one@more"],"id":1}')
    assert json.loads(reply.text) == {"error": {"code": 4, "msg": "Too many subscriptions"}, "id": 1}
    assert reply.close_reason == "Invalid request"
    control.unsubscribe(list(control.names))
    assert told == []


@pytest.mark.parametrize("bad", [b"\xff", b'{"a":' * 5_000, b'{"method":"SUBSCRIBE","params":["' + b"x" * 200 + b'"]}'])
def test_bad_requests_are_answered(bad: bytes) -> None:
    control = Control(Market.USDM, False, lambda _: None, lambda _: None)
    assert "error" in json.loads(control.answer(bad).text)
    assert not control.names


@pytest.mark.parametrize("request_id", ['"550e8400-e29b-41d4-a716-446655440000"', "7", "null", '"abc"'])
def test_ids_of_known_clients_come_back(request_id: str) -> None:
    control = Control(Market.USDM, False, lambda _: None, lambda _: None)
    reply = control.answer(b'{"method":"LIST_SUBSCRIPTIONS","id":%s}' % request_id.encode())
    assert json.loads(reply.text) == {"result": [], "id": json.loads(request_id)}


NAMES = ["btcusdt@kline_1m", "BTCUSDT@kline_1m", "btcusdt@kline_1M", "btcusdt@kline_7m", "btcusdt@kline_1d@+08:00",
         "!miniTicker@arr", "btcusdt@miniTicker", "btcusdt_perpetual@continuousKline_1m", "btcusdt",
         "币安人生usdt@kline_1h", "btcusdt_weekly@continuousKline_1m", ""]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("prefix", "theirs"), [("", TheirRoute.SPOT), ("market", TheirRoute.MARKET), ("public", TheirRoute.PUBLIC)]
)
def test_names_deliver_where_the_offline_exchange_delivers(name: str, prefix: str, theirs: TheirRoute) -> None:
    route = route_of(prefix, Market.SPOT)
    assert route is not None
    ours, other = parse_stream(name, route), parse_theirs(name, theirs)
    assert (ours is None) == (other is None)
    if ours is not None and other is not None:
        assert ours.kind.value == other.kind


def test_routes() -> None:
    assert route_of("", Market.USDM) == Route(Market.USDM, delivers=True)
    assert route_of("nowhere", Market.USDM) is None
    stream = parse_stream("!miniTicker@arr@1000ms", Route(Market.SPOT, delivers=True))
    assert stream is not None
    assert stream.kind is Kind.ALL_MINI_TICKERS
