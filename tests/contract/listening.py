"""Clients that others wrote, listening to klagg's streams side by side for some minutes of the market."""

import asyncio
import json
from collections import defaultdict
from typing import Any

import aiohttp

from contract.clients import ccxt_client, python_binance_sockets, sdk_streams
from contract.conftest import Pair
from klagg.interval import MINUTE_MS
from klagg.model import Market

MINUTES = 4
"""Minutes of the market that they listen for: a 3m candle closes among them."""

Key = tuple[str, str, int]
Closings = dict[Key, list[list[Any]]]
"""By symbol, interval and open: the numbers of each time it was told as closed (o h l c v, and q n V Q where told)."""


def _note(found: Closings, k: dict[str, Any], symbol: str) -> None:
    if k["x"]:
        found[symbol, k["i"], k["t"]].append([k[name] for name in ("o", "h", "l", "c", "v", "q", "n", "V", "Q")])


async def _raw(pair: Pair, market: Market, found: Closings, *, combined: bool) -> None:
    route = "/market" if market is Market.USDM else ""
    names = ["!miniTicker@arr", "ethusdt@miniTicker"]
    names += [f"{s}@kline_{i}" for s in ("btcusdt", "ethusdt", "solusdt", "xrpusdt") for i in ("1m", "3m", "5m")]
    async with aiohttp.ClientSession() as http:
        url = f"{pair.ws_url}{route}/stream?streams={'/'.join(names)}" if combined else f"{pair.ws_url}{route}/ws"
        async with http.ws_connect(url) as socket:
            if not combined:
                await socket.send_json({"method": "SUBSCRIBE", "params": names, "id": 1})
            async for message in socket:
                data = json.loads(message.data)
                if combined:
                    assert data["stream"] in names
                    data = data["data"]
                events = data if isinstance(data, list) else [data]
                for event in events:
                    if event.get("e") == "kline":
                        _note(found, event["k"], event["s"])
                    elif event.get("e") == "24hrMiniTicker":
                        pair.minis.setdefault((market, "array" if events is data else "one"), []).append(event)


async def _ccxt(pair: Pair, market: Market, found: Closings) -> None:
    symbol = "ETH/USDT" if market is Market.SPOT else "ETH/USDT:USDT"
    async with ccxt_client(pair.rest_url, pair.ws_url, market, pro=True) as exchange:
        exchange.newUpdates = False
        last: dict[int, list[Any]] = {}
        while True:
            for row in await exchange.watch_ohlcv(symbol, "1m"):
                last[row[0]] = row[1:6]
            # A candle is over once the next one has come; the closing push is the last of it.
            for open_ms in sorted(last)[:-1]:
                if ("ETHUSDT", "1m", open_ms) not in found:
                    found["ETHUSDT", "1m", open_ms].append(last[open_ms])


async def _python_binance(pair: Pair, market: Market, found: Closings) -> None:
    async with python_binance_sockets(pair.ws_url) as manager:
        opened = manager.kline_socket("ETHUSDT", "1m")
        if market is Market.USDM:
            opened = manager.kline_futures_socket("ETHUSDT", "1m")
        async with opened as socket:
            while True:
                message = await socket.recv()
                data = message.get("data", message)
                assert data["e"] == ("kline" if market is Market.SPOT else "continuous_kline")
                _note(found, data["k"], "ETHUSDT")


async def _own(pair: Pair, market: Market, found: Closings) -> None:
    streams = sdk_streams(pair.ws_url, market)
    connection = await streams.create_connection()
    try:
        subscribe = connection.kline if market is Market.SPOT else connection.kline_candlestick_streams
        stream = await subscribe(symbol="ethusdt", interval="1m")
        stream.on("message", lambda data: _note(found, data.k.to_dict(), "ETHUSDT"))
        await asyncio.Event().wait()
    finally:
        await connection.close_connection(close_session=True)


async def _ended(tasks: list[asyncio.Task[None]]) -> None:
    """End the listeners, some of which swallow a cancellation; what still runs then is left to the loop's end."""
    for _ in range(5):
        for task in tasks:
            task.cancel()
        _, left = await asyncio.wait(tasks, timeout=1)
        if not left:
            return


async def closings_of_all(pair: Pair) -> dict[tuple[str, Market], Closings]:
    """What each client heard close, by client and market."""
    heard: dict[tuple[str, Market], Closings] = {}
    tasks = []
    for market in Market:
        for name, listen in (
            ("ccxt", _ccxt(pair, market, heard.setdefault(("ccxt", market), defaultdict(list)))),
            (
                "python-binance",
                _python_binance(pair, market, heard.setdefault(("python-binance", market), defaultdict(list))),
            ),
            (
                "the exchange's own",
                _own(pair, market, heard.setdefault(("the exchange's own", market), defaultdict(list))),
            ),
            ("raw", _raw(pair, market, heard.setdefault(("raw", market), defaultdict(list)), combined=False)),
            (
                "raw combined",
                _raw(pair, market, heard.setdefault(("raw combined", market), defaultdict(list)), combined=True),
            ),
        ):
            tasks.append(asyncio.create_task(listen, name=name))
    boundary = pair.service.markets[0].boundary
    end = asyncio.create_task(boundary.beyond(boundary.boundary_ms + MINUTES * MINUTE_MS))
    done, _ = await asyncio.wait([end, *tasks], return_when=asyncio.FIRST_COMPLETED)
    await asyncio.sleep(0.5)
    end.cancel()
    await _ended(tasks)
    for task in tasks:
        if task.done() and not task.cancelled() and task.exception() is not None:
            raise AssertionError(f"{task.get_name()} ended early") from task.exception()
    assert end in done
    return heard
