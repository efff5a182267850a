import itertools
from decimal import Decimal

import pytest

from klagg.errors import KlaggError
from klagg.model import Market
from klagg.sim import ExchangeSettings, ListingEvent, OfflineExchange
from klagg.sim.calendar import DAY_MS, HOUR_MS, MINUTE_MS
from sim import witness
from sim.client import START_MS, Open

PREFIX = {Market.USDM: "/fapi/v1", Market.SPOT: "/api/v3"}
MARKETS = pytest.mark.parametrize("market", list(Market))


@MARKETS
async def test_klines_are_the_sum_of_the_aggregate_trades(open_exchange: Open, market: Market):
    client = await open_exchange(market, speed=1.0)
    prefix = PREFIX[market]
    start_ms = START_MS // HOUR_MS * HOUR_MS - HOUR_MS
    trades = await client.get(f"{prefix}/aggTrades", symbol="SOLUSDT", startTime=start_ms, limit=1000)
    while trades[-1]["T"] < start_ms + 30 * MINUTE_MS:
        more = await client.get(f"{prefix}/aggTrades", symbol="SOLUSDT", fromId=trades[-1]["a"] + 1, limit=1000)
        trades += more
    assert [row["a"] for row in trades] == list(range(trades[0]["a"], trades[0]["a"] + len(trades)))
    for interval, step_ms in (("1m", MINUTE_MS), ("5m", 5 * MINUTE_MS), ("30m", 30 * MINUTE_MS)):
        rows = await client.get(
            f"{prefix}/klines",
            symbol="SOLUSDT",
            interval=interval,
            startTime=start_ms,
            endTime=start_ms + 30 * MINUTE_MS - 1,
        )
        assert [row[0] for row in rows] == list(range(start_ms, start_ms + 30 * MINUTE_MS, step_ms))
        for row in rows:
            assert row[6] == row[0] + step_ms - 1
            assert witness.of_row(row) == witness.candle(trades, row[0], row[0] + step_ms)


@MARKETS
async def test_longer_candles_are_the_sum_of_shorter_ones(open_exchange: Open, market: Market):
    client = await open_exchange(market, speed=1.0, history_ms=9 * DAY_MS, symbols=2, rate=0.05)
    now_ms = client.exchange.now_ms()
    minutes = client.exchange.klines("ETHUSDT", "1m", 0, now_ms + 1)
    for interval in ("1h", "4h", "1d", "3d", "1w", "1M"):
        rows = client.exchange.klines("ETHUSDT", interval, 0, now_ms + 1)
        for row, following in itertools.zip_longest(rows[:-1], rows[1:-1]):
            inside = [m for m in minutes if row[0] <= m[0] <= row[6]]
            assert following is None or following[0] == row[6] + 1
            assert row[1] == next(m[1] for m in inside if m[8])
            assert row[4] == inside[-1][4]
            assert row[8] == sum(m[8] for m in inside)
            assert Decimal(row[7]) == sum(Decimal(m[7]) for m in inside)


async def test_flat_minutes_carry_the_close_on(open_exchange: Open):
    client = await open_exchange(symbols=40, speed=1.0)
    quiet = list(client.exchange.venue().contracts)[39]
    rows = await client.get("/fapi/v1/klines", symbol=quiet, interval="1m", limit=200)
    flat = [(before, row) for before, row in itertools.pairwise(rows) if row[8] == 0]
    assert len(flat) > 50
    for before, row in flat:
        assert row[1:5] == [before[4]] * 4
        assert Decimal(row[5]) == Decimal(row[7]) == 0


