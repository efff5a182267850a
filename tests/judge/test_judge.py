"""klagg against an independent exchange that misbehaves, through a kill -9 and a restart: every series against the truth."""

import asyncio
import contextlib
import json
import signal
import sqlite3
import sys
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Self

import pytest

from judge.truth import MINUTE, Symbol
from judge.venue import JudgeVenue
from klagg.check import check
from klagg.store import open_store

SPEED = 20.0
STARTS = {"usdm": 1_795_996_300_000, "spot": 1_796_082_700_000}
"""Some minutes before the end of a week, and of a month (2026-11-29 and -30, 23:51)."""
INTERVALS = ("1m", "3m", "5m", "15m", "1h", "4h", "1d", "3d", "1w", "1M")
COLUMNS = "open_time_ms, close_time_ms, origin, verified, open, high, low, close, volume, quote_volume, trades, taker_buy_volume, taker_buy_quote_volume"  # noqa: E501
RECENT_MS = 4 * MINUTE
"""Candles that ended less than this before the end need not be verified yet."""
UNMATCHED_MS = 12 * MINUTE
ENDED = ("GOINGUSDT", "AWAYUSDT")


class Run:
    """One `klagg run`."""

    def __init__(self, market: str, db: Path, port: int, log: Path, workers: int) -> None:
        self.log = log
        self._sink = log.open("wb")
        self._arguments = (
            *("-m", "klagg.cli", "run", "--market", market, "--db", str(db), "--no-serve", "--history", "2h"),
            *("--rest-url", f"http://127.0.0.1:{port}", "--ws-url", f"ws://127.0.0.1:{port}"),
            *("--intervals", ",".join(INTERVALS), "--clock-speed", str(SPEED), "--workers", str(workers)),
        )

    async def __aenter__(self) -> Self:
        self.process = await asyncio.create_subprocess_exec(sys.executable, *self._arguments, stderr=self._sink)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        self._sink.close()

    async def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), 30)

    def lines(self) -> list[dict]:
        """The log; a line that is no event is a traceback or a print, which there must not be."""
        texts = self.log.read_text().splitlines()
        return [json.loads(text) for text in texts if not text.startswith("klagg: compiling")]


def read(db: Path, sql: str, *parameters: object) -> list[tuple]:
    with contextlib.closing(sqlite3.connect(f"file:{db}?mode=ro", uri=True)) as shell:
        return shell.execute(sql, parameters).fetchall()


async def settled(db: Path, venue: JudgeVenue, run: Run) -> None:
    """Wait (bounded) until the history is there and nothing is left to repair but what has just happened."""
    sql = (
        "SELECT count(*) FROM candles WHERE closed AND NOT verified AND origin <> 'unmatched' AND close_time_ms < ? "
        "AND symbol NOT IN (?, ?)"
    )
    for _ in range(300):
        await asyncio.sleep(0.1)
        before_ms = venue.now_ms - RECENT_MS
        if read(db, sql, before_ms, *ENDED)[0][0] == 0 and b"history.ready" in run.log.read_bytes():
            return


def compare(db: Path, venue: JudgeVenue, began_ms: int) -> tuple[int, dict[str, list]]:
    """How many candles were compared, and what is wrong, by kind."""
    (upto_ms,) = read(db, "SELECT min(closed_upto_ms) FROM shard")[0]
    wrong: dict[str, list] = defaultdict(list)
    compared = 0
    for one in venue.symbols.values():
        one.flow(upto_ms)
        for interval in INTERVALS:
            sql = f"SELECT {COLUMNS} FROM candles WHERE symbol = ? AND interval = ? AND closed"
            ours = {row[0]: row for row in read(db, sql, one.name, interval)}
            theirs = {
                row[0]: row for row in one.rows(interval, 0, upto_ms - 1, 10**9, venue.now_ms) if row[6] < upto_ms
            }
            compared += len(ours)
            for open_ms, row in ours.items():
                fault = judge(one.name, row, theirs.get(open_ms), upto_ms)
                if fault:
                    wrong[fault].append((one.name, interval, open_ms, row, theirs.get(open_ms)))
            lacking = missing(one, interval, ours, theirs, began_ms)
            if lacking:
                wrong["missing"].append((one.name, interval, lacking))
    return compared, dict(wrong)


