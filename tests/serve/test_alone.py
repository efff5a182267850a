"""`klagg serve`: a database alone, and what somebody else writes to it meanwhile."""

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import aiohttp
import numpy as np
import pytest

from klagg.cli import main
from klagg.interval import MINUTE, MINUTE_MS
from klagg.model import Candles, Flag, Instrument, Market, Status, virtual_shard
from klagg.serve.listening import listen
from klagg.store import Commit, SqliteStore, open_store
from serve.fakes import START_MS, candle

SYMBOL = "BTCUSDT"


class Writer:
    """The owner of a database with one symbol, which it closes minute by minute."""

    def __init__(self, path: Path) -> None:
        self.store: SqliteStore = open_store(str(path), mode="create")
        instrument = Instrument(Market.SPOT, SYMBOL, Status.TRADING, 2, 3, "BTC", "USDT", native_status="TRADING")
        self.id = self.store.put_instruments([instrument], START_MS)[SYMBOL]
        self.store.set_intervals(Market.SPOT, [MINUTE])
        self.claim = self.store.claim(Market.SPOT, owner="test", now_ms=START_MS)
        self.minutes = 0

    def close_minute(self, price: int) -> None:
        open_ms = START_MS + self.minutes * MINUTE_MS
        self.minutes += 1
        closed = candle(open_ms, price, flags=Flag.CLOSED.value)
        running = candle(open_ms + MINUTE_MS, price, 0)
        self._commit(np.concatenate([closed, running]), open_ms + MINUTE_MS)

    def _commit(self, candles: Candles, upto_ms: int) -> None:
        ids = np.full(len(candles), self.id, np.int64)
        others = [shard for shard in range(256) if shard != virtual_shard(Market.SPOT, SYMBOL)]
        self.store.commit_all(
            [
                Commit(self.claim, [virtual_shard(Market.SPOT, SYMBOL)], upto_ms, ids, candles),
                Commit(self.claim, others, upto_ms),
            ]
        )


async def test_a_database_is_served_and_followed(tmp_path: Path) -> None:
    path = tmp_path / "klagg.db"
    writer = Writer(path)
    for price in (100, 200, 300):
        writer.close_minute(price)
    bound = listen("127.0.0.1", 0)
    port = bound.getsockname()[1]
    bound.close()
    process = subprocess.Popen(  # noqa: ASYNC220 - it starts at once
        [sys.executable, "-m", "klagg.cli", "serve", "--db", str(path), "--serve", f"127.0.0.1:{port}"],
        stderr=subprocess.PIPE,
    )
    try:
        async with aiohttp.ClientSession() as http:
            base = f"127.0.0.1:{port}"
            for _ in range(200):
                try:
                    async with http.get(f"http://{base}/healthz"):
                        break
                except aiohttp.ClientConnectionError:
                    await asyncio.sleep(0.1)
            async with http.get(f"http://{base}/api/v3/klines?symbol={SYMBOL}&interval=1m") as response:
                rows = json.loads(await response.text())
            assert [(row[0] - START_MS, row[4]) for row in rows] == [
                (0, "1.00000000"),
                (MINUTE_MS, "2.00000000"),
                (2 * MINUTE_MS, "3.00000000"),
                (3 * MINUTE_MS, "3.00000000"),
            ]
            async with http.get(f"http://{base}/fapi/v1/exchangeInfo") as response:
                assert (await response.json())["symbols"] == []
            async with http.ws_connect(f"ws://{base}/ws/btcusdt@kline_1m") as socket:
                await socket.send_json({"method": "LIST_SUBSCRIPTIONS", "id": 1})
                await socket.receive()
                writer.close_minute(400)
                event = await asyncio.wait_for(socket.receive_json(), 20)
                while not event["k"]["x"]:
                    event = await asyncio.wait_for(socket.receive_json(), 20)
                assert (event["k"]["t"], event["k"]["c"]) == (START_MS + 3 * MINUTE_MS, "4.00000000")
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 20) == 0
    finally:
        process.kill()
        writer.store.close()
    assert sqlite3.connect(path).execute("SELECT count(*) FROM candle").fetchone() == (4,)


def test_what_stands_in_the_way_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--db", str(tmp_path / "none.db")]) == 1
    assert "there is no such database" in capsys.readouterr().err
    Writer(tmp_path / "klagg.db").store.close()
    taken = listen("127.0.0.1", 0)
    port = taken.getsockname()[1]
    assert main(["serve", "--db", str(tmp_path / "klagg.db"), "--serve", f"127.0.0.1:{port}"]) == 1
    assert "cannot serve on" in capsys.readouterr().err
    taken.close()
    assert main(["serve", "--db", str(tmp_path / "klagg.db"), "--serve", "0.0.0.0:0"]) == 2
    assert "set a token" in capsys.readouterr().err
