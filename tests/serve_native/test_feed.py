"""The feed against the event log as sqlite3 alone reads it: whole, in order, resumed wherever it was left."""

import asyncio
import json
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klagg.interval import MINUTE_MS
from klagg.serve.feed import feed as feed_module
from klagg.serve.feed.asked import asked
from klagg.serve.native.problem import Problem
from klagg.store import open_store
from serve.fakes import FakeLive
from serve_native.rig import START_MS, SYMBOLS, Owner, Rig, served

NAMES = {
    "durable": "barrier_durable",
    "verified": "barrier_verified",
    "added": "symbol_added",
    "retired": "symbol_retired",
}


def logged(owner: Owner, after: int = 0) -> list[dict[str, Any]]:
    """The events of the database, decoded here as docs/DATABASE.md says."""
    symbols = {number: symbol for symbol, number in owner.ids.items()}
    events = []
    for row in owner.rows("SELECT seq, market, at_ms, kind, count, body FROM event ORDER BY seq"):
        columns = np.frombuffer(zlib.decompress(row["body"]), "<i8").reshape(-1, row["count"]).cumsum(axis=1)
        for place, values in enumerate(columns.T.tolist()):
            event = {"seq": row["seq"] + place, "at_ms": row["at_ms"], "market": row["market"]}
            if row["kind"] == "candles":
                series, open_ms, what, revision = values
                kind = "closed" if what & 1 else "revised" if what & 2 else "verified"
                event |= {
                    "kind": f"candle_{kind}",
                    "symbol": symbols[series // 16],
                    "interval": ["1m", "3m", "5m"][series % 16],
                }
                event |= {"open_time_ms": open_ms, "revision": revision, "verified": bool(what & 4)}
            elif row["kind"] in ("durable", "verified"):
                count = "symbols" if row["kind"] == "durable" else "unverified"
                event |= {"kind": NAMES[row["kind"]], "boundary_ms": values[0], count: values[1]}
            else:
                event |= {"kind": NAMES[row["kind"]], "symbol": symbols[values[0]]}
            events.append(event)
    return [event for event in events if event["seq"] > after]


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Owner, Rig]]:
    owner = Owner(tmp_path / "klagg.db")
    owner.close(12)
    owner.settle("BTCUSDT", 3, 10_999)
    owner.settle("ETHUSDT", 4)
    async with served(owner.path) as rig:
        yield owner, rig
    owner.store.close()


class Consumer:
    """A reader of the feed that may be killed at any time, and remembers only what it has seen."""

    def __init__(self, query: str = "") -> None:
        self.query = query
        self.seen: list[dict[str, Any]] = []
        self.said: list[dict[str, Any]] = []
        self.since = 0

    async def listen(self, base: str) -> None:
        """Until the connection ends."""
        url = f"ws://{base}/v1/feed?since={self.since}{self.query}"
        async with aiohttp.ClientSession() as http, http.ws_connect(url, max_msg_size=0) as socket:
            async for message in socket:
                self.take(json.loads(message.data))

    def take(self, event: dict[str, Any]) -> None:
        if event["kind"] in ("hello", "beat", "cut", "candle_open"):
            self.said.append(event)
            return
        assert event["seq"] > self.since, "not in order"
        self.since = event["seq"]
        self.seen.append(event)

    async def until(self, seq: int) -> None:
        async with asyncio.timeout(15):
            while self.since < seq:  # noqa: ASYNC110
                await asyncio.sleep(0.005)


async def test_everything_comes_once_in_order_and_then_what_is_new(pair: tuple[Owner, Rig]) -> None:
    owner, rig = pair
    consumer = Consumer()
    listening = asyncio.create_task(consumer.listen(rig.base))
    await consumer.until(logged(owner)[-1]["seq"])
    owner.close(3)
    owner.settle("BTCUSDT", 12, 11_000)
    await consumer.until(logged(owner)[-1]["seq"])
    listening.cancel()
    assert consumer.seen == logged(owner)
    assert [said["kind"] for said in consumer.said] == ["hello"]
    assert {event["kind"] for event in consumer.seen} >= {
        "candle_closed",
        "candle_revised",
        "candle_verified",
        "barrier_durable",
    }