@MARKETS
async def test_which_rows_a_kline_request_gets(open_exchange: Open, market: Market):
    client = await open_exchange(market, speed=1.0)
    path = f"{PREFIX[market]}/klines"

    async def opens(**params) -> list[int]:
        return [row[0] for row in await client.get(path, symbol="BTCUSDT", interval="1m", **params)]

    now = START_MS // MINUTE_MS * MINUTE_MS
    start = now - 100 * MINUTE_MS
    assert len(await opens()) == 500
    assert (await opens(limit=3))[-1] == now  # the running candle is the last row
    assert await opens(startTime=start + 1, limit=2) == [start + MINUTE_MS, start + 2 * MINUTE_MS]
    assert await opens(endTime=start, limit=2) == [start - MINUTE_MS, start]
    assert await opens(startTime=start, endTime=start + MINUTE_MS) == [start, start + MINUTE_MS]
    assert await opens(startTime=now + DAY_MS) == []
    assert await opens(endTime=START_MS - 30 * DAY_MS) == []
    assert len(await opens(limit=1000)) == min(1000, 12 * 60 + 1)


@MARKETS
async def test_nothing_before_the_listing(open_exchange: Open, market: Market):
    client = await open_exchange(market, listings=(ListingEvent(DAY_MS, "LATERUSDT"),), speed=1.0)
    path = f"{PREFIX[market]}/klines"
    if market is Market.SPOT:
        assert (await client.refusal(path, symbol="LATERUSDT", interval="1m"))[1]["code"] == -1121
    else:
        assert await client.get(path, symbol="LATERUSDT", interval="1m") == []
        assert await client.get("/fapi/v1/aggTrades", symbol="LATERUSDT") == []


USDM_REFUSALS = [
    ({"symbol": "NOPEUSDT", "interval": "1m"}, -1121),
    ({"symbol": "BTCUSDT", "interval": "1s"}, -1120),
    ({"symbol": "BTCUSDT", "interval": "7m"}, -1120),
    ({"symbol": "BTCUSDT", "interval": "1m", "limit": "1501"}, -1130),
    ({"interval": "1m"}, -1102),
    ({"symbol": "", "interval": "1m"}, -1105),
    ({"symbol": "BTCUSDT", "interval": "1m", "startTime": "x"}, -1100),
    ({"symbol": "BTCUSDT", "interval": "1m", "startTime": "2", "endTime": "1"}, -1023),
]


@pytest.mark.parametrize(("params", "code"), USDM_REFUSALS)
async def test_refused_kline_requests(open_exchange: Open, params: dict[str, str], code: int):
    client = await open_exchange(speed=1.0)
    status, body, headers = await client.refusal("/fapi/v1/klines", **params)
    assert (status, body["code"]) == (400, code)
    assert int(headers["X-MBX-USED-WEIGHT-1M"]) > 0


async def test_other_refusals(open_exchange: Open):
    client = await open_exchange(symbols=2, speed=1.0, history_ms=3 * DAY_MS, listings=(ListingEvent(0, "NEWUSDT"),))
    old_ms = START_MS - 3 * DAY_MS
    for params, code in (
        ({"startTime": old_ms}, -4166),
        ({"fromId": 1}, -4166),
        ({"fromId": 1, "startTime": 2}, -1128),
    ):
        status, body, _ = await client.refusal("/fapi/v1/aggTrades", symbol="BTCUSDT", **params)
        assert (status, body["code"]) == (400, code)
    assert (await client.get("/fapi/v1/klines", symbol="btcusdt", interval="1m", limit=1))[0][0]
    fresh = await open_exchange(fresh_listing_refused_ms=HOUR_MS, listings=(ListingEvent(0, "NEWUSDT"),))
    assert (await fresh.refusal("/fapi/v1/klines", symbol="NEWUSDT", interval="1m"))[1]["code"] == -1122


