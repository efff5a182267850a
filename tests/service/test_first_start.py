"""A first start on a market of which a quarter does not trade, as recorded: nothing is asked about what is dead."""

import asyncio
import gzip
import json
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from aiohttp import web

from klagg.clock import ScaledClock
from klagg.config.settings import Settings
from klagg.service.run import Service
from klagg.store import open_store
from klagg.store.thread import StoreThread

SPEED = 60.0
MINUTE = 60_000
RECORDED = "exchangeInfo_spot_20211012.json.gz"


class Venue:
    """A spot exchange that has a list and flat candles, and no streams; `asked` counts requests by symbol."""

    def __init__(self, info: dict) -> None:
        self.info = info
        self.asked: Counter[str] = Counter()
        self._begun = time.monotonic()

    @property
    def now_ms(self) -> int:
        return 1_800_000_030_000 + int((time.monotonic() - self._begun) * 1_000 * SPEED)

    async def time(self, _: web.Request) -> web.Response:
        return web.json_response({"serverTime": self.now_ms})

    async def exchange_info(self, _: web.Request) -> web.Response:
        return web.json_response(self.info)

    async def klines(self, request: web.Request) -> web.Response:
        query = request.query
        self.asked[query["symbol"]] += 1
        start, end = int(query["startTime"]), min(int(query["endTime"]), self.now_ms)
        step = {"1m": MINUTE, "1h": 60 * MINUTE, "1d": 1_440 * MINUTE}.get(query["interval"], MINUTE)
        first = -(-start // step) * step
        rows = [
            [at, "1", "1", "1", "1", "0", at + step - 1, "0", 0, "0", "0", "0"]
            for at in range(first, end + 1, step)[: int(query.get("limit", 500))]
        ]
        return web.json_response(rows)

    async def serve(self) -> tuple[web.AppRunner, str]:
        app = web.Application()
        app.router.add_get("/api/v3/time", self.time)
        app.router.add_get("/api/v3/exchangeInfo", self.exchange_info)
        app.router.add_get("/api/v3/klines", self.klines)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        assert site._server is not None
        return runner, f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[attr-defined]


async def play(venue: Venue, url: str, db: Path, market_s: float) -> Service:
    """One run: until it is live, and so long after that."""
    settings = Settings(
        market=("spot",),
        db=str(db),
        rest_url=(url,),
        ws_url=("ws://127.0.0.1:9",),
        intervals=("1m,1h",),
        history="0",
        clock_speed=SPEED,
    )
    store = StoreThread(open_store(settings.db, mode="create"))
    service, stopped = Service(settings, ScaledClock(SPEED), store), asyncio.Event()
    task = asyncio.create_task(service.run(stopped))
    live = asyncio.create_task(service.live.wait())
    try:
        await asyncio.wait({task, live}, return_when=asyncio.FIRST_COMPLETED)
        assert not task.done(), task.exception()
        await asyncio.sleep(market_s / SPEED)
        stopped.set()
        await task
    finally:
        live.cancel()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.close()
    return service


@pytest.mark.parametrize("trading", [1_262])
async def test_a_first_start_asks_nothing_about_the_pairs_that_do_not_trade(
    shared_data: Path, tmp_path: Path, trading: int
) -> None:
    info = json.loads(gzip.decompress((shared_data / RECORDED).read_bytes()))
    dead = {row["symbol"] for row in info["symbols"] if row["status"] == "BREAK"}
    assert (len(dead), len(info["symbols"])) == (433, 433 + trading)
    venue = Venue(info)
    runner, url = await venue.serve()
    try:
        await play(venue, url, tmp_path / "k.db", 400)
    finally:
        await runner.cleanup()
    assert len(venue.asked.keys() - dead) == trading, "who trades is asked about"
    assert venue.asked.keys() & dead == set()
    with closing(open_store(str(tmp_path / "k.db"), mode="read")) as store:
        known = {one.instrument.symbol for one in store.instruments()}
    assert known & dead == set()
    assert len(known) == trading


async def test_what_stopped_while_no_process_ran_is_asked_about_once_and_then_no_more(
    shared_data: Path, tmp_path: Path
) -> None:
    info = json.loads(gzip.decompress((shared_data / RECORDED).read_bytes()))
    info["symbols"] = [row for row in info["symbols"] if row["status"] == "TRADING"][:12]
    venue = Venue(info)
    runner, url = await venue.serve()
    db = tmp_path / "k.db"
    stopped = {row["symbol"] for row in info["symbols"][:5]}
    try:
        await play(venue, url, db, 90)
        for row in info["symbols"][:5]:
            row["status"] = "BREAK"
        await play(venue, url, db, 200)
        venue.asked.clear()
        await play(venue, url, db, 700)
        assert venue.asked.keys() & stopped == set(), "a pause that lasts over a start costs nothing"
        for row in info["symbols"][:5]:
            row["status"] = "TRADING"
        await play(venue, url, db, 400)
    finally:
        await runner.cleanup()
    with closing(open_store(str(db), mode="read")) as store:
        assert {one.instrument.status.value for one in store.instruments()} == {"trading"}
        for one in store.instruments():
            count, first, last = store.count_minutes(one.id, 0, 1 << 62)
            assert count == (last - first) // MINUTE + 1, f"{one.instrument.symbol}: a hole"
            assert [life.retired_ms for life in store.lives(one.id)] == [None]
