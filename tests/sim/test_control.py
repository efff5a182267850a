import json

import pytest

from klagg.sim.control import Control
from klagg.sim.hub import Hub
from klagg.sim.streams import Route


class Sink:
    unit = 1
    combined = False

    def __init__(self) -> None:
        self.frames: list[str] = []

    def deliver(self, text: str) -> None:
        self.frames.append(text)


def control(route: Route = Route.MARKET, max_streams: int = 4) -> tuple[Control, Hub, Sink]:
    hub, sink = Hub(), Sink()
    return Control(hub, sink, route, max_streams), hub, sink


def ask(subject: Control, **request):
    return json.loads(subject.answer(json.dumps(request)).text)


def test_subscriptions_are_acknowledged_listed_and_removed():
    subject, hub, sink = control()
    names = ["btcusdt@aggTrade", "BTCUSDT@aggTrade", "nope@nothing"]
    assert ask(subject, method="SUBSCRIBE", params=names, id=1) == {"result": None, "id": 1}
    assert ask(subject, method="LIST_SUBSCRIPTIONS", id=2) == {"result": names, "id": 2}
    for name in names:
        hub.publish(name, lambda _: "{}")
    assert sink.frames == ["{}"]  # upper case and unknown names stay silent
    assert ask(subject, method="UNSUBSCRIBE", params=["never@asked", names[0]], id=3) == {"result": None, "id": 3}
    hub.publish(names[0], lambda _: "{}")
    assert sink.frames == ["{}"]


def test_combined_is_a_property():
    subject, hub, sink = control()
    ask(subject, method="SUBSCRIBE", params=["btcusdt@aggTrade"], id=1)
    assert ask(subject, method="GET_PROPERTY", params=["combined"], id=2) == {"result": False, "id": 2}
    assert ask(subject, method="SET_PROPERTY", params=["combined", True], id=3) == {"result": None, "id": 3}
    hub.publish("btcusdt@aggTrade", lambda _: '{"e":1}')
    assert json.loads(sink.frames[0]) == {"stream": "btcusdt@aggTrade", "data": {"e": 1}}


@pytest.mark.parametrize("route", [Route.LEGACY, Route.PUBLIC, Route.PRIVATE])
def test_the_wrong_route_acknowledges_and_stays_silent(route):
    subject, hub, sink = control(route)
    assert ask(subject, method="SUBSCRIBE", params=["btcusdt@aggTrade"], id=1) == {"result": None, "id": 1}
    hub.publish("btcusdt@aggTrade", lambda _: "{}")
    assert sink.frames == []


@pytest.mark.parametrize(
    ("request_text", "code", "words"),
    [
        ("{", 3, "Invalid JSON"),
        ('{"id":1}', 2, "missing field `method`"),
        ('{"method":"DANCE","id":1}', 2, "unknown variant `DANCE`"),
        ('{"method":"LIST_SUBSCRIPTIONS","id":-1}', 2, "unsigned integer"),
        ('{"method":"LIST_SUBSCRIPTIONS","id":"abc"}', 2, "unsigned integer"),
        ('{"method":"GET_PROPERTY","params":["colour"],"id":1}', 0, "Unknown property"),
        ('{"method":"GET_PROPERTY","params":[1],"id":1}', 2, "property name"),
        ('{"method":"SET_PROPERTY","params":["combined","yes"],"id":1}', 1, "Boolean"),
        ('{"method":"GET_PROPERTY","params":["combined",1],"id":1}', 2, "too many parameters"),
    ],
)
def test_errors_are_nested(request_text, code, words):
    error = json.loads(control()[0].answer(request_text).text)["error"]
    assert error["code"] == code
    assert words in error["msg"]


def test_one_stream_too_many_ends_the_connection():
    subject, _, _ = control(max_streams=2)
    answer = subject.answer('{"method":"SUBSCRIBE","params":["a@aggTrade","b@aggTrade","c@aggTrade"],"id":7}')
    assert json.loads(answer.text) == {"error": {"code": 4, "msg": "Too many subscriptions"}, "id": 7}
    assert answer.close_reason == "Invalid request"


def test_spot_takes_more_kinds_of_ids():
    subject, _, _ = control(Route.SPOT)
    for request_id in (-5, "a1", None):
        assert ask(subject, method="LIST_SUBSCRIPTIONS", id=request_id) == {"result": [], "id": request_id}
    assert "error" in ask(subject, method="LIST_SUBSCRIPTIONS", id="not alphanumeric")
