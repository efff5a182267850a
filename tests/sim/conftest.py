"""An offline exchange and a client for it."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from klagg.model import Market
from klagg.sim import ExchangeSettings, OfflineExchange
from sim.client import START_MS, Client, Open


@pytest.fixture
async def open_exchange() -> AsyncIterator[Open]:
    """Start an exchange with these settings, `market` and a small, quick one unless told otherwise."""
    opened: list[Client] = []

    async def start(market: Market = Market.USDM, **settings: Any) -> Client:
        wanted = {"symbols": 5, "history_ms": 0, "start_ms": START_MS, "speed": 60.0} | settings
        exchange = OfflineExchange(ExchangeSettings(market=market, **wanted))
        await exchange.start()
        opened.append(Client(exchange, aiohttp.ClientSession()))
        return opened[-1]

    yield start
    for client in opened:
        await client.http.close()
        await client.exchange.stop()