async def test_a_consumer_killed_under_load_loses_nothing_across_restarts_of_the_server(tmp_path: Path) -> None:
    owner = Owner(tmp_path / "klagg.db", tuple(f"S{n}USDT" for n in range(40)))
    consumer, filtered = Consumer("&candles=true"), Consumer("&symbols=S7USDT,S8*&intervals=1m&kinds=candle")
    rng = np.random.default_rng(7)
    owner.close()
    for _ in range(3):
        async with served(owner.path) as rig:
            for _ in range(4):
                listening = [asyncio.create_task(one.listen(rig.base)) for one in (consumer, filtered)]
                for _ in range(5):
                    owner.close()
                    owner.settle(f"S{rng.integers(9)}USDT", owner.minutes - 1, int(rng.integers(20_000, 30_000)))
                    await asyncio.sleep(rng.random() * 0.05)
                for task in listening:
                    task.cancel()
                await asyncio.gather(*listening, return_exceptions=True)
    async with served(owner.path) as rig:
        events = logged(owner)
        listening = [asyncio.create_task(one.listen(rig.base)) for one in (consumer, filtered)]
        await consumer.until(events[-1]["seq"])
        wanted = [
            e
            for e in events
            if e["kind"].startswith("candle") and e["symbol"] in ("S7USDT", "S8USDT") and e["interval"] == "1m"
        ]
        await filtered.until(wanted[-1]["seq"])
        for task in listening:
            task.cancel()
    assert [{k: v for k, v in event.items() if k != "candle"} for event in consumer.seen] == events
    assert filtered.seen == wanted
    # What the consumer has put together from the candles it was told is what the database holds.
    held = {(e["symbol"], e["interval"], e["open_time_ms"]): e["candle"] for e in consumer.seen if "candle" in e}
    rows = owner.rows(
        "SELECT symbol, interval, open_time_ms, close, volume, origin, revision FROM candles WHERE closed = 1"
    )
    assert len(rows) == len(held)
    for row in rows:
        candle = held[row["symbol"], row["interval"], row["open_time_ms"]]
        assert {name: candle[name] for name in row} == row
    for event in consumer.seen:
        assert "candle" not in event or event["candle"]["revision"] == event["revision"]
    owner.store.close()


async def test_a_slow_reader_is_told_where_it_was_cut_and_the_others_are_not_held_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "MAX_WAITING", 20_000)
    owner = Owner(tmp_path / "klagg.db", tuple(f"S{n}USDT" for n in range(100)))
    owner.close()
    async with served(owner.path) as rig:
        slow, quick = Consumer(), Consumer()
        slow.since = quick.since = logged(owner)[-1]["seq"]
        listening = asyncio.create_task(quick.listen(rig.base))
        socket = await rig.http.ws_connect(f"ws://{rig.base}/v1/feed?since={slow.since}&candles=true", max_msg_size=0)
        slow.take(await socket.receive_json())
        transport = socket._response.connection.transport  # type: ignore[union-attr]
        transport.pause_reading()  # type: ignore[union-attr]
        for _ in range(120):
            owner.close()
            await asyncio.sleep(0)
        await quick.until(logged(owner)[-1]["seq"])
        transport.resume_reading()  # type: ignore[union-attr]
        async for message in socket:
            slow.take(json.loads(message.data))
        assert socket.close_code == 4008
        cut = slow.said[-1]
        assert (cut["kind"], cut["reason"], cut["from_seq"]) == ("cut", "too slow", slow.since)
        assert cut["to_seq"] > cut["from_seq"]
        again = asyncio.create_task(slow.listen(rig.base))
        await slow.until(logged(owner)[-1]["seq"])
        assert [event["seq"] for event in slow.seen] == [event["seq"] for event in quick.seen]
        assert quick.seen == logged(owner, quick.seen[0]["seq"] - 1)
        for task in (listening, again):
            task.cancel()
    owner.store.close()


async def sse(
    rig: Rig, count: int, headers: dict[str, str] | None = None, **query: object
) -> list[tuple[int, dict[str, Any]]]:
    """The first `count` server-sent events, each with its id."""
    params = {name: str(value) for name, value in query.items()}
    found: list[tuple[int, dict[str, Any]]] = []
    async with rig.http.get(f"http://{rig.base}/v1/feed", params=params, headers=headers) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        number = 0
        async for line in response.content:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name == "id":
                number = int(value)
            elif name == "data":
                found.append((number, json.loads(value)))
                if len(found) == count:
                    break
    return found


