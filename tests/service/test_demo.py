"""The end of the demo: it waits for the repair, and its summary is all that stdout gets."""

import asyncio
import contextlib
import io
import json
import os
import pty
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from rich.console import Console

from klagg.interval import MINUTE, MINUTE_MS
from klagg.model import Market
from klagg.serve.listening import listen
from klagg.service import demo
from klagg.store import UNVERIFIED

if TYPE_CHECKING:
    from klagg.service.market import MarketService
    from klagg.service.run import Service

NOW_MS = 1_800_000_000_000


class Queue:
    """A repair queue that gets shorter at each look."""

    def __init__(self, looks: list[int]) -> None:
        self.looks = looks

    async def call(self, fn: Any, *arguments: Any, **named: Any) -> Any:
        return fn(*arguments, **named)

    @property
    def store(self) -> "Queue":
        return self

    def unverified(self, market: Market, *, before_ms: int, urgent: bool, limit: int) -> Any:
        assert (market, before_ms, urgent) == (Market.USDM, NOW_MS, True)
        left = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        queue = np.zeros(left + 1, UNVERIFIED)
        queue["interval"] = MINUTE.code
        queue["open_ms"] = NOW_MS - MINUTE_MS
        queue["open_ms"][0] = NOW_MS - 1  # ends later than what is compared
        return queue[:limit]


async def waited(looks: list[int], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(demo, "REPAIR_LOOK_S", 0.001)
    monkeypatch.setattr(demo, "REPAIR_PATIENCE_S", 0.01)
    out = io.StringIO()
    market = cast("MarketService", SimpleNamespace(market=Market.USDM))
    service = cast("Service", SimpleNamespace(store=Queue(looks)))
    await asyncio.wait_for(demo.repaired(market, service, NOW_MS, Console(file=out, width=200)), 10)
    return out.getvalue()


async def test_the_end_waits_for_the_repair_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await waited([0], monkeypatch) == ""
    looks = [7, 3, 0]
    told = await waited(looks, monkeypatch)
    assert told.startswith("waiting for the repair of 7 candles")
    assert told.count("\n") == 1
    assert looks == [0]


async def test_the_wait_for_the_repair_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "5 candles are not repaired yet" in await waited([5], monkeypatch)


def run_demo(tmp_path: Path, stderr: int, serve: str = "127.0.0.1:0") -> "subprocess.Popen[str]":
    arguments = [sys.executable, "-m", "klagg.cli", "demo", "--seconds", "12", "--symbols", "2"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "KLAGG_SERVE": serve}
    return subprocess.Popen(arguments, cwd=tmp_path, env=environment, text=True, stdout=subprocess.PIPE, stderr=stderr)


def page_of(stream: IO[str]) -> str:
    """The address that the demo says it serves at, as soon as it says so."""
    return next(line.split()[1] for line in stream if line.startswith("page "))


def fetched(url: str) -> bytes:
    """What is answered there, once something answers."""
    for _ in range(300):
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                return cast("bytes", response.read())
        except OSError:  # nothing listens yet, or it answers that it still starts
            time.sleep(0.1)
    raise AssertionError(f"{url} does not answer")


def test_without_a_terminal_the_demo_prints_its_lines_and_serves_beside_whoever_has_its_address(tmp_path: Path) -> None:
    with contextlib.closing(listen("127.0.0.1", 0)) as taken:
        wanted = f"127.0.0.1:{taken.getsockname()[1]}"
        with run_demo(tmp_path, subprocess.PIPE, wanted) as process:
            assert process.stderr is not None
            page = page_of(process.stderr)
            assert page.startswith("http://127.0.0.1:")
            assert wanted not in page
            assert b"<html" in fetched(page)
            rows = json.loads(fetched(f"{page}fapi/v1/klines?symbol=BTCUSDT&interval=1m"))
            out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    assert len(rows) >= 1
    assert f"the page: {page}" in err
    assert "Traceback" not in err
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(page, timeout=5)
    assert "all equal" in out
    assert "comparing every closed candle with the exchange's klines" in err
    assert '"level": "info"' not in err


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_the_summary_goes_to_stdout_also_beside_a_terminal(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    shown: list[bytes] = []

    def read() -> None:
        try:
            while piece := os.read(ours, 65_536):
                shown.append(piece)
        except OSError:  # the other end is closed
            return

    reader = threading.Thread(target=read)
    reader.start()
    with run_demo(tmp_path, theirs) as process:
        os.close(theirs)
        out, _ = process.communicate(timeout=180)
    reader.join(30)
    os.close(ours)
    screen = b"".join(shown).decode()
    assert process.returncode == 0, screen
    assert "all equal" in out
    assert "look into it" in out
    assert "look into it" not in screen
    assert "clock offset" in screen
    assert "klagg serves http://127.0.0.1:" in screen
