"""A market at a glance and its newest minutes, against what sqlite3 alone counts."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from klagg.interval import MINUTE_MS
from klagg.service import overview as overview_module
from serve_native.rig import START_MS, SYMBOLS, Owner, Rig, served

STORED = "SELECT symbol, verified FROM candles WHERE interval = '1m' AND open_time_ms = ? AND closed"


@pytest.fixture
async def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Owner, Rig]]:
    monkeypatch.setattr(overview_module, "EVERY_S", 0.0)
    monkeypatch.setattr(overview_module, "REST", 0)
    monkeypatch.setattr(overview_module, "DAY_MS", 20 * MINUTE_MS)  # a short day, so that minutes leave it
    owner = Owner(tmp_path / "klagg.db")
    owner.close(30)
    owner.settle("BTCUSDT", 22)
    async with served(owner.path) as rig:
        yield owner, rig
    owner.store.close()


def expected(owner: Owner, day_ms: int) -> dict[str, dict[str, Any]]:
    end_ms = START_MS + owner.minutes * MINUTE_MS
    found = {}
    for symbol in SYMBOLS:
        minutes = owner.rows(
            "SELECT open_time_ms, open, close, quote_volume, origin FROM candles_f64 WHERE symbol = ? AND interval = '1m' "
            "AND closed = 1 ORDER BY open_time_ms",
            symbol,
        )
        day = [row for row in minutes if row["open_time_ms"] >= end_ms - day_ms]
        first = [row["open"] for row in day if row["open_time_ms"] == end_ms - day_ms]
        newest = minutes[-1]
        found[symbol] = {
            "last_minute_ms": newest["open_time_ms"],
            "origin": newest["origin"],
            "spark": [row["close"] for row in minutes if row["open_time_ms"] >= end_ms - 60 * MINUTE_MS],
            "quote_volume_24h": f"{sum(row['quote_volume'] for row in day):.2f}",
            "change_24h_pct": round((newest["close"] / first[0] - 1) * 100, 3) if first else None,
        }
    return found


async def test_each_symbol_as_the_database_has_it_minute_after_minute(pair: tuple[Owner, Rig]) -> None:
    owner, rig = pair
    for step in range(6):
        if step == 2:
            owner.settle("ETHUSDT", owner.minutes - 3, 15_555)
        if step == 3:
            owner.close(2)
        owner.close(skip=("BTCUSDT",) if step == 4 else ())
        await rig.seen(owner)
        answer = await rig.get("/v1/overview")
        rows = {row["symbol"]: row for row in answer["symbols"]}
        for symbol, facts in expected(owner, 20 * MINUTE_MS).items():
            assert {name: rows[symbol][name] for name in facts} == facts, (step, symbol)
            assert rows[symbol]["status"] == "trading"
            assert rows[symbol]["last"] == f"{facts['spark'][-1]:.2f}"


async def test_minutes_tell_what_is_verified_pending_and_missing(pair: tuple[Owner, Rig]) -> None:
    owner, rig = pair
    owner.close(skip=("ETHUSDT",))
    owner.close(verified=True)
    await rig.seen(owner)
    for _ in range(2):
        minutes = (await rig.get("/v1/minutes", minutes=10))["minutes"]
        assert [row["open_time_ms"] for row in minutes] == [START_MS + n * MINUTE_MS for n in range(22, 32)]
        for row in minutes:
            stored = owner.rows(
                "SELECT symbol, verified FROM candles WHERE interval = '1m' AND open_time_ms = ? AND closed",
                row["open_time_ms"],
            )
            assert (row["symbols"], row["verified"]) == (len(stored), sum(one["verified"] for one in stored))
            assert sorted(row["pending_symbols"]) == sorted(one["symbol"] for one in stored if not one["verified"])
            assert row["gap_symbols"] == [
                symbol for symbol in SYMBOLS if symbol not in [one["symbol"] for one in stored]
            ]
            assert (row["pending"], row["gap"]) == (len(row["pending_symbols"]), len(row["gap_symbols"]))
        owner.settle("BTCUSDT", 25)  # what has been shown is looked at again


async def test_minutes_before_what_is_stored_are_no_gaps(tmp_path: Path) -> None:
    owner = Owner(tmp_path / "klagg.db", listed_ms=START_MS - 40 * MINUTE_MS)
    owner.close(4, skip=("ETHUSDT",))
    owner.close()
    owner.close(skip=("ETHUSDT",))
    owner.close()
    async with served(owner.path) as rig:
        minutes = (await rig.get("/v1/minutes", minutes=10))["minutes"]
    assert [(row["symbols"], row["gap_symbols"]) for row in minutes] == [
        *[(0, [])] * 3,
        *[(2, [])] * 4,
        (3, []),
        (2, ["ETHUSDT"]),
        (3, []),
    ]
    owner.store.close()


async def test_thousands_of_symbols_are_read_once(tmp_path: Path) -> None:
    owner = Owner(tmp_path / "klagg.db", tuple(f"S{n}USDT" for n in range(1_500)))
    owner.close(3)
    async with served(owner.path) as rig:
        first = await rig.get("/v1/overview")
        assert len(first["symbols"]) == 1_500
        assert all(len(row["spark"]) == 3 for row in first["symbols"])
        assert (await rig.get("/v1/overview"))["now_ms"] == first["now_ms"]
    owner.store.close()


async def test_a_database_alone_says_what_it_can(pair: tuple[Owner, Rig]) -> None:
    _owner, rig = pair
    status = await rig.get("/v1/status")
    assert status["ready"] is False
    assert status["missing"] == ["usdm: no minute has become durable for 90 s"]
    (market,) = status["markets"]
    assert (market["symbols"], market["durable_ms"]) == (3, START_MS + 30 * MINUTE_MS)
    assert (await rig.get("/v1/ops"))["series"]["pending"] == []
    assert (await rig.get("/v1/ops", 404, market="spot"))["error"]["code"] == "market_not_served"
