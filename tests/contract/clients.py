"""Clients that others wrote, pointed somewhere by base URL alone."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import binance_sdk_derivatives_trading_usds_futures.derivatives_trading_usds_futures as usds
import binance_sdk_spot.spot as spot_sdk
import ccxt.async_support as ccxt
import ccxt.pro as ccxtpro
from binance import AsyncClient, BinanceSocketManager
from binance.client import Client as PythonBinance
from binance_common.configuration import ConfigurationRestAPI, ConfigurationWebSocketStreams

from klagg.model import Market


def _redirect(exchange: Any, rest_url: str, ws_url: str) -> None:
    """Give ccxt another base URL, as its documentation says: every address keeps its path."""

    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: moved(inner) for key, inner in value.items()}
        scheme, separator, rest = value.partition("://")
        if not separator:
            return value
        _, _, path = rest.partition("/")
        return f"{ws_url if scheme.startswith('ws') else rest_url}/{path}"

    exchange.urls["api"] = moved(exchange.urls["api"])


@contextlib.asynccontextmanager
async def ccxt_client(rest_url: str, ws_url: str, market: Market, *, pro: bool = False) -> AsyncIterator[Any]:
    module = ccxtpro if pro else ccxt
    exchange = module.binance() if market is Market.SPOT else module.binanceusdm()
    exchange.options |= {
        "fetchCurrencies": False,
        "fetchMarkets": {"types": ["spot" if market is Market.SPOT else "linear"]},
    }
    _redirect(exchange, rest_url, ws_url)
    try:
        yield exchange
    finally:
        await exchange.close()


@contextlib.contextmanager
def python_binance(rest_url: str) -> Iterator[PythonBinance]:
    client = PythonBinance(ping=False)
    client.API_URL, client.FUTURES_URL = f"{rest_url}/api", f"{rest_url}/fapi"
    try:
        yield client
    finally:
        client.session.close()


def sdk_rest(rest_url: str, market: Market) -> Any:
    configuration = ConfigurationRestAPI(api_key="", api_secret="", base_path=rest_url, retries=0, timeout=10_000)
    if market is Market.SPOT:
        return spot_sdk.Spot(config_rest_api=configuration).rest_api
    return usds.DerivativesTradingUsdsFutures(config_rest_api=configuration).rest_api


@contextlib.asynccontextmanager
async def python_binance_sockets(ws_url: str) -> AsyncIterator[BinanceSocketManager]:
    client = AsyncClient()
    manager = BinanceSocketManager(client)
    manager.STREAM_URL = manager.FSTREAM_URL = f"{ws_url}/"
    try:
        yield manager
    finally:
        await client.close_connection()


def sdk_streams(ws_url: str, market: Market) -> Any:
    if market is Market.SPOT:
        return spot_sdk.Spot(
            config_ws_streams=ConfigurationWebSocketStreams(stream_url=f"{ws_url}/stream")
        ).websocket_streams
    return usds.DerivativesTradingUsdsFutures(
        config_ws_streams=ConfigurationWebSocketStreams(stream_url=ws_url)
    ).websocket_streams