async def test_spot_takes_upper_case_seconds_zones_and_microseconds(open_exchange: Open):
    client = await open_exchange(Market.SPOT, speed=1.0, history_ms=2 * DAY_MS)
    assert (await client.refusal("/api/v3/klines", symbol="btcusdt", interval="1m"))[1]["code"] == -1100
    seconds = await client.get("/api/v3/klines", symbol="BTCUSDT", interval="1s", limit=5)
    assert [row[6] - row[0] for row in seconds] == [999] * 5
    zoned = await client.get("/api/v3/uiKlines", symbol="BTCUSDT", interval="1d", timeZone="+08:00", limit=1)
    assert zoned[0][0] % DAY_MS == 16 * HOUR_MS
    micro = {"X-MBX-TIME-UNIT": "MICROSECOND"}
    _, rows, _ = await client.refusal("/api/v3/klines", micro, symbol="BTCUSDT", interval="1m", limit=1)
    assert rows[0][6] == rows[0][0] + 60_000_000 - 1
    assert len(str(rows[0][0])) == 16
    same = await client.get("/api/v3/klines", symbol="BTCUSDT", interval="1m", startTime=rows[0][0], limit=1)
    assert same[0][0] * 1_000 == rows[0][0]
    assert len(rows[0][1].partition(".")[2]) == 8


@pytest.mark.parametrize(
    ("market", "path", "params", "weight"),
    [
        (Market.USDM, "ping", {}, 1),
        (Market.USDM, "exchangeInfo", {}, 1),
        (Market.USDM, "klines", {"limit": 100}, 1),
        (Market.USDM, "klines", {"limit": 101}, 2),
        (Market.USDM, "klines", {"limit": 500}, 2),
        (Market.USDM, "klines", {}, 5),
        (Market.USDM, "klines", {"limit": 1500}, 10),
        (Market.USDM, "klines", {"limit": 1501}, 10),
        (Market.USDM, "aggTrades", {}, 20),
        (Market.SPOT, "exchangeInfo", {}, 20),
        (Market.SPOT, "klines", {"limit": 1000}, 2),
        (Market.SPOT, "aggTrades", {}, 4),
    ],
)
async def test_weights(open_exchange: Open, market: Market, path: str, params: dict[str, int], weight: int):
    client = await open_exchange(market, speed=0.001)
    if path not in ("ping", "exchangeInfo"):
        params = {"symbol": "BTCUSDT", "interval": "1m"} | params
    _, _, headers = await client.refusal(f"{PREFIX[market]}/{path}", **params)
    assert headers["x-mbx-used-weight-1m"] == str(weight)


@MARKETS
async def test_past_the_weight_limit_429_then_418(open_exchange: Open, market: Market):
    client = await open_exchange(market, speed=0.001, weight_limit=3, ban_after=2)
    answers = [await client.refusal(f"{PREFIX[market]}/ping") for _ in range(7)]
    assert [status for status, _, _ in answers] == [200, 200, 200, 429, 429, 418, 418]
    assert {body["code"] for status, body, _ in answers if status != 200} == {-1003}
    assert answers[3][2]["Retry-After"] == "30"  # the market's minute ends 30 s after the start
    assert answers[5][2]["Retry-After"] == "120"
    assert f"banned until {START_MS + 120_000}"[:24] in answers[5][1]["msg"]


async def test_the_weight_is_forgotten_with_the_minute_and_retry_after_can_be_off(open_exchange: Open):
    client = await open_exchange(speed=1.0, weight_limit=1, retry_after=False)
    assert (await client.refusal("/fapi/v1/ping"))[0] == 200
    status, _, headers = await client.refusal("/fapi/v1/ping")
    assert status == 429
    assert "Retry-After" not in headers
    client.exchange.set_offset(MINUTE_MS)
    assert (await client.refusal("/fapi/v1/ping"))[0] == 200


async def test_refusals_by_switch_and_by_request(open_exchange: Open):
    blocked = await open_exchange(geo_blocked=True)
    status, body, _ = await blocked.refusal("/fapi/v1/time")
    assert status == 451
    assert "restricted location" in body["msg"]
    client = await open_exchange()
    client.exchange.refuse(503, 2, "klines")
    client.exchange.refuse(403)
    assert "<html>" in (await client.refusal("/fapi/v1/ping"))[1]
    ask = {"symbol": "BTCUSDT", "interval": "1m"}
    assert [(await client.refusal("/fapi/v1/klines", **ask))[0] for _ in range(3)] == [503, 503, 200]


