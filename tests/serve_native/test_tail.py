"""`klagg tail`: a process of its own beside a server that comes and goes."""

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from klagg.cli import main
from klagg.cli.tail import line_of
from klagg.client.events import BarrierEvent, CandleEvent, CutEvent, GapEvent, SymbolEvent
from klagg.interval import MINUTE_MS
from serve_native.rig import START_MS, Owner, served
from serve_native.test_feed import logged


async def _tailing(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "klagg.cli",
        "tail",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def _until(process: asyncio.subprocess.Process, seq: int) -> list[dict[str, Any]]:
    """The lines up to an event."""
    assert process.stdout is not None
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(30):
        while not found or found[-1]["seq"] < seq:
            found.append(json.loads(await process.stdout.readline()))
    return found


async def _interrupted(process: asyncio.subprocess.Process) -> str:
    process.send_signal(signal.SIGINT)
    _, told = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 130
    return told.decode()


async def test_it_goes_on_by_itself_when_the_server_comes_back_and_ends_in_one_line(tmp_path: Path) -> None:
    owner = Owner(tmp_path / "klagg.db")
    owner.close(3)
    async with served(owner.path) as rig:
        port = int(rig.base.rpartition(":")[2])
        process = await _tailing("--url", f"http://{rig.base}", "--since", "0", "--json")
        seen = await _until(process, logged(owner)[-1]["seq"])
    owner.close(2)
    owner.settle("BTCUSDT", 4, 12_345)
    async with served(owner.path, port):
        seen += await _until(process, logged(owner)[-1]["seq"])
        last = seen[-1]["seq"]
        assert await _interrupted(process) == f"klagg tail: ended after event {last}: go on with --since {last}\n"
    assert seen == logged(owner)
    owner.store.close()


async def test_a_database_is_read_without_a_server_and_filters_hold(tmp_path: Path) -> None:
    owner = Owner(tmp_path / "klagg.db")
    owner.close(6)
    wanted = [e for e in logged(owner) if e.get("symbol") == "ETHUSDT" and e.get("interval") == "5m"]
    only = ["--symbols", "ETH*", "--intervals", "5m", "--kinds", "candle_closed"]
    process = await _tailing("--db", str(owner.path), "--since", "0", "--json", *only)
    assert await _until(process, wanted[-1]["seq"]) == wanted
    assert "--since" in await _interrupted(process)
    owner.store.close()


def test_lines_are_for_people() -> None:
    at, market = START_MS + 61_000, "usdm"
    lines = [
        line_of(event).plain
        for event in (
            CandleEvent("candle_closed", 7, at, market, "BTCUSDT", "1m", START_MS, 0, True),
            CandleEvent("candle_revised", 8, at, market, "BTCUSDT", "1m", START_MS, 2, False),
            BarrierEvent("barrier_durable", 9, at, market, START_MS + MINUTE_MS, symbols=3),
            BarrierEvent("barrier_verified", 10, at, market, START_MS + MINUTE_MS, unverified=1),
            SymbolEvent("symbol_added", 11, at, market, "NEWUSDT"),
            GapEvent("gap", 12, at, market, "", START_MS, START_MS + MINUTE_MS, "memory bound"),
            CutEvent("cut", 3, 6, "too old"),
        )
    ]
    assert lines == [
        "         7  00:01:01  usdm  closed    BTCUSDT 1m 2025-07-30T00:00:00Z verified",
        "         8  00:01:01  usdm  revised   BTCUSDT 1m 2025-07-30T00:00:00Z revision 2",
        "         9  00:01:01  usdm  barrier   durable 2025-07-30T00:01:00Z, 3 symbols",
        "        10  00:01:01  usdm  barrier   verified 2025-07-30T00:01:00Z, 1 unverified",
        "        11  00:01:01  usdm  added     NEWUSDT",
        "        12  00:01:01  usdm  gap       all symbols 2025-07-30T00:00:00Z to 2025-07-30T00:01:00Z: memory bound",
        "         6  events after 3 are not there (too old): going on",
    ]


def test_what_stands_in_the_way_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tail", "--url", "http://127.0.0.1:9", "--since", "0"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["tail", "--kinds", "nothing"]) == 2
    assert "candle_closed" in capsys.readouterr().err
