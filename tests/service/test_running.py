"""Running candles of a first start: soon whole, however short the history, as the exchange's own pieces make them."""

import asyncio
from decimal import Decimal
from pathlib import Path

import aiohttp
import pytest

from klagg.clock import ScaledClock
from klagg.config.settings import Settings
from klagg.fixed import WORD
from klagg.interval import BY_NAME, DAY_MS, HOUR_MS, INTERVALS, MINUTE
from klagg.model import Market
from klagg.service.market import MarketService
from klagg.service.run import Service
from klagg.sim import ExchangeSettings, OfflineExchange
from klagg.store import open_store
from klagg.store.thread import StoreThread

SPEED = 30.0
PREFIX = {Market.USDM: "/fapi/v1", Market.SPOT: "/api/v3"}
MINUTES_ALLOWED = 3
"""Boundaries after the history is ready; a candle of five minutes or less may be a new one by then, the others are not."""
SETTLED_S = 15.0
"""After a boundary: trades that were late have come, and so has the exchange's closing push."""

Row = tuple[Decimal, ...]


async def klines(world: OfflineExchange, market: Market, symbol: str, name: str, start_ms: int, end_ms: int) -> dict:
    """The exchange's candles that open in `[start_ms, end_ms)`, by their open."""
    query = {"symbol": symbol, "interval": name, "startTime": start_ms, "endTime": end_ms - 1, "limit": 1_000}
    if end_ms <= start_ms:
        return {}
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{world.rest_url}{PREFIX[market]}/klines", params=query) as answer,
    ):
        rows = await answer.json()
    return {row[0]: tuple(Decimal(row[at]) for at in (1, 2, 3, 4, 5, 7, 8, 9, 10)) for row in rows}


def fold(pieces: list[Row]) -> Row:
    """One candle of consecutive ones; those without trades give no open, high or low."""
    traded = [piece for piece in pieces if piece[6]] or pieces[:1]
    sums = [sum((piece[at] for piece in pieces), Decimal(0)) for at in range(4, 9)]
    return (traded[0][0], max(p[1] for p in traded), min(p[2] for p in traded), pieces[-1][3], *sums)


async def truth(world: OfflineExchange, market: Market, symbol: str, upto_ms: int) -> dict[str, Row]:
    """Of every interval the candle that runs at `upto_ms`, from the exchange's days, then hours, then minutes before that."""
    opens = {interval.name: interval.open_at(upto_ms) for interval in INTERVALS}
    day_ms, hour_ms = upto_ms - upto_ms % DAY_MS, upto_ms - upto_ms % HOUR_MS
    pieces = {
        **await klines(world, market, symbol, "1d", min(opens.values()), day_ms),
        **await klines(world, market, symbol, "1h", day_ms, hour_ms),
        **await klines(world, market, symbol, "1m", hour_ms, upto_ms),
    }
    wanted = {name: [row for at, row in sorted(pieces.items()) if at >= open_ms] for name, open_ms in opens.items()}
    return {name: fold(rows) for name, rows in wanted.items() if rows and BY_NAME[name] is not MINUTE}


def running(market: MarketService, symbol: str) -> tuple[int, dict[str, Row]]:
    """What the engine holds: longer candles folded from the closed minutes, and up to where these reach."""
    core = market.workers[0].core
    slot = core.slots[symbol]
    found = {}
    for interval, row in zip(INTERVALS, core.engine.open_candles([slot]), strict=True):
        price, qty = Decimal(1).scaleb(-int(row["price_scale"])), Decimal(1).scaleb(-int(row["qty_scale"]))
        volumes = [
            (int(row[f"{name}_hi"]) * WORD + int(row[f"{name}_lo"])) * unit
            for name, unit in (
                ("volume", qty),
                ("quote", price * qty),
                ("taker_volume", qty),
                ("taker_quote", price * qty),
            )
        ]
        prices = [int(row[name]) * price for name in ("open", "high", "low", "close")]
        found[interval.name] = (*prices, *volumes[:2], Decimal(int(row["trades"])), *volumes[2:])
    return core.engine.minute_ms(slot), found


async def wrong(world: OfflineExchange, market: MarketService) -> list[str]:
    found = []
    for symbol in market.workers[0].core.slots:
        upto_ms, ours = running(market, symbol)
        theirs = await truth(world, market.market, symbol, upto_ms)
        found += [f"{symbol} {name}: {ours[name]} is not {row}" for name, row in theirs.items() if ours[name] != row]
    return found


@pytest.mark.parametrize(("name", "history"), [(Market.USDM, "3h"), (Market.SPOT, "0")])
async def test_running_candles_are_whole_within_minutes_of_a_first_start(
    tmp_path: Path, name: Market, history: str
) -> None:
    sim = ExchangeSettings(market=name, symbols=3, seed=11, speed=SPEED, history_ms=9 * DAY_MS)
    async with OfflineExchange(sim) as world:
        settings = Settings(
            market=(name.value,),
            db=str(tmp_path / "klagg.db"),
            rest_url=(world.rest_url,),
            ws_url=(world.ws_url,),
            intervals=tuple(interval.name for interval in INTERVALS),
            history=history,
            clock_speed=SPEED,
        )
        store = StoreThread(open_store(settings.db, mode="create"))
        service, stopped = Service(settings, ScaledClock(SPEED), store), asyncio.Event()
        task = asyncio.create_task(service.run(stopped))
        try:
            live = asyncio.create_task(service.live.wait())
            await asyncio.wait({task, live}, return_when=asyncio.FIRST_COMPLETED)
            assert not task.done(), task.exception()
            (market,) = service.markets
            while not market.history_ready:  # noqa: ASYNC110 - the product has no event for it
                await asyncio.sleep(0.05)
            for _ in range(MINUTES_ALLOWED):
                boundary_ms = market.boundary.boundary_ms
                await market.boundary.beyond(boundary_ms)
                await asyncio.sleep(SETTLED_S / SPEED)
                if not (left := await wrong(world, market)):
                    break
            assert left == []
            stopped.set()
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await store.close()
