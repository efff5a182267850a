"""The live view reads well in 80 columns."""

import io
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from klagg.clock import ManualClock, TimeSample
from klagg.config.settings import Settings
from klagg.service import view as view_module
from klagg.service.run import Service
from klagg.service.view import LiveView
from klagg.store import open_store
from klagg.store.thread import StoreThread

NOW_MS = 1_800_000_060_000


def busy_worker() -> Any:
    """What the view reads of a worker, with numbers as large as they come."""
    return SimpleNamespace(
        core=SimpleNamespace(
            slots=range(1_200),
            outbox=SimpleNamespace(candles=1_234_567),
            engine=SimpleNamespace(tally=SimpleNamespace(applied=123_456_789, late=0)),
        ),
        comparison=SimpleNamespace(verified=98_765_432, differences=54_321),
        tick_lag_ms=12_345,
        write_lag_ms=123_456,
        failing_since_ms=None,
        last_tick_ms=NOW_MS,
    )


@pytest.fixture
async def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    store = StoreThread(open_store(str(tmp_path / "k.db"), mode="create"))
    clock = ManualClock()
    made = Service(Settings(market=("usdm", "spot")), clock, store)
    for market in made.markets:
        market.exchange_clock.add_samples([TimeSample(0, 24_000_000, NOW_MS)])
        market.past = SimpleNamespace(ready=False, progress=(37, 80, 754.0))  # type: ignore[assignment]
    monkeypatch.setattr(view_module.time, "time_ns", lambda: (NOW_MS - 12 + 3_250) * 1_000_000)
    yield made
    await store.close()


def rendered(view: LiveView) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=80).print(view.draw())
    return [line.rstrip() for line in out.getvalue().splitlines()]


async def test_every_fact_is_whole_in_80_columns(service: Service) -> None:
    view = LiveView()
    view.watch(service)
    usdm = service.markets[0]
    usdm.workers = [busy_worker()]
    usdm.phase, usdm.unverified, usdm.closed_minutes = "live", 10_000, 44_640
    usdm.recent.note("repair.failed", "the exchange did not answer in ten seconds: " + "word " * 30)
    lines = rendered(view)
    text = "\n".join(lines)
    assert "…" not in text
    assert max(map(len, lines)) <= 80
    flat = " ".join(text.split())
    for fact in (
        "klagg usdm - live",
        "clock offset +3250 ±12 ms",
        "minute 08:01:00",
        "symbols 1200",
        "trades/s 0",
        "closed 44640",
        "tick lag 12345 ms",
        "verified 98765432",
        "unverified 10000",
        "write lag 123456 ms",
        "differences 54321",
        "waiting 1234567",
        "weight 0/2400",
        "46%, ready in about 12.6 min",
        "repair.failed: the exchange did not answer",
    ):
        assert fact in flat
    assert len(lines) <= 10


async def test_a_write_that_fails_is_shown(service: Service) -> None:
    view = LiveView()
    view.watch(service)
    worker = busy_worker()
    worker.failing_since_ms = NOW_MS
    service.markets[0].workers = [worker]
    assert "write lag failing" in " ".join(" ".join(rendered(view)).split())


async def test_before_it_runs_a_market_shows_what_it_does(service: Service) -> None:
    view = LiveView()
    assert rendered(view) == ["klagg: opening the database"]
    view.watch(service)
    assert [line for line in rendered(view) if line] == ["klagg usdm - starting", "klagg spot - starting"]
