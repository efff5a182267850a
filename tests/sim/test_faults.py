"""Faults played by the offline exchange: what clients see of them, and that the candles stay true."""

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec
import pytest

from klagg.errors import UsageError
from klagg.model import Market
from klagg.sim import ExchangeSettings, OfflineExchange
from klagg.sim.calendar import MINUTE_MS
from klagg.sim.faults.file import KINDS
from klagg.sim.faults.playing import Playing
from klagg.sim.faults.schedule import Span, read_span
from klagg.sim.faults.trades import Duplicate, Late, Reorder, TradeFaults, Withhold
from klagg.sim.venue import Venue
from sim.client import START_MS, Client, Open

SPEED = 120.0
BTC = "/market/stream?streams=btcusdt@aggTrade"


def fault(kind: str, **options: Any) -> Any:
    return msgspec.convert({"kind": kind, **options}, KINDS[kind], dec_hook=read_span)


def trade_faults(*faults: Any) -> tuple[TradeFaults, Counter[str]]:
    tally: Counter[str] = Counter()
    return TradeFaults([Playing(each, f"f#{n}", 5, tally) for n, each in enumerate(faults)]), tally


async def listen(client: Client, path: str, frames: int) -> list[str | bytes]:
    got: list[str | bytes] = []
    async with client.connect(path) as socket:
        while len(got) < frames:
            message = await socket.receive(timeout=20)
            if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                break
            got.append(message.data)
    return got


async def passed(venue: Venue, market_ms: int) -> None:
    """Until the market is that old."""
    await asyncio.sleep((market_ms - venue.passed_ms() + 1) / 1_000 / venue.settings.speed)


