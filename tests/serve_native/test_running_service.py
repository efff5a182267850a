"""klagg run, read through /v1 while it runs: the feed under load against the database, what it says of itself."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp

from contract.conftest import open_pair
from klagg.interval import MINUTE_MS
from klagg.model import Market
from serve_native.test_feed import Consumer

MINUTES = 3


class Watcher(Consumer):
    """Also notes running minutes that come before the last one has closed."""

    def __init__(self, query: str) -> None:
        super().__init__(query)
        self.closed: dict[str, int] = {}
        self.before_their_time: list[dict[str, Any]] = []

    def take(self, event: dict[str, Any]) -> None:
        super().take(event)
        symbol = event.get("symbol", "")
        if event["kind"] == "candle_closed" and event["interval"] == "1m":
            self.closed[symbol] = max(event["open_time_ms"], self.closed.get(symbol, 0))
        elif event["kind"] == "candle_open" and event["interval"] == "1m":
            next_ms = self.closed.get(symbol, event["candle"]["open_time_ms"]) + MINUTE_MS
            if event["candle"]["open_time_ms"] > next_ms:
                self.before_their_time.append(event)


async def test_the_feed_of_a_running_service_is_its_database(tmp_path: Path) -> None:
    async with open_pair(tmp_path, Market.USDM, symbols=12) as pair, aiohttp.ClientSession() as http:
        base = pair.rest_url.removeprefix("http://")
        (market,) = pair.service.markets
        consumer, killed = Watcher("&candles=true&open=true"), Consumer("&candles=true")
        listening = asyncio.create_task(consumer.listen(base))
        end = asyncio.create_task(market.boundary.beyond(market.boundary_ms + MINUTES * MINUTE_MS))
        while not end.done():
            other = asyncio.create_task(killed.listen(base))
            await asyncio.wait({end}, timeout=0.4)
            other.cancel()
            await asyncio.gather(other, return_exceptions=True)

        async def get(path: str) -> dict:
            async with http.get(f"{pair.rest_url}{path}") as response:
                assert response.status == 200
                return await response.json()

        status, ops = await get("/v1/status"), await get("/v1/ops")
        overview, minutes = await get("/v1/overview"), await get("/v1/minutes?minutes=30")
        events = await get("/v1/events?since=0&limit=1")
        stop = events["newest_seq"]
        other = asyncio.create_task(killed.listen(base))
        await asyncio.gather(consumer.until(stop), killed.until(stop))
        for task in (listening, other):
            task.cancel()
        stored = await pair.service.store.call(lambda: pair.service.store.store.events(0, 1_000_000))
        answer = await get("/v1/candles?symbols=*&intervals=1m,5m,1h&start=-10m&limit=20")

    numbers = [seq for event in stored for seq in range(event.seq, event.last_seq + 1) if seq <= stop]
    assert [event["seq"] for event in consumer.seen if event["seq"] <= stop] == numbers
    assert [event["seq"] for event in killed.seen if event["seq"] <= stop] == numbers
    kinds = {event["kind"] for event in consumer.seen}
    assert kinds >= {"candle_closed", "barrier_durable", "barrier_verified", "symbol_added"}
    running = [said["candle"] for said in consumer.said if said["kind"] == "candle_open"]
    assert {candle["interval"] for candle in running} >= {"1m", "5m", "1h"}
    assert not any(candle["closed"] for candle in running)
    assert consumer.before_their_time == []

    (told,) = status["markets"]
    assert (told["phase"], status["missing"]) == ("live", [])
    assert told["connections"]
    assert told["verified_ms"] > 0
    assert 0 < told["verified_share"] <= 1
    assert ops["series"]["tick_lag_ms"]
    assert set(ops["series"]["feed_age_ms"]) == {lane["name"] for lane in told["connections"]}
    assert len(overview["symbols"]) == told["symbols"]
    (btc,) = [row for row in overview["symbols"] if row["symbol"] == "BTCUSDT"]
    assert (btc["status"], len(btc["spark"])) == ("trading", 60)
    assert btc["change_24h_pct"] is not None
    assert len(minutes["minutes"]) == 30
    assert all(row["symbols"] >= 12 and row["gap"] == 0 for row in minutes["minutes"])
    assert answer["meta"]["missing"] == []
    assert answer["meta"]["verified"] > 0
