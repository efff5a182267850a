"""How clients that others wrote are pointed at klagg: one short program or file for each, which the tests run."""

from typing import Final

_CCXT_URLS: Final = """{"api": {
    "public": f"{URL}/api/v3",
    "fapiPublic": f"{URL}/fapi/v1",
    "fapiPublicV2": f"{URL}/fapi/v2",
    "ws": {"spot": f"{STREAMS}/ws", "linear": f"{STREAMS}/ws"},
}}"""

_CCXT: Final = f"""import ccxt

URL = "@URL@"
STREAMS = URL.replace("http", "ws", 1)

exchange = ccxt.@CCXT@({{
    "urls": {_CCXT_URLS},
    "options": {{"fetchCurrencies": False, "fetchMarkets": {{"types": ["@TYPE@"]}}}},
}})
print(exchange.fetch_ohlcv("@CCXT_SYMBOL@", "1m", limit=3))
"""

_CCXT_PRO: Final = f"""import asyncio

import ccxt.pro

URL = "@URL@"
STREAMS = URL.replace("http", "ws", 1)


async def main():
    exchange = ccxt.pro.@CCXT@({{
        "urls": {_CCXT_URLS},
        "options": {{"fetchCurrencies": False, "fetchMarkets": {{"types": ["@TYPE@"]}}}},
    }})
    print(await exchange.watch_ohlcv("@CCXT_SYMBOL@", "1m"))
    await exchange.close()


asyncio.run(main())
"""

_PYTHON_BINANCE: Final = """from binance.client import Client

URL = "@URL@"

client = Client(ping=False)
client.API_URL, client.FUTURES_URL = f"{URL}/api", f"{URL}/fapi"
print(client.@KLINES@(symbol="@SYMBOL@", interval="1m", limit=3))
"""

_SDK_USDM: Final = """from binance_common.configuration import ConfigurationRestAPI
from binance_sdk_derivatives_trading_usds_futures.derivatives_trading_usds_futures import DerivativesTradingUsdsFutures

configuration = ConfigurationRestAPI(api_key="", api_secret="", base_path="@URL@")
client = DerivativesTradingUsdsFutures(config_rest_api=configuration)
print(client.rest_api.kline_candlestick_data("@SYMBOL@", "1m", limit=3).data())
"""

_SDK_SPOT: Final = """from binance_common.configuration import ConfigurationRestAPI
from binance_sdk_spot.spot import Spot

configuration = ConfigurationRestAPI(api_key="", api_secret="", base_path="@URL@")
client = Spot(config_rest_api=configuration)
print(client.rest_api.klines("@SYMBOL@", "1m", limit=3).data())
"""

_FREQTRADE: Final = """{
  "trading_mode": "@MODE@",
  "margin_mode": "@MARGIN@",
  "exchange": {
    "name": "binance",
    "enable_ws": false,
    "pair_whitelist": ["@CCXT_SYMBOL@"],
    "ccxt_config": {
      "urls": {"api": {"public": "@URL@/api/v3", "fapiPublic": "@URL@/fapi/v1", "fapiPublicV2": "@URL@/fapi/v2"}},
      "options": {"fetchCurrencies": false, "fetchMarkets": {"types": ["@TYPE@"]}}
    }
  }
}
"""

_CURL: Final = """curl -s '@URL@@PREFIX@/klines?symbol=@SYMBOL@&interval=1m&limit=3'
"""

_WEBSOCKETS: Final = """import asyncio

import websockets


async def main():
    async with websockets.connect("@STREAMS@@ROUTE@/ws/@STREAM_SYMBOL@@kline_1m") as socket:
        print(await socket.recv())


asyncio.run(main())
"""

CLIENTS: Final = ("ccxt", "ccxt-pro", "python-binance", "binance-sdk", "freqtrade", "curl", "websockets")


def snippet(client: str, url: str, symbol: str, *, spot: bool) -> str:
    """The snippet of one of `CLIENTS`. `symbol` is the exchange's name, in its quote asset USDT or another of four letters."""
    text = {
        "ccxt": _CCXT,
        "ccxt-pro": _CCXT_PRO,
        "python-binance": _PYTHON_BINANCE,
        "binance-sdk": _SDK_SPOT if spot else _SDK_USDM,
        "freqtrade": _FREQTRADE,
        "curl": _CURL,
        "websockets": _WEBSOCKETS,
    }[client]
    base, quote = symbol[:-4], symbol[-4:]
    values = {
        "STREAM_SYMBOL": symbol.lower(),
        "CCXT_SYMBOL": f"{base}/{quote}" if spot else f"{base}/{quote}:{quote}",
        "CCXT": "binance" if spot else "binanceusdm",
        "TYPE": "spot" if spot else "linear",
        "KLINES": "get_klines" if spot else "futures_klines",
        "MODE": "spot" if spot else "futures",
        "MARGIN": "" if spot else "isolated",
        "PREFIX": "/api/v3" if spot else "/fapi/v1",
        "ROUTE": "" if spot else "/market",
        "STREAMS": url.replace("http", "ws", 1),
        "SYMBOL": symbol,
        "URL": url,
    }
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text
