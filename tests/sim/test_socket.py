import asyncio
import json
from collections import defaultdict
from typing import Any

import aiohttp
import pytest

from klagg.model import Market
from klagg.sim import EmptyKlinePush, ListingEvent
from klagg.sim.calendar import MINUTE_MS
from sim import witness
from sim.client import Open

PATH = {Market.USDM: "/market/stream", Market.SPOT: "/stream"}
MARKETS = pytest.mark.parametrize("market", list(Market))


async def subscribe(socket: Any, *names: str) -> None:
    await socket.send_json({"method": "SUBSCRIBE", "params": list(names), "id": 1})


async def frames(socket: Any):
    """The payloads of a connection until it ends."""
    async for message in socket:
        assert message.type is aiohttp.WSMsgType.TEXT, message
        body = json.loads(message.data)
        if "result" not in body:
            yield body.get("data", body)


async def closed(socket: Any) -> tuple[int | None, list[Any]]:
    """The close code, and the messages before it."""
    messages = []
    while True:
        message = await socket.receive()
        if message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING):
            return socket.close_code, messages
        messages.append(message)


@MARKETS
async def test_streams_agree_with_each_other_and_with_rest(open_exchange: Open, market: Market):
    client = await open_exchange(market, speed=120.0)
    trades: dict[str, list[Any]] = defaultdict(list)
    closings: list[Any] = []
    tickers = 0
    async with client.connect(PATH[market]) as socket:
        names = [f"{s}@{kind}" for s in ("btcusdt", "ethusdt", "solusdt") for kind in ("aggTrade", "kline_1m")]
        await subscribe(socket, *names, "btcusdt@kline_3m", "!miniTicker@arr", "BTCUSDT@aggTrade", "btcusdt@kline_7m")
        async for data in frames(socket):
            if isinstance(data, list):
                tickers += 1
                assert (market is Market.SPOT) == ("st" not in data[0])
            elif data["e"] == "aggTrade":
                trades[data["s"]].append(data)
            elif data["k"]["x"]:
                closings.append(data)
                if len(closings) >= 14 and any(c["k"]["i"] == "3m" for c in closings):
                    break
    assert tickers > 20
    compared = 0
    for rows in trades.values():
        assert [row["a"] for row in rows] == list(range(rows[0]["a"], rows[0]["a"] + len(rows)))
        assert all(row["E"] >= row["T"] for row in rows)
    for event in closings:
        k, rows = event["k"], trades[event["s"]]
        assert 5 <= event["E"] - (k["T"] + 1) <= 2_000
        if rows[0]["T"] < k["t"]:
            assert witness.of_event(event) == witness.candle(rows, k["t"], k["T"] + 1)
            compared += 1
        served = client.exchange.klines(event["s"], k["i"], k["t"], k["t"] + 1)
        assert witness.of_row(served[0]) == witness.of_event(event)
    assert compared >= 8


async def test_futures_trades_come_in_windows_and_late(open_exchange: Open):
    client = await open_exchange(symbols=1)
    lags = []
    async with client.connect("/market/ws/btcusdt@aggTrade") as socket:
        async for data in frames(socket):
            assert data["st"] == 1
            assert "nq" in data
            lags.append(data["E"] - data["T"])
            if len(lags) == 300:
                break
    assert min(lags) > 50
    assert max(lags) < 300
    assert 120 < sorted(lags)[150] < 180


async def test_running_candles_grow_and_empty_ones_close_on_spot_only(open_exchange: Open):
    for market in Market:
        client = await open_exchange(market, symbols=40, speed=240.0)
        quiet = list(client.exchange.venue().contracts.values())[39]
        running, empty = [], 0
        async with client.connect(PATH[market]) as socket:
            await subscribe(socket, f"{quiet.stream}@kline_1m", "btcusdt@kline_1m")
            async for data in frames(socket):
                if data["s"] == "BTCUSDT":
                    running.append((data["k"]["t"], data["k"]["n"], data["k"]["x"]))
                elif data["k"]["n"] == 0 and data["k"]["x"]:
                    empty += 1
                    assert (data["k"]["f"], data["k"]["L"], data["k"]["v"]) == (-1, -1, "0.00000000")
                if sum(x for _, _, x in running) == 6:
                    break
        first = running[0][0]
        counts = [n for open_ms, n, closed in running if open_ms == first and not closed]
        assert counts == sorted(counts)
        assert (empty > 0) == (market is Market.SPOT)


async def test_futures_can_be_told_to_close_empty_candles(open_exchange: Open):
    client = await open_exchange(symbols=40, empty_kline_push=EmptyKlinePush.CLOSE)
    quiet = list(client.exchange.venue().contracts.values())[39]
    async with client.connect(f"/market/ws/{quiet.stream}@kline_1m") as socket:
        async for data in frames(socket):
            if data["k"]["n"] == 0:
                assert data["k"]["x"]
                break


@pytest.mark.parametrize("path", ["/stream", "/ws", "/public/stream"])
async def test_the_wrong_futures_route_is_silent(open_exchange: Open, path: str):
    client = await open_exchange()
    async with client.connect("/market/ws/btcusdt@aggTrade") as right, client.connect(path) as wrong:
        await subscribe(wrong, "btcusdt@aggTrade", "btcusdt@kline_1m")
        seen = 0
        async for _ in frames(right):
            seen += 1
            if seen == 200:
                break
        assert (await wrong.receive_json()) == {"result": None, "id": 1}
        await wrong.send_json({"method": "LIST_SUBSCRIPTIONS", "id": 2})
        assert (await wrong.receive_json())["result"] == ["btcusdt@aggTrade", "btcusdt@kline_1m"]


