"""Greedy clients: large answers that nobody reads hold bounded memory for a bounded time."""

import asyncio
from pathlib import Path

import aiohttp
import pytest

from klagg.serve.native import answers
from serve_native.rig import START_MS, Owner, served

ASKED = f"/v1/candles?symbols=*&start={START_MS}&limit=200"


async def test_large_answers_that_nobody_reads_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = Owner(tmp_path / "klagg.db", tuple(f"S{n}USDT" for n in range(250)))
    owner.close_at_once(100)
    async with served(owner.path) as rig:
        whole = await rig.body(ASKED)
        assert len(whole) > 10_000_000
        monkeypatch.setattr(answers, "MOST_BYTES", len(whole) * 3 // 2)
        monkeypatch.setattr(answers, "SENT_WITHIN_S", 1.0)
        async with aiohttp.ClientSession(read_bufsize=1_024) as greedy:
            held = await greedy.get(f"http://{rig.base}{ASKED}")  # and it is never read
            assert held.status == 200
            assert (await rig.get(ASKED, 503))["error"]["code"] == "busy"
            assert (await rig.get("/v1/candles?symbols=S1USDT"))["candles"]  # small ones go on
            async with asyncio.timeout(20):
                while True:
                    async with rig.http.get(f"http://{rig.base}{ASKED}") as again:
                        if again.status == 200:
                            assert len(await again.read()) > 10_000_000
                            break
                    await asyncio.sleep(0.2)
            with pytest.raises(aiohttp.ClientError):
                await held.read()
    owner.store.close()
