"""A client of an offline exchange."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

from klagg.sim import OfflineExchange

START_MS = 1_795_521_630_000
"""Tuesday 2026-11-24 12:00:30 UTC."""


@dataclass
class Client:
    exchange: OfflineExchange
    http: aiohttp.ClientSession

    async def get(self, path: str, **params: Any) -> Any:
        async with self.http.get(f"{self.exchange.rest_url}{path}", params=params) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def refusal(self, path: str, headers: dict[str, str] | None = None, **params: Any) -> tuple[int, Any, Any]:
        """Status, body and headers of a request that is not served."""
        async with self.http.get(f"{self.exchange.rest_url}{path}", params=params, headers=headers) as response:
            text = await response.text()
            return response.status, json.loads(text) if text.startswith(("{", "[")) else text, response.headers

    def connect(self, path: str) -> Any:
        return self.http.ws_connect(f"{self.exchange.ws_url}{path}", timeout=aiohttp.ClientWSTimeout(ws_close=1))


Open = Callable[..., Awaitable[Client]]