async def test_the_futures_symbol_list(open_exchange: Open):
    client = await open_exchange(symbols=25, speed=1.0)
    info = await client.get("/fapi/v1/exchangeInfo")
    symbols = {row["symbol"]: row for row in info["symbols"]}
    assert sum(row["status"] == "TRADING" for row in symbols.values()) == 25
    assert {row["status"] for row in symbols.values()} == {"TRADING", "SETTLING", "PENDING_TRADING", "UNDER_REVIEW"}
    assert {row["contractType"] for row in symbols.values()} == {"PERPETUAL", "TRADIFI_PERPETUAL", "CURRENT_QUARTER"}
    assert "币安人生USDT" in symbols
    btc = symbols["BTCUSDT"]
    tick = next(f["tickSize"] for f in btc["filters"] if f["filterType"] == "PRICE_FILTER")
    assert (btc["pricePrecision"], tick) == (2, "0.10")
    assert symbols["LUNA2USDT"]["deliveryDate"] < START_MS
    assert symbols["SOONUSDT"]["onboardDate"] > START_MS
    flat = await client.get("/fapi/v1/klines", symbol="LUNA2USDT", interval="1m", limit=5)
    assert [row[8] for row in flat] == [0] * 5  # flat rows go on after settlement


async def test_the_spot_symbol_list(open_exchange: Open):
    client = await open_exchange(Market.SPOT, speed=1.0)
    info = await client.get("/api/v3/exchangeInfo")
    assert {row["status"] for row in info["symbols"]} == {"TRADING", "BREAK", "HALT", "CANCEL_ONLY", "UNDER_REVIEW"}
    one = await client.get("/api/v3/exchangeInfo", symbol="BTCUSDT")
    assert [row["symbol"] for row in one["symbols"]] == ["BTCUSDT"]
    last = await client.get("/api/v3/klines", symbol="LUNA2USDT", interval="1m", limit=1)
    assert last[0][0] < START_MS - 5 * HOUR_MS  # no rows after the end


@MARKETS
async def test_tickers_and_the_rest(open_exchange: Open, market: Market):
    client = await open_exchange(market, speed=1.0)
    prefix = PREFIX[market]
    tickers = await client.get(f"{prefix}/ticker/24hr")
    assert len(tickers) == 5
    minutes = client.exchange.klines("ETHUSDT", "1m", 0, START_MS + DAY_MS)
    one = await client.get(f"{prefix}/ticker/24hr", symbol="ETHUSDT")
    assert one["highPrice"] == max(minutes, key=lambda row: Decimal(row[2]))[2]
    assert len(await client.get(f"{prefix}/ticker/price")) == 5
    assert abs((await client.get(f"{prefix}/time"))["serverTime"] - START_MS) < 10_000
    assert (await client.refusal(f"{prefix}/nothing"))[0] == 404
    if market is Market.USDM:
        rows = await client.get(
            "/fapi/v1/continuousKlines", pair="BTCUSDT", contractType="PERPETUAL", interval="1m", limit=2
        )
        assert len(rows) == 2


async def test_both_markets_on_one_port():
    settings = [ExchangeSettings(market=market, symbols=2, history_ms=0) for market in Market]
    async with OfflineExchange(*settings) as exchange:
        assert exchange.venue(Market.SPOT).market is Market.SPOT
        assert exchange.venue().market is settings[0].market


async def test_a_port_in_use_is_one_clear_line(open_exchange: Open):
    client = await open_exchange()
    port = int(client.exchange.rest_url.rpartition(":")[2])
    other = OfflineExchange(ExchangeSettings(symbols=1, history_ms=0))
    with pytest.raises(KlaggError, match=rf"cannot listen on 127.0.0.1:{port}.*choose another port"):
        await other.start(port=port)
