"""What clients that others wrote get from klagg equals what they get from the exchange itself, endpoint by endpoint."""

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any

import aiohttp
import ccxt
import pytest

from contract.clients import ccxt_client, python_binance, sdk_rest
from contract.conftest import Pair
from contract.listening import closings_of_all
from klagg.cli.snippets import CLIENTS
from klagg.interval import HOUR_MS, MINUTE_MS, parse_interval
from klagg.model import Market

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(180),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
FIVE_MS = 5 * MINUTE_MS
MARKETS = pytest.mark.parametrize("market", list(Market))
MOVING = {"serverTime", "time", "closeTime", "openTime", "timestamp", "datetime", "info", "lastQty", "marginModes"}
"""What no two moments share, and a ticker's last quantity, which candles do not tell."""


def steady(rows: Any) -> Any:
    if isinstance(rows, dict):
        return {key: steady(value) for key, value in rows.items() if key not in MOVING}
    return [steady(row) for row in rows] if isinstance(rows, list) else rows


@MARKETS
async def test_ccxt(both: Pair, market: Market) -> None:
    end_ms = both.closed_ms(market)
    symbol = "ETH/USDT" if market is Market.SPOT else "ETH/USDT:USDT"
    params = {"endTime": end_ms - 1}
    asked = {
        "minutes": ("1m", end_ms - HOUR_MS, 60, params),
        "folded": ("15m", end_ms - 5 * HOUR_MS, 10, params),
        "newest": ("5m", None, 20, {"endTime": end_ms // FIVE_MS * FIVE_MS - 1}),
        "none": ("1h", 0, 3, {"endTime": 10**9}),
        "hours": ("1h", end_ms - 6 * HOUR_MS, 3, params),
    }
    found: list[dict[str, Any]] = []
    for rest_url, ws_url in ((both.rest_url, both.ws_url), (both.exchange.rest_url, both.exchange.ws_url)):
        async with ccxt_client(rest_url, ws_url, market) as exchange:
            markets = await exchange.load_markets()
            answers = {name: await exchange.fetch_ohlcv(symbol, *what) for name, what in asked.items()}
            answers["markets"] = {key: steady(one) for key, one in markets.items() if one["active"]}
            answers["kinds"] = sorted((await exchange.fetch_ticker(symbol)).keys())
            answers["tickers"] = sorted(await exchange.fetch_tickers())
            assert abs(await exchange.fetch_time() - both.exchange.now_ms(market)) < MINUTE_MS
            found.append(answers)
    ours, theirs = found
    for name in theirs:
        assert ours[name] == theirs[name], name
    assert len(ours["minutes"]) == 60
    assert len(ours["folded"]) == 10
    assert symbol in ours["markets"]


@MARKETS
async def test_python_binance(both: Pair, market: Market) -> None:
    end_ms = both.closed_ms(market) // HOUR_MS * HOUR_MS
    span = {"startTime": end_ms - HOUR_MS, "endTime": end_ms - 1}

    def read(rest_url: str) -> list[Any]:
        with python_binance(rest_url) as client:
            if market is Market.SPOT:
                return [
                    client.ping(),
                    client.get_klines(symbol="BTCUSDT", interval="3m", **span),
                    client.get_ui_klines(symbol="BTCUSDT", interval="1m", **span),
                    list(client.get_historical_klines("ETHUSDT", "1m", end_ms - 20 * HOUR_MS, end_ms - 1)),
                    client.get_symbol_info("ETHUSDT")["filters"],
                    sorted(row["symbol"] for row in client.get_all_tickers()),
                    steady(client.get_symbol_ticker(symbol="BTCUSDT")).keys(),
                    steady(client.get_ticker(symbol="BTCUSDT")).keys(),
                ]
            return [
                client.futures_ping(),
                client.futures_klines(symbol="BTCUSDT", interval="3m", **span),
                client.futures_continuous_klines(pair="BTCUSDT", contractType="PERPETUAL", interval="1h", **span),
                list(client.futures_historical_klines("ETHUSDT", "1m", end_ms - 20 * HOUR_MS, end_ms - 1)),
                [row["filters"] for row in client.futures_exchange_info()["symbols"] if row["symbol"] == "ETHUSDT"],
                client.futures_ticker(symbol="BTCUSDT").keys(),
            ]

    def prices(rest_url: str) -> list[str]:
        # By the second version of its path, which the offline exchange has not.
        with python_binance(rest_url) as client:
            assert client.futures_symbol_ticker(symbol="BTCUSDT").keys() == {"symbol", "price", "time"}
            return [row["symbol"] for row in client.futures_symbol_ticker()]

    ours = await asyncio.to_thread(read, both.rest_url)
    theirs = await asyncio.to_thread(read, both.exchange.rest_url)
    if market is Market.USDM:
        assert "BTCUSDT" in await asyncio.to_thread(prices, both.rest_url)
    assert len(ours[3]) == 20 * 60
    for mine, other in zip(ours, theirs, strict=True):
        assert mine == other


@MARKETS
async def test_the_exchanges_own_client(both: Pair, market: Market) -> None:
    end_ms = both.closed_ms(market) // (2 * HOUR_MS) * 2 * HOUR_MS
    spot = market is Market.SPOT

    def read(rest_url: str) -> list[Any]:
        client = sdk_rest(rest_url, market)
        klines = client.klines if spot else client.kline_candlestick_data
        times = {"start_time": end_ms - 3 * HOUR_MS, "end_time": end_ms - 1}
        rows = [str(klines("ETHUSDT", interval, limit=7, **times).data()) for interval in ("1m", "2h", "1h")]
        info = client.exchange_info() if spot else client.exchange_information()
        symbols = {one.symbol: one for one in info.data().symbols if one.status == "TRADING"}
        shown = ("status", "base_asset", "quote_asset", "price_precision", "quantity_precision", "contract_type")
        return [
            rows,
            {name: [getattr(one, field, None) for field in shown] for name, one in symbols.items()},
            [str(one.filters) for one in symbols.values()],
            str(client.ui_klines("ETHUSDT", "5m", limit=3, **times).data()) if spot else None,
        ]

    ours = await asyncio.to_thread(read, both.rest_url)
    theirs = await asyncio.to_thread(read, both.exchange.rest_url)
    assert ours == theirs
    assert ours[0][0].count("'0'") >= 7


def queries(market: Market, end_ms: int) -> list[str]:
    """Questions good and bad, as a path below the version's prefix."""
    series = "symbol=BTCUSDT&interval=1m"
    asked = [
        "ping",
        "klines",
        "klines?symbol=BTCUSDT",
        "klines?symbol=&interval=1m",
        "klines?symbol=NOPEUSDT&interval=1m",
        "klines?symbol=BTCUSDT&interval=7m",
        "klines?symbol=btcusdt&interval=1h&limit=1&endTime=1",
        f"klines?{series}&limit=0",
        f"klines?{series}&limit=-1",
        f"klines?{series}&limit=abc",
        f"klines?{series}&limit=",
        f"klines?{series}&startTime=x",
        f"klines?{series}&startTime={end_ms}&endTime={end_ms - 1}",
        f"klines?{series}&limit=1501&endTime={end_ms - 1}&startTime={end_ms - 2 * MINUTE_MS}",
        f"klines?{series}&interval=1h",
        f"klines?{series}&startTime={9 * 10**12}",
        "ticker/price?symbol=NOPEUSDT",
        "ticker/24hr?symbol=NOPEUSDT",
    ]
    for interval in ("1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h"):
        start_ms = end_ms - 20 * HOUR_MS
        asked += [
            f"klines?symbol=ETHUSDT&interval={interval}&startTime={start_ms}&endTime={start_ms + 8 * HOUR_MS}&limit=77",
            f"klines?symbol=ETHUSDT&interval={interval}&startTime={start_ms + 1}&endTime={start_ms + 8 * HOUR_MS - 1}",
        ]
    if market is Market.SPOT:
        zoned = f"startTime={end_ms - 20 * HOUR_MS}&endTime={end_ms - 5 * HOUR_MS}"
        asked += [f"klines?symbol=ETHUSDT&interval={i}&{zoned}&timeZone=5:45" for i in ("1m", "15m", "1h", "4h")]
        asked += [
            f"klines?symbol=ETHUSDT&interval=1h&{zoned}&timeZone={z}" for z in ("8", "-3:30", "15", "x", "-12:00")
        ]
        asked += [
            "exchangeInfo?symbol=NOPE",
            "uiKlines?symbol=BTCUSDT",
            "klines?symbol=a b&interval=1m",
        ]
    else:
        asked += [
            "continuousKlines?pair=BTCUSDT&interval=1m",
            "continuousKlines?pair=NOPE&contractType=PERPETUAL&interval=1m",
            f"continuousKlines?pair=btcusdt&contractType=PERPETUAL&interval=1h&limit=2&endTime={end_ms - 3 * HOUR_MS}",
        ]
    return asked


@MARKETS
async def test_answers_and_errors_are_the_exchanges(both: Pair, market: Market) -> None:
    prefix = "/api/v3/" if market is Market.SPOT else "/fapi/v1/"
    units = [{}, {"X-MBX-TIME-UNIT": "MICROSECOND"}] if market is Market.SPOT else [{}]
    async with aiohttp.ClientSession() as http:
        for headers in units:
            for query in queries(market, both.closed_ms(market)):
                answers = []
                for base in (both.rest_url, both.exchange.rest_url):
                    async with http.get(base + prefix + query, headers=headers) as response:
                        used = int(response.headers["X-MBX-USED-WEIGHT-1M"])
                        answers.append((response.status, json.loads(await response.text())))
                        assert used > 0
                assert answers[0] == answers[1], query


@MARKETS
async def test_a_day_is_exact_where_it_is_whole(both: Pair, market: Market) -> None:
    """The exchange's own ticker, at a moment at which its newest trade has reached klagg."""
    path = f"/{'api/v3' if market is Market.SPOT else 'fapi/v1'}/ticker/24hr?symbol=XRPUSDT"
    shown = ("openPrice", "highPrice", "lowPrice", "lastPrice", "volume", "quoteVolume", "count")
    async with aiohttp.ClientSession() as http:
        for _ in range(100):
            found = []
            for base in (both.exchange.rest_url, both.rest_url):
                async with http.get(base + path) as response:
                    assert response.status == 200
                    row = await response.json()
                    found.append({key: row[key] for key in (*shown, "priceChange", "priceChangePercent")})
            if found[0] == found[1]:
                break
            await asyncio.sleep(0.05)
    assert found[0] == found[1]


async def test_closed_candles_of_the_streams_are_the_exchanges(both: Pair) -> None:
    heard = await closings_of_all(both)
    assert {name for name, _ in heard} == {"ccxt", "python-binance", "the exchange's own", "raw", "raw combined"}
    revised = both.revised()
    compared = 0
    for (name, market), closings in heard.items():
        assert closings, f"{name} heard no candle of {market} close"
        for key, values in closings.items():
            assert len(values) == 1, f"{name}: {key} closed {len(values)} times"
            symbol, interval, open_ms = key
            row = both.exchange.klines(symbol, interval, open_ms, open_ms + 1, market)[0]
            wanted = [*row[1:6], row[7], row[8], row[9], row[10]]
            got = values[0]
            # On this accelerated clock some trades come after their minute was closed: a revision, which is not pushed.
            if not any(start <= minute < end for start, end, minute in overlaps(revised, market, key)):
                assert [float(x) for x in got] == [float(x) for x in wanted[: len(got)]], f"{name}: {key}"
                compared += 1
    assert compared > sum(map(len, heard.values())) / 2
    keys = {"e", "E", "s", "c", "o", "h", "l", "v", "q"}
    for market in Market:
        for kind in ("one", "array"):
            heard_minis = both.minis[market, kind]
            assert set(heard_minis[0]) == keys | ({"ps", "st"} if market is Market.USDM else set())
            assert all(float(mini["l"]) <= float(mini["c"]) <= float(mini["h"]) for mini in heard_minis)
        assert {mini["s"] for mini in both.minis[market, "one"]} == {"ETHUSDT"}
        assert {"BTCUSDT", "ETHUSDT"} <= {mini["s"] for mini in both.minis[market, "array"]}
    assert any(interval == "3m" for _, interval, _ in heard["raw", Market.USDM]), "a frame that is not kept closes too"


def overlaps(
    revised: list[tuple[str, str, int]], market: Market, key: tuple[str, str, int]
) -> list[tuple[int, int, int]]:
    """The span of a candle with each minute of its series that was revised."""
    symbol, interval, open_ms = key
    end_ms = parse_interval(interval).next_open(open_ms)
    return [(open_ms, end_ms, minute) for name, other, minute in revised if (name, other) == (market.value, symbol)]


@MARKETS
@pytest.mark.parametrize("client", CLIENTS)
async def test_what_connect_prints_works(both: Pair, market: Market, client: str, tmp_path: Path) -> None:
    """Each snippet is run as it is printed, and shows a candle of the symbol."""
    # By a process of its own: the service that runs in this one logs what it likes, when it likes.
    asked = ["connect", client, "--market", market.value, "--url", both.rest_url, "--symbol", "ETHUSDT"]
    command = [sys.executable, "-m", "klagg.cli", *asked]
    printing = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    text = (await printing.communicate())[0].decode()
    assert printing.returncode == 0
    if client == "freqtrade":
        # As freqtrade itself does with this part of its configuration.
        exchange = (ccxt.binance if market is Market.SPOT else ccxt.binanceusdm)(
            json.loads(text)["exchange"]["ccxt_config"]
        )
        shown = str(
            await asyncio.to_thread(exchange.fetch_ohlcv, json.loads(text)["exchange"]["pair_whitelist"][0], "1m")
        )
    else:
        program = tmp_path / "snippet"
        program.write_text(text)
        command = ["sh", str(program)] if client == "curl" else [sys.executable, str(program)]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        shown = (await process.communicate())[0].decode()
        assert process.returncode == 0
    assert re.search(r"\b[0-9]{13}\b", shown)