async def test_too_many_messages_and_too_many_streams_close_with_1008(open_exchange: Open):
    client = await open_exchange(speed=1.0, max_streams=3)
    async with client.connect("/market/ws") as socket:
        for number in range(40):
            await socket.send_json({"method": "LIST_SUBSCRIPTIONS", "id": number})
        code, answers = await closed(socket)
        assert code == 1008
        assert 15 <= len(answers) < 25
    async with client.connect("/market/ws") as socket:
        await subscribe(socket, "a@aggTrade", "b@aggTrade", "c@aggTrade", "d@aggTrade")
        code, answers = await closed(socket)
        assert code == 1008
        assert json.loads(answers[0].data)["error"]["code"] == 4


async def test_pings_want_their_payload_back(open_exchange: Open):
    client = await open_exchange(ping_interval_ms=1_000, pong_deadline_ms=20_000)
    url = f"{client.exchange.ws_url}/market/ws"
    async with client.http.ws_connect(url, autoping=False) as silent:
        code, messages = await closed(silent)
        assert code == 1008
        assert {message.type for message in messages} == {aiohttp.WSMsgType.PING}
        assert messages[0].data.isdigit()
    async with client.connect("/market/ws") as answering:
        await answering.ping(b"mine")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.6):  # 36 s of the market's time: alive past the deadline
                await answering.receive()


async def test_lives_end_and_connections_are_cut(open_exchange: Open):
    client = await open_exchange(Market.SPOT, connection_life_ms=30_000, shutdown_notice_ms=10_000)
    async with client.connect("/stream") as socket:
        code, messages = await closed(socket)
        assert code == 1001
        assert json.loads(messages[0].data)["stream"] == "!serverShutdown"
    async with client.connect("/ws") as socket:
        assert client.exchange.connection_count() == 1
        assert client.exchange.cut_connections() == 1
        assert await closed(socket) == (1006, [])


async def test_holes_repeats_and_delays_are_in_the_stream_only(open_exchange: Open):
    client = await open_exchange(symbols=1, speed=20.0)
    exchange = client.exchange
    async with client.connect("/market/ws/btcusdt@aggTrade") as socket:
        stream = frames(socket)
        newest = (await anext(stream))["a"]
        # Far enough ahead that none of them has been sent.
        hole, twice, late = newest + 150, newest + 160, newest + 170
        exchange.drop_trades("BTCUSDT", [hole])
        exchange.repeat_trades("BTCUSDT", [twice])
        exchange.delay_trades("BTCUSDT", [late], 3_000)
        ids = []
        async for data in stream:
            ids.append(data["a"])
            if late in ids:
                break
    assert hole not in ids
    assert hole + 1 in ids
    assert ids.count(twice) == 2
    assert ids[-2] > late
    rows = await client.get("/fapi/v1/aggTrades", symbol="BTCUSDT", fromId=hole, limit=1)
    assert rows[0]["a"] == hole


async def test_listings_and_delistings(open_exchange: Open):
    client = await open_exchange(symbols=2, listings=(ListingEvent(20_000, "FRESHUSDT"),))
    async with client.connect("/market/stream") as socket:
        await subscribe(socket, "!contractInfo", "!miniTicker@arr", "freshusdt@aggTrade", "币安人生usdt@aggTrade")
        told: dict[str, str] = {}
        ids: list[int] = []
        in_array = False
        async for data in frames(socket):
            if isinstance(data, list):
                in_array |= any(row["s"] == "FRESHUSDT" for row in data)
            elif data["e"] == "contractInfo":
                told[data["s"]] = data["cs"]
                if data["s"] == "FRESHUSDT" and data["cs"] == "TRADING" and not ids:
                    client.exchange.list_symbol("NOWUSDT")
                if data["s"] == "NOWUSDT":
                    client.exchange.delist_symbol("ETHUSDT")
            else:
                ids.append(data["a"])
            if in_array and len(ids) > 20 and told.get("ETHUSDT"):
                break
    assert told == {"FRESHUSDT": "TRADING", "NOWUSDT": "TRADING", "ETHUSDT": "SETTLING"}
    assert ids == list(range(1, len(ids) + 1))
    now_ms = client.exchange.now_ms()
    assert client.exchange.venue().trades("ETHUSDT", now_ms, now_ms + MINUTE_MS).agg_id.tolist() == []


async def test_spot_microseconds_and_single_trades(open_exchange: Open):
    client = await open_exchange(Market.SPOT, symbols=1)
    path = "/stream?streams=btcusdt@aggTrade/btcusdt@trade&timeUnit=MICROSECOND"
    singles: dict[int, Any] = {}
    whole = []
    async with client.connect(path) as socket:
        async for data in frames(socket):
            assert len(str(data["T"])) == len(str(data["E"])) == 16
            if data["e"] == "trade":
                singles[data["t"]] = data
            else:
                whole.append(data)
            if len(whole) == 50:
                break
    for row in whole[:-1]:
        parts = [singles[trade_id] for trade_id in range(row["f"], row["l"] + 1)]
        assert sum(witness.Decimal(part["q"]) for part in parts) == witness.Decimal(row["q"])


async def test_a_refused_handshake(open_exchange: Open):
    client = await open_exchange()
    client.exchange.refuse(503, 1, "/market")
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await client.http.ws_connect(f"{client.exchange.ws_url}/market/ws")
    assert refused.value.status == 503
    async with client.connect("/market/ws/btcusdt@aggTrade") as socket:
        assert (await anext(frames(socket)))["e"] == "aggTrade"