async def raw_answer(client: Client, path: str) -> bytes:
    """All that a request gets, without the second try that aiohttp gives it."""
    address = urlsplit(client.exchange.rest_url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    upgrade = (
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
        + "A" * 22
        + "==\r\n"
    )
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n{upgrade if '/ws' in path else ''}\r\n".encode())
    try:
        return await asyncio.wait_for(reader.read(100), 20)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


def ids(frames: list[Any]) -> list[int]:
    return [json.loads(frame)["data"]["a"] for frame in frames]


# Trades


def test_the_fate_of_trades_is_drawn_from_the_seed() -> None:
    faults = (
        Withhold(share=0.1),
        Duplicate(share=0.2, copies=2, by=Span(100)),
        Late(share=0.1, least=Span(1_000), most=Span(5_000)),
    )
    first, tally = trade_faults(*faults)
    second, _ = trade_faults(*faults)
    fates = [first.arrivals("BTCUSDT", n, START_MS, START_MS + 150, 0) for n in range(2_000)]
    assert fates == [second.arrivals("BTCUSDT", n, START_MS, START_MS + 150, 0) for n in range(2_000)]
    assert fates != [second.arrivals("ETHUSDT", n, START_MS, START_MS + 150, 0) for n in range(2_000)]
    assert 120 < fates.count([]) < 280
    assert 250 < sum(len(fate) == 3 for fate in fates) < 470
    assert all(1_000 <= fate[0] <= 5_000 for fate in fates if fate and fate[0])
    assert sum(tally.values()) > 500


def test_a_reordering_at_the_boundary_crosses_it() -> None:
    faults, _ = trade_faults(Reorder(within=Span(300), boundary=True))
    minute_ms = START_MS // MINUTE_MS * MINUTE_MS
    early, late = minute_ms + 30_000, minute_ms + 59_900
    assert faults.arrivals("A", 1, early, early + 100, 0) == [0]
    (delay,) = faults.arrivals("A", 2, late, late + 50, 0)
    assert minute_ms + MINUTE_MS <= late + 50 + delay < minute_ms + MINUTE_MS + 300


def test_symbols_and_times_bound_a_fault() -> None:
    faults, tally = trade_faults(Withhold(symbols=("BTC*",), times=3, after=Span(10)))
    assert faults.arrivals("ETHUSDT", 1, START_MS, START_MS, 20) == [0]
    assert faults.arrivals("BTCUSDT", 1, START_MS, START_MS, 5) == [0]
    assert [faults.arrivals("BTCUSDT", n, START_MS, START_MS, 20) for n in range(4)] == [[], [], [], [0]]
    assert tally == {"f": 3}


async def test_withheld_and_repeated_trades_are_in_the_candles(open_exchange: Open) -> None:
    client = await open_exchange(
        speed=SPEED, faults=(fault("withhold", share=0.2), fault("duplicate", share=0.2, by="50ms"))
    )
    got = ids(await listen(client, BTC, 150))
    trades = client.exchange.venue().trades("BTCUSDT", START_MS, START_MS + 60 * MINUTE_MS)
    expected = [int(a) for a in trades.agg_id if min(got) <= a <= max(got)]
    missing = set(expected) - set(got)
    assert len(missing) > 10
    assert max(Counter(got).values()) == 2
    rest = await client.get("/fapi/v1/aggTrades", symbol="BTCUSDT", fromId=min(missing), limit=1)
    assert rest[0]["a"] == min(missing)
    assert client.exchange.played()["withhold"] > 10


# Messages


async def test_harmed_messages_and_the_message_itself(open_exchange: Open) -> None:
    client = await open_exchange(speed=SPEED, faults=(fault("malformed", also=True),))
    session = await client.http.ws_connect(f"{client.exchange.ws_url}{BTC}", decode_text=False)
    good, broken, not_utf8 = 0, 0, 0
    while good < 60:
        raw = bytes((await session.receive(timeout=20)).data)
        try:
            data = json.loads(raw)["data"]
            assert int(data["a"]) > 0
            assert data["T"] > 0
            assert float(data["p"]) > 0
            assert isinstance(data["a"], int)
            good += data["a"] < 2**62 and isinstance(data["p"], str) and data["p"][1:2] != "e"
        except UnicodeDecodeError:
            not_utf8 += 1
        except (ValueError, KeyError, TypeError, AssertionError, RecursionError):
            broken += 1
    assert broken > 30
    assert not_utf8 > 0
    await session.close()


@pytest.mark.parametrize(
    ("kind", "options", "seen"),
    [
        ("truncated", {}, lambda text: not text.endswith("}}")),
        ("oversized", {"size": 70_000}, lambda text: len(text) > 70_000 and json.loads(text)["data"]["a"] > 0),
        ("wrong_symbol", {"symbol": "ÄUSDT"}, lambda text: json.loads(text)["data"]["s"] == "ÄUSDT"),
        ("zero_price", {}, lambda text: json.loads(text)["data"]["p"] == "0.00"),
    ],
)
async def test_kinds_of_harm(open_exchange: Open, kind: str, options: Any, seen: Any) -> None:
    client = await open_exchange(speed=SPEED, faults=(fault(kind, **options),))
    frames = await listen(client, BTC, 10)
    assert all(seen(frame) for frame in frames)
    assert client.exchange.played()[kind] >= 10


async def test_lost_messages_do_not_come(open_exchange: Open) -> None:
    client = await open_exchange(speed=SPEED, faults=(fault("lose", streams=["btc*@aggTrade"]),))
    frames = await listen(client, "/market/stream?streams=btcusdt@aggTrade/ethusdt@aggTrade", 20)
    assert {json.loads(frame)["data"]["s"] for frame in frames} == {"ETHUSDT"}


# Connections


async def test_handshakes_fail(open_exchange: Open) -> None:
    faults = (
        fault("handshake", how="refuse", status=503, times=1),
        fault("handshake", how="cut", times=1),
        fault("handshake", how="hang", hold="3s", times=1),
    )
    client = await open_exchange(speed=SPEED, faults=faults)
    with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
        await listen(client, BTC, 1)
    for _ in range(2):
        assert await raw_answer(client, "/market/ws/btcusdt@aggTrade") == b""
    assert len(await listen(client, BTC, 1)) == 1
    assert client.exchange.played() == {"handshake": 3}


@pytest.mark.parametrize("point", ["before", "after"])
async def test_a_connection_is_cut_at_its_subscription(open_exchange: Open, point: str) -> None:
    client = await open_exchange(speed=SPEED, faults=(fault("subscription", point=point),))
    async with client.connect("/market/ws") as socket:
        await socket.send_json({"method": "SUBSCRIBE", "params": ["btcusdt@aggTrade"], "id": 1})
        types = []
        while not socket.closed:
            types.append((await socket.receive(timeout=10)).type)
    assert types.count(aiohttp.WSMsgType.TEXT) >= (point == "after")
    assert (aiohttp.WSMsgType.TEXT in types) == (point == "after")


async def test_connections_are_cut_closed_and_short_lived(open_exchange: Open) -> None:
    faults = (
        fault("cut", after="5s", code=1012, times=1),
        fault("cut", after="20s", every="10m"),
        fault("short_life", after="30s", life="10s"),
    )
    client = await open_exchange(speed=30.0, faults=faults)
    async with client.connect(BTC) as socket:
        async for _ in socket:
            pass
        assert socket.close_code == 1012
    async with client.connect(BTC) as socket:
        async for _ in socket:
            pass
        assert socket.close_code == 1006
    await passed(client.exchange.venue(), 30_000)
    async with client.connect(BTC) as socket:
        async for _ in socket:
            pass
        assert socket.close_code == 1006
    assert client.exchange.played() == {"cut": 2, "short_life": 1}


async def test_a_silent_connection_answers_and_a_deaf_subscription_does_not_deliver(open_exchange: Open) -> None:
    faults = (
        fault("silence", **{"for": "60s"}),
        fault("deaf_subscription", streams=["eth*"]),
    )
    client = await open_exchange(speed=SPEED, faults=faults)
    async with client.connect("/market/ws/btcusdt@aggTrade/ethusdt@aggTrade") as socket:
        await socket.send_json({"method": "LIST_SUBSCRIPTIONS", "id": 1})
        first = json.loads((await socket.receive(timeout=10)).data)
        assert first == {"result": ["btcusdt@aggTrade", "ethusdt@aggTrade"], "id": 1}
        event = json.loads((await socket.receive(timeout=10)).data)
        assert event["T"] >= START_MS + 50_000
        symbols = {json.loads((await socket.receive(timeout=10)).data)["s"] for _ in range(20)}
    assert symbols == {"BTCUSDT"}
    assert client.exchange.played() == {"silence": 1, "deaf_subscription": 1}


# REST


@pytest.mark.parametrize(
    ("kind", "options", "status", "code", "retry_after"),
    [
        ("http_error", {"status": 500, "code": -1000, "message": "x"}, 500, -1000, None),
        ("rate_limited", {"retry_after": "1500ms"}, 429, -1003, "2"),
        ("rate_limited", {"retry_after": "0s"}, 429, -1003, None),
        ("banned", {}, 418, -1003, "30"),
        ("time_down", {"status": 502}, 502, -1001, None),
    ],
)
async def test_requests_are_refused(
    open_exchange: Open, kind: str, options: Any, status: int, code: int, retry_after: str | None
) -> None:
    client = await open_exchange(speed=1.0, faults=(fault(kind, **options, times=1),))
    got = await client.refusal("/fapi/v1/time")
    assert (got[0], got[1]["code"], got[2].get("Retry-After")) == (status, code, retry_after)
    if kind == "banned":
        assert int(got[1]["msg"].split("until ")[1].rstrip(".")) >= START_MS + 30_000
    assert "serverTime" in await client.get("/fapi/v1/time")
    assert client.exchange.played() == {kind: 1}


async def test_answers_are_late_cut_missing_or_have_a_wrong_weight(open_exchange: Open) -> None:
    faults = (
        fault("slow_answer", by="12s", paths=["klines"], times=1),
        fault("no_answer", hold="6s", paths=["ping"], times=1),
        fault("cut_answer", paths=["exchangeInfo"], times=1),
        fault("wrong_weight", weight=2_399, paths=["time"], times=1),
        fault("wrong_weight", weight=-1, paths=["time"]),
    )
    client = await open_exchange(speed=SPEED, faults=faults)
    asked_ms = client.exchange.now_ms()
    await client.get("/fapi/v1/klines", symbol="BTCUSDT", interval="1m", limit=1)
    assert client.exchange.now_ms() - asked_ms >= 12_000
    assert await raw_answer(client, "/fapi/v1/ping") == b""
    with pytest.raises(ValueError, match=r"Unterminated|Expecting|delimiter"):
        await client.get("/fapi/v1/exchangeInfo")
    for weight in ("2399", None):
        async with client.http.get(f"{client.exchange.rest_url}/fapi/v1/time") as response:
            assert response.headers.get("X-MBX-USED-WEIGHT-1M") == weight
    assert client.exchange.played() == {"slow_answer": 1, "no_answer": 1, "cut_answer": 1, "wrong_weight": 2}


async def test_rows_are_missing_unsettled_or_too_many_and_the_truth_is_not(open_exchange: Open) -> None:
    faults = (
        fault("missing_row", share=0.3, **{"for": "40s"}),
        fault("running_row"),
        fault("unsettled_row", settles="100d", lacks="20s", **{"for": "40s"}),
    )
    client = await open_exchange(speed=20.0, history_ms=3_600_000, faults=faults)
    end_ms = START_MS // MINUTE_MS * MINUTE_MS
    asked = {"symbol": "BTCUSDT", "interval": "1m", "startTime": end_ms - 60 * MINUTE_MS, "endTime": end_ms - 1}
    truth = client.exchange.klines("BTCUSDT", "1m", end_ms - 60 * MINUTE_MS, end_ms)
    first = await client.get("/fapi/v1/klines", **asked)
    again = await client.get("/fapi/v1/klines", **asked)
    assert first[:-1] == again[:-1]
    assert first[-1][0] >= end_ms
    opens = {row[0] for row in first[:-1]}
    assert 5 < len({row[0] for row in truth} - opens) < 40
    by_open = {row[0]: row for row in truth}
    less = [row for row in first[:-1] if row[8] < by_open[row[0]][8]]
    assert len(less) > 10
    await passed(client.exchange.venue(), 40_000)
    assert (await client.get("/fapi/v1/klines", **asked))[:-1] == truth


# Answers that are well-formed and wrong

HOUR = {"symbol": "BTCUSDT", "interval": "1m", "startTime": START_MS - 3_630_000, "endTime": START_MS - 30_001}


def opens(rows: Any) -> list[int]:
    return [row[0] for row in rows]


@pytest.mark.parametrize(
    ("kind", "options", "is_so"),
    [
        ("empty_answer", {}, lambda told, true: told == []),
        ("short_answer", {"keeps": 0.25}, lambda told, true: told == true[:15]),
        ("other_page", {"which": "after"}, lambda told, true: set(opens(told)).isdisjoint(opens(true))),
        ("other_page", {"which": "before"}, lambda told, true: opens(told)[-1] == true[0][0] - MINUTE_MS),
        ("doubled_row", {}, lambda told, true: len(told) == 61 and {*map(str, told)} == {*map(str, true)}),
        ("doubled_row", {"differs": True}, lambda told, true: len({*map(str, told)}) == 61 and len({*opens(told)}) == 60),
        ("disorder", {}, lambda told, true: told != true and sorted(told) == true),
        ("left_out", {"rows": 4}, lambda told, true: told[::59] != true[::59] and opens(told)[-1] == true[-1][0]),
        ("impossible_row", {}, lambda told, true: [float(row[2]) < float(row[3]) for row in told].count(True) == 1),
        ("impossible_row", {"how": "zero_price"}, lambda told, true: [row[3] for row in told].count("0") == 1),
        ("impossible_row", {"how": "no_trades"}, lambda told, true: [row[8] for row in told].count(0) == 1),
        ("impossible_row", {"how": "no_volume"}, lambda told, true: [row[5] for row in told].count("0") == 1),
        ("impossible_row", {"how": "quote"}, lambda told, true: len({row[7] for row in told} - {row[7] for row in true}) == 1),
        ("impossible_row", {"how": "taker"}, lambda told, true: [float(row[9]) > float(row[5]) for row in told].count(True) == 1),
    ],
)  # fmt: skip
async def test_kline_answers_are_wrong_once_and_then_true(
    open_exchange: Open, kind: str, options: Any, is_so: Any
) -> None:
    client = await open_exchange(history_ms=7_200_000, faults=(fault(kind, times=1, **options),))
    true = client.exchange.klines("BTCUSDT", "1m", HOUR["startTime"], HOUR["endTime"])
    assert len(true) == 60
    told = await client.get("/fapi/v1/klines", **HOUR)
    assert is_so(told, true), told
    assert await client.get("/fapi/v1/klines", **HOUR) == true
    assert client.exchange.played() == {kind: 1}


async def test_the_page_before_comes_once_more(open_exchange: Open) -> None:
    client = await open_exchange(history_ms=7_200_000, faults=(fault("other_page", share=1.0),))
    pages = [{**HOUR, "startTime": HOUR["startTime"] + n * 600_000, "limit": 10} for n in range(3)]
    told = [opens(await client.get("/fapi/v1/klines", **page)) for page in pages]
    assert [rows[0] for rows in told] == [page["startTime"] for page in (pages[0], pages[0], pages[1])]


async def test_the_symbol_list_and_aggregate_trades_are_wrong(open_exchange: Open) -> None:
    faults = (
        fault("doubled_symbol", symbols=["BTCUSDT"], times=1),
        fault("missing_symbol", symbols=["ETHUSDT"], times=1),
        *(fault("trade_rows", how=how, times=1) for how in ("doubled", "left_out", "disorder")),
    )
    client = await open_exchange(history_ms=7_200_000, faults=faults)

    async def listed() -> Counter[str]:
        return Counter(row["symbol"] for row in (await client.get("/fapi/v1/exchangeInfo"))["symbols"])

    wrong, right = await listed(), await listed()
    assert (wrong["BTCUSDT"], wrong["ETHUSDT"]) == (2, 0)
    assert set(right.values()) == {1}
    assert "ETHUSDT" in right
    trades = {"symbol": "BTCUSDT", "startTime": START_MS - 600_000, "endTime": START_MS - 1, "limit": 50}
    told = [row["a"] for row in await client.get("/fapi/v1/aggTrades", **trades)]
    true = [row["a"] for row in await client.get("/fapi/v1/aggTrades", **trades)]
    assert true == list(range(true[0], true[0] + 50))
    # All three in one answer: one id twice, one not there, and in disorder.
    assert len(told) == 50
    assert 48 <= len(set(told)) <= 50
    assert told != sorted(told)


# Time


async def test_the_time_is_wrong_delayed_drifts_and_jumps(open_exchange: Open) -> None:
    client = await open_exchange(
        speed=1.0, faults=(fault("time_wrong", by="-90s", times=1), fault("time_delay", answer="40ms"))
    )
    venue = client.exchange.venue()
    wrong = (await client.get("/fapi/v1/time"))["serverTime"]
    assert venue.now_ms() - 95_000 < wrong < venue.now_ms() - 89_000
    late = (await client.get("/fapi/v1/time"))["serverTime"]
    assert venue.now_ms() - late >= 40
    drifting = await open_exchange(
        speed=100.0,
        faults=(fault("clock_drift", ppm=100_000, **{"for": "10s"}), fault("clock_jump", by="-5s", after="20s")),
    )
    venue = drifting.exchange.venue()
    await passed(venue, 25_000)
    passed_ms = venue.passed_ms()
    assert START_MS + passed_ms + 1_000 - 5_000 <= venue.now_ms() < START_MS + passed_ms - 3_500
    assert drifting.exchange.played() == {"clock_drift": 1, "clock_jump": 1}


# The market


async def test_a_halt_takes_trades_away_and_the_ids_run_on(open_exchange: Open) -> None:
    plain = await open_exchange(speed=SPEED)
    client = await open_exchange(
        speed=SPEED, faults=(fault("status", symbol="BTCUSDT", after="60s", status="HALT", **{"for": "60s"}),)
    )
    start, end = START_MS + 60_000, START_MS + 120_000
    trades = client.exchange.venue().trades("BTCUSDT", START_MS - 30_000, START_MS + 200_000)
    whole = plain.exchange.venue().trades("BTCUSDT", START_MS - 30_000, START_MS + 200_000)
    kept = [int(t) for t in whole.time_ms if not start <= t < end]
    assert trades.time_ms.tolist() == kept
    assert len(kept) < len(whole)
    assert set((trades.agg_id[1:] - trades.agg_id[:-1]).tolist()) == {1}
    assert (trades.first_id[1:] > trades.last_id[:-1]).all()
    statuses = set()
    while client.exchange.now_ms() < end + 2_000:
        info = await client.get("/fapi/v1/exchangeInfo")
        statuses.add(next(row["status"] for row in info["symbols"] if row["symbol"] == "BTCUSDT"))
        await asyncio.sleep(0.02)
    assert statuses == {"TRADING", "HALT"}
    last = int(trades.agg_id[-1])
    row = await client.get("/fapi/v1/aggTrades", symbol="BTCUSDT", fromId=int(trades.agg_id[0]), limit=5)
    assert [each["a"] for each in row] == trades.agg_id[:5].tolist()
    assert client.exchange.venue().tape.hour_of_id(client.exchange.venue().contract("BTCUSDT"), last) == last_hour(
        trades
    )


def last_hour(trades: Any) -> int:
    return int(trades.time_ms[-1]) // 3_600_000


async def test_a_finer_grid_a_listing_and_a_delisting(open_exchange: Open) -> None:
    faults = (
        fault("scale", symbol="ETHUSDT", after="60s", price_digits=1, quantity_digits=1),
        fault("list", symbol="NEWUSDT", after="30s"),
        fault("delist", symbol="SOLUSDT", after="90s"),
    )
    client = await open_exchange(speed=SPEED, faults=faults)

    async def symbol(name: str) -> Any:
        info = await client.get("/fapi/v1/exchangeInfo")
        return next(row for row in info["symbols"] if row["symbol"] == name)

    before = await symbol("ETHUSDT")
    assert (await symbol("NEWUSDT"))["status"] == "PENDING_TRADING"
    await passed(client.exchange.venue(), 95_000)
    after = await symbol("ETHUSDT")
    ticks = [float(row["filters"][0]["tickSize"]) for row in (before, after)]
    steps = [float(row["filters"][1]["stepSize"]) for row in (before, after)]
    assert ticks[0] == pytest.approx(ticks[1] * 10)
    assert steps[0] == pytest.approx(steps[1] * 10)
    assert (await symbol("NEWUSDT"))["status"] == "TRADING"
    assert (await symbol("SOLUSDT"))["status"] == "SETTLING"
    venue = client.exchange.venue()
    eth = venue.trades("ETHUSDT", START_MS, START_MS + 90_000)
    old = eth.time_ms < START_MS + 60_000
    assert (eth.price[old] % 10 == 0).all()
    assert (eth.price[~old] % 10 != 0).any()
    assert (eth.qty[~old] % 10 != 0).any()
    assert client.exchange.played() == {"scale": 1, "list": 1, "delist": 1}


def test_a_change_of_a_symbol_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no symbol 'NOPE' to change; it has BTCUSDT"):
        OfflineExchange(ExchangeSettings(symbols=3, faults=(fault("delist", symbol="NOPE", after="1s"),)))
    with pytest.raises(UsageError, match="decimal places; spot writes 8"):
        OfflineExchange(
            ExchangeSettings(
                market=Market.SPOT,
                symbols=20,
                faults=(fault("scale", symbol="SHIBUSDT", after="1s", price_digits=2),),
            )
        )


async def test_faults_are_of_their_market_only(open_exchange: Open) -> None:
    client = await open_exchange(speed=SPEED, faults=(fault("http_error", market="spot"),))
    await client.get("/fapi/v1/ping")
    assert client.exchange.played() == {}