def judge(name: str, ours: tuple, theirs: list | None, upto_ms: int) -> str:
    """What is wrong with one candle, "" for nothing."""
    _, close_ms, origin, verified, *numbers = ours
    recent = close_ms >= upto_ms - RECENT_MS
    if theirs is None:
        # Until the symbol list tells of its end candles are made of a symbol: they are klagg's alone.
        waits = name in ENDED and not verified and close_ms >= upto_ms - UNMATCHED_MS
        return "" if origin == "unmatched" or waits else "extra"
    same = [Decimal(text) for text in numbers] == [Decimal(theirs[n]) for n in (1, 2, 3, 4, 5, 7, 8, 9, 10)]
    if not same or close_ms != theirs[6]:
        return "" if recent and not verified and origin in {"partial", "filled", "seed"} else "differs"
    return "" if verified or recent else "unverified"


def missing(one: Symbol, interval: str, ours: dict, theirs: dict, began_ms: int) -> list[int]:
    """What must be there and is not: from two hours before the first start, or the listing, to the end."""
    if one.name in ENDED:
        # Up to the end of its trading; the exchange goes on making rows of nothing.
        return [] if not ours else [o for o in theirs if min(ours) < o < max(ours) and o not in ours]
    first_ms = max(one.born_ms, began_ms - 2 * 3_600_000)
    whole = one.born_ms >= first_ms
    return [o for o, row in theirs.items() if (row[6] > one.born_ms if whole else o >= first_ms) and o not in ours]


@pytest.mark.parametrize(("market", "workers"), [("usdm", 3), ("spot", 1)])
async def test_every_series_is_the_truth(tmp_path: Path, market: str, workers: int) -> None:
    db = tmp_path / "klagg.db"
    venue = JudgeVenue(market, STARTS[market], SPEED, seed=7)
    port = await venue.start()
    try:
        async with Run(market, db, port, tmp_path / "first.log", workers) as first:
            await venue.until(270)
            assert first.process.returncode is None, first.log.read_text()
            await first.end(signal.SIGKILL)
        await venue.until(390)
        async with Run(market, db, port, tmp_path / "second.log", workers) as second:
            await venue.until(560)
            assert second.process.returncode is None, second.log.read_text()
            await settled(db, venue, second)
            assert await second.end(signal.SIGTERM) == 0
        began_ms = read(db, "SELECT min(open_time_ms) FROM candles WHERE interval = '1m'")[0][0] + 2 * 3_600_000
        compared, wrong = compare(db, venue, max(began_ms, venue.start_ms))
        assert not wrong, "\n".join(f"{kind}: {case}" for kind, cases in wrong.items() for case in cases)
        with contextlib.closing(open_store(str(db), mode="read")) as store:
            report = check(store)
        assert report.ok, report.as_dict()
        assert compared > 2_500
        unlucky = {name: venue.counts[name] for name in ("lost", "late", "reordered", "doubled", "bad")}
        assert all(unlucky.values()), f"nothing went wrong? {unlucky}"
        assert (venue.counts["over_weight"], venue.counts["asked_during_ban"]) == (0, 0)
        events = {line["event"] for run in (first, second) for line in run.lines()}
        assert {"symbol.activated", "stream.lost", "history.ready"} <= events
        assert ("symbol.retired" in events) == (market == "usdm"), (
            "on spot a symbol in BREAK may trade again: it is paused"
        )
        assert not events & {"market.stop_failed", "store.write_failed", "history.failed"}
    finally:
        await venue.stop()