async def test_server_sent_events_go_on_after_the_last_event_id(pair: tuple[Owner, Rig]) -> None:
    owner, rig = pair
    events = logged(owner)
    hello, *first = await sse(rig, 21, since=0)
    assert hello[1]["kind"] == "hello"
    assert [event for _, event in first] == events[:20]
    assert all(number == event["seq"] for number, event in first)
    _, *rest = await sse(rig, len(events) - 19, {"Last-Event-ID": str(first[-1][0])}, since=3)
    assert [event for _, event in rest] == events[20:]


async def test_a_slow_reader_of_server_sent_events_is_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "MAX_WAITING", 20_000)
    owner = Owner(tmp_path / "klagg.db", tuple(f"S{n}USDT" for n in range(100)))
    owner.close()
    async with served(owner.path) as rig:
        quick = Consumer()
        listening = asyncio.create_task(quick.listen(rig.base))
        response = await rig.http.get(f"http://{rig.base}/v1/feed?candles=true")
        transport = response.connection.transport  # type: ignore[union-attr]
        transport.pause_reading()  # type: ignore[union-attr]
        for _ in range(120):
            owner.close()
            await asyncio.sleep(0)
        await quick.until(logged(owner)[-1]["seq"])
        transport.resume_reading()  # type: ignore[union-attr]
        data = [json.loads(line[6:]) for line in (await response.text()).splitlines() if line.startswith("data: ")]
        *events, cut = [event for event in data if event["kind"] not in ("hello", "beat")]
        assert (cut["kind"], cut["reason"], cut["from_seq"]) == ("cut", "too slow", events[-1]["seq"])
        expected = logged(owner, events[0]["seq"] - 1)[: len(events)]
        assert [event["seq"] for event in events] == [event["seq"] for event in expected]
        listening.cancel()
    owner.store.close()


async def test_a_database_without_symbols_is_no_fault(tmp_path: Path) -> None:
    open_store(str(tmp_path / "klagg.db"), mode="create").close()
    async with served(tmp_path / "klagg.db") as rig:
        assert (await rig.get("/v1/events", symbols="BTCUSDT"))["events"] == []
        assert (await rig.get("/v1/status"))["missing"] == ["the database holds no candles"]
        for path in ("/v1/candles?symbols=*", "/v1/overview", "/udf/symbols?symbol=A"):
            await rig.get(path, 404)
        hello = (await sse(rig, 1, symbols="BTCUSDT"))[0][1]
        assert (hello["kind"], hello["seq"]) == ("hello", 0)
        async with rig.http.ws_connect(f"ws://{rig.base}/v1/feed?open=true") as socket:
            assert (await socket.receive_json())["kind"] == "hello"


async def test_filters_leave_out_what_is_not_wanted(pair: tuple[Owner, Rig]) -> None:
    owner, rig = pair
    events = logged(owner)

    async def given(**query: object) -> list[dict[str, Any]]:
        answer = await rig.get("/v1/events", limit=2_000, **query)
        assert (answer["oldest_seq"], answer["next_seq"], answer["cut"]) == (1, events[-1]["seq"], None)
        return answer["events"]

    assert await given() == events
    of_eth = [e for e in events if e.get("symbol", "ETHUSDT") == "ETHUSDT"]
    assert await given(symbols="ETH/USDT:USDT") == of_eth == await given(symbols="ETH*")
    assert await given(intervals="5m") == [e for e in events if e.get("interval", "5m") == "5m"]
    assert await given(kinds="barrier,symbol_added") == [e for e in events if "candle" not in e["kind"]]
    assert await given(kinds="candle_verified") == [e for e in events if e.get("verified")]
    assert await given(market="usdm", kinds="candle_revised", symbols=SYMBOLS[2]) == []
    page = await rig.get("/v1/events", since=5, limit=4, candles="true")
    assert [e["seq"] for e in page["events"]] == [6, 7, 8, 9]
    assert page["next_seq"] == 9
    for name, text in (("kinds", "x"), ("since", "-1"), ("symbols", "a=b"), ("intervals", "x"), ("candles", "2")):
        assert (await rig.get("/v1/events", 400, **{name: text}))["error"]["parameter"] == name
    with pytest.raises(Problem):
        asked(rig.live, {"symbols": ",".join(f"A{n}*" for n in range(99))})


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["since", "market", "symbols", "intervals", "kinds", "open", "candles"]),
        st.text(max_size=12) | st.sampled_from(["1", "usdm", "BTC*", "[a-", "1m", "7w", "gap,candle", "true"]),
    )
)
def test_a_reader_gets_a_filter_or_is_told_what_is_wrong(query: dict[str, str]) -> None:
    fault = None
    try:
        wanted = asked(FakeLive(), query).wanted
        assert wanted.wants_symbol("")
        assert isinstance(wanted.wants_symbol("BTCUSDT"), bool)
    except Problem as problem:
        fault = problem.parameter
    assert fault is None or fault in query


