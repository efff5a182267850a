"""Clients that others wrote for the real exchange read the offline one."""

import asyncio
from decimal import Decimal
from typing import Any

import ccxt.async_support as ccxt
import pytest
from binance.client import Client as PythonBinance

from klagg.model import Market
from klagg.sim.calendar import DAY_MS, MINUTE_MS
from sim.client import START_MS, Client, Open

MINUTE = START_MS // MINUTE_MS * MINUTE_MS


def ccxt_client(client: Client, market: Market) -> Any:
    spot = market is Market.SPOT
    exchange = (ccxt.binance if spot else ccxt.binanceusdm)()
    exchange.options |= {"fetchCurrencies": False, "fetchMarkets": {"types": ["spot" if spot else "linear"]}}
    for name, url in exchange.urls["api"].items():
        if isinstance(url, str):
            _, _, path = url.removeprefix("https://").partition("/")
            exchange.urls["api"][name] = f"{client.exchange.rest_url}/{path}"
    return exchange


@pytest.mark.parametrize(
    ("market", "symbol", "ours"), [(Market.SPOT, "ETH/USDT", "ETHUSDT"), (Market.USDM, "ETH/USDT:USDT", "ETHUSDT")]
)
async def test_ccxt(open_exchange: Open, market: Market, symbol: str, ours: str):
    client = await open_exchange(market, symbols=20, speed=1.0)
    exchange = ccxt_client(client, market)
    try:
        markets = await exchange.load_markets()
        assert markets[symbol]["id"] == ours
        assert sum(bool(one["active"]) for one in markets.values()) == 20
        since = MINUTE - 30 * MINUTE_MS
        candles = await exchange.fetch_ohlcv(symbol, "1m", since=since, limit=10)
        rows = client.exchange.klines(ours, "1m", since, since + 10 * MINUTE_MS)
        assert candles == [[row[0], *(float(text) for text in row[1:6])] for row in rows]
        trades = await exchange.fetch_trades(symbol, since=since, limit=500)
        inside = [trade for trade in trades if trade["timestamp"] < since + MINUTE_MS]
        assert inside[0]["price"] == candles[0][1]
        assert sum(Decimal(str(trade["amount"])) for trade in inside) == Decimal(rows[0][5])
        assert (await exchange.fetch_ticker(symbol))["last"] > 0
    finally:
        await exchange.close()


@pytest.mark.parametrize("market", list(Market))
async def test_python_binance(open_exchange: Open, market: Market):
    client = await open_exchange(market, symbols=8, speed=1.0, history_ms=DAY_MS)
    spot = market is Market.SPOT

    def read() -> tuple[Any, Any, Any, Any]:
        reader = PythonBinance(ping=False)
        reader.API_URL, reader.FUTURES_URL = f"{client.exchange.rest_url}/api", f"{client.exchange.rest_url}/fapi"
        ask = {"symbol": "BTCUSDT", "interval": "5m", "startTime": MINUTE - DAY_MS, "endTime": MINUTE - 5 * MINUTE_MS}
        try:
            if spot:
                paged = list(
                    reader.get_historical_klines("BTCUSDT", "1m", str(MINUTE - DAY_MS), str(MINUTE - MINUTE_MS))
                )
                return (
                    reader.get_klines(**ask),
                    paged,
                    reader.get_aggregate_trades(symbol="BTCUSDT"),
                    reader.get_exchange_info(),
                )
            paged = list(reader.futures_historical_klines("BTCUSDT", "1m", MINUTE - DAY_MS, MINUTE - MINUTE_MS))
            return (
                reader.futures_klines(**ask),
                paged,
                reader.futures_aggregate_trades(symbol="BTCUSDT"),
                reader.futures_exchange_info(),
            )
        finally:
            reader.session.close()

    rows, paged, trades, info = await asyncio.to_thread(read)
    assert rows == client.exchange.klines("BTCUSDT", "5m", MINUTE - DAY_MS, MINUTE - 5 * MINUTE_MS + 1)[:500]
    assert paged == client.exchange.klines("BTCUSDT", "1m", MINUTE - DAY_MS, MINUTE - MINUTE_MS + 1)
    assert [row["a"] for row in trades] == list(range(trades[0]["a"], trades[0]["a"] + 500))
    assert "币安人生USDT" in {row["symbol"] for row in info["symbols"]}