async def test_what_is_no_longer_kept_and_what_never_was_is_said(pair: tuple[Owner, Rig]) -> None:
    owner, rig = pair
    events = logged(owner)
    owner.store._database.execute("DELETE FROM event WHERE seq <= 20")
    kept = logged(owner)
    oldest = kept[0]["seq"]
    too_old, ahead = Consumer(), Consumer()
    ahead.since = 10_000
    tasks = [asyncio.create_task(too_old.listen(rig.base)), asyncio.create_task(ahead.listen(rig.base))]
    await too_old.until(events[-1]["seq"])
    assert too_old.seen == kept
    assert too_old.said[1] == {"kind": "cut", "from_seq": 0, "to_seq": oldest - 1, "reason": "too old"}
    ahead.since = 0
    owner.close()
    await ahead.until(logged(owner)[-1]["seq"])
    assert ahead.said[1] == {"kind": "cut", "from_seq": 10_000, "to_seq": events[-1]["seq"], "reason": "ahead"}
    assert ahead.seen == logged(owner, events[-1]["seq"])
    assert (await rig.get("/v1/events"))["cut"] == {"from_seq": 0, "to_seq": oldest - 1}
    for task in tasks:
        task.cancel()


async def test_running_candles_are_pushed_outside_of_the_sequence_after_their_predecessors(
    pair: tuple[Owner, Rig],
) -> None:
    owner, rig = pair
    consumer = Consumer("&open=true&symbols=ETHUSDT")
    consumer.since = logged(owner)[-1]["seq"]
    listening = asyncio.create_task(consumer.listen(rig.base))

    async def running() -> list[dict[str, Any]]:
        async with asyncio.timeout(10):
            while not (found := [said for said in consumer.said if said["kind"] == "candle_open"]):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return found

    first = (await running())[0]
    assert (first["symbol"], first["interval"], first["market"]) == ("ETHUSDT", "1m", "usdm")
    assert first["candle"]["open_time_ms"] == START_MS + 12 * MINUTE_MS
    assert (first["candle"]["closed"], first["candle"]["origin"], "seq" in first) == (False, None, False)
    consumer.said.clear()
    owner.close()
    second = (await running())[0]
    assert second["candle"]["open_time_ms"] == START_MS + 13 * MINUTE_MS
    assert ("1m", START_MS + 12 * MINUTE_MS) in [(e.get("interval"), e.get("open_time_ms")) for e in consumer.seen]
    listening.cancel()


async def test_messages_choose_running_candles_and_wrong_ones_are_refused(pair: tuple[Owner, Rig]) -> None:
    _, rig = pair
    async with rig.http.ws_connect(f"ws://{rig.base}/v1/feed") as socket:
        assert (await socket.receive_json())["kind"] == "hello"
        for text in (
            "[",
            "{}",
            '{"subscribe": 1}',
            '{"subscribe": {"intervals": ["x"]}}',
            '{"subscribe": {"more": 1}}',
        ):
            await socket.send_str(text)
            assert (await socket.receive_json())["kind"] == "error"
        await socket.send_json({"subscribe": {"symbols": ["BTCUSDT"], "intervals": ["1m"], "open": True}})
        pushed = await asyncio.wait_for(socket.receive_json(), 10)
        assert (pushed["kind"], pushed["symbol"]) == ("candle_open", "BTCUSDT")
    for query, status in (("kinds=x", 400), ("market=spot", 404), ("since=x", 400)):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await rig.http.ws_connect(f"ws://{rig.base}/v1/feed?{query}")
        assert refused.value.status == status
