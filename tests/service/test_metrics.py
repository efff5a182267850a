"""The metrics page: what it shows is what the service knows, and docs/METRICS.md names all of it."""

import platform
import re
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families

import klagg
from klagg.clock import ManualClock, TimeSample
from klagg.config import Settings
from klagg.exchange.wire import Rejected
from klagg.interval import MINUTE, MINUTE_MS
from klagg.model import Flag, Gap, Instrument, Market, Origin, Status, no_candles
from klagg.service.facts import stored_facts
from klagg.service.market import MarketService
from klagg.service.metric_table import METRICS
from klagg.service.metrics import Metrics
from klagg.store import open_store
from klagg.store.thread import StoreThread

PAGE = Path(__file__).parents[2] / "docs" / "METRICS.md"
NOW_MS = 1_800_000_000_000


def on_the_page() -> dict[str, tuple[str, tuple[str, ...], str]]:
    rows = re.findall(r"^\| `(klagg_[a-z0-9_]+)` \| (\w+) \| (.*?) ?\| (.+) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert len({name for name, *_ in rows}) == len(rows), "a metric stands twice on the page"
    return {name: (kind, tuple(re.findall(r"`(\w+)`", labels)), text) for name, kind, labels, text in rows}


def test_every_metric_is_on_the_page_and_no_other() -> None:
    assert on_the_page() == {name: (spec.kind, spec.labels, spec.help) for name, spec in METRICS.items()}


def test_names_say_the_kind_and_the_unit() -> None:
    units = re.compile(
        r"_(seconds|bytes|candles|minutes|symbols|days|weight|info|live|ready|gaps|used|limit|share|shared|sight)$"
    )
    for name, spec in METRICS.items():
        assert name.endswith("_total") == (spec.kind == "counter"), name
        assert spec.kind == "counter" or units.search(name), name


def shown(metrics: Metrics) -> dict[str, dict[tuple[str, ...], float]]:
    """The page as a scraper reads it: values by name and labels (market first)."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            labels = [sample.labels[name] for name in sorted(sample.labels, key=lambda name: (name != "market", name))]
            found.setdefault(sample.name, {})[tuple(labels)] = sample.value
    return found


@pytest.fixture
async def market(tmp_path: Path):
    """A market that has not started: its clock set, its database with some candles and gaps."""
    url = str(tmp_path / "k.db")
    store = StoreThread(open_store(url, mode="create"))
    settings = replace(Settings(), db=url, market=("usdm",))
    made = MarketService(Market.USDM, settings, store, ManualClock())
    made.exchange_clock.add_samples([TimeSample(0, 2_000_000, NOW_MS)])
    yield made
    await store.close()


def filled(store, verified_after_ms: int) -> None:
    number = store.put_instruments([Instrument(Market.USDM, "BTCUSDT", Status.TRADING, 1, 3)], NOW_MS)["BTCUSDT"]
    candles = no_candles(4)
    candles["interval"] = MINUTE.code
    candles["open_ms"] = NOW_MS - 4 * MINUTE_MS + np.arange(4) * MINUTE_MS
    candles["origin"] = [Origin.EXCHANGE, Origin.UNMATCHED, Origin.PARTIAL, Origin.TRADES]
    candles["flags"] = [Flag.CLOSED | Flag.VERIFIED, Flag.CLOSED, Flag.CLOSED, Flag.CLOSED]
    candles["price_scale"], candles["qty_scale"] = 1, 3
    candles["first_id"] = candles["last_id"] = -1
    for name in ("open", "high", "low", "close"):
        candles[name] = 1_000
    with store.knowing(NOW_MS - 3 * MINUTE_MS + verified_after_ms):
        store.write(np.full(4, number, np.int64), candles)
    store.record_gap(Gap(Market.USDM, "BTCUSDT", NOW_MS - MINUTE_MS, NOW_MS, "disk full"), NOW_MS)


@pytest.mark.parametrize(("after_ms", "state"), [(4_000, "verified_in_5s"), (9_000, "verified_later")])
async def test_what_the_database_knows(market: MarketService, after_ms: int, state: str) -> None:
    store = market._store.store
    filled(store, after_ms)
    market.stored = stored_facts(store, Market.USDM, NOW_MS, NOW_MS)
    page = shown(Metrics([market]))
    assert page["klagg_candles"] == {
        ("usdm", "partial", "no"): 1,
        ("usdm", "trades", "no"): 1,
        ("usdm", "exchange", "yes"): 1,
        ("usdm", "unmatched", "no"): 1,
    }
    assert page["klagg_unverified_candles"] == {("usdm", "urgent"): 1, ("usdm", "leisure"): 1}
    assert page["klagg_gaps"] == {("usdm", "open"): 1, ("usdm", "final"): 1, ("usdm", "repaired"): 0}
    minutes = {"verified_in_5s": 0, "verified_later": 0, "unverified": 2, "unmatched": 1} | {state: 1}
    assert page["klagg_last_hour_minutes"] == {("usdm", name): count for name, count in minutes.items()}


async def test_what_the_process_knows_without_any_database(market: MarketService) -> None:
    metrics = Metrics([market])
    metrics.add_source(lambda: [GaugeMetricFamily("klagg_other", "of another part", value=7)])
    market.recent.note("feed.blind", "3 symbols: lost")
    market.recent.reject(Rejected("odd", "BTCUSDT", "p", "-1"))
    market.budget.take(30, market.now_ms)
    market.budget.observe({"retry-after": "17"}, 429, b"", market.now_ms)
    page = shown(metrics)
    assert page["klagg_live"] == {("usdm",): 0}
    assert page["klagg_weight_used"] == {("usdm",): 30}
    assert page["klagg_weight_limit"] == {("usdm",): 2_400}
    assert page["klagg_weight_share"][("usdm", "live")] == 2_280
    assert page["klagg_weight_banned_seconds"] == {("usdm",): 17}
    assert page["klagg_clock_uncertainty_seconds"][("usdm",)] == pytest.approx(0.001, abs=0.0005)
    assert page["klagg_notes_total"] == {("usdm", "feed.blind"): 1}
    assert page["klagg_rejected_messages_total"] == {("usdm", "odd"): 1}
    assert page["klagg_other"] == {(): 7}
    assert set(page["klagg_build_info"]) == {(platform.python_version(), klagg.__version__)}
    assert "klagg_unverified_candles" not in page, "what has not been read is not shown as none"


def test_before_the_clock_is_set_nothing_is_guessed(tmp_path: Path) -> None:
    with closing(open_store(str(tmp_path / "k.db"), mode="create")) as store:
        thread = StoreThread(store)
        made = MarketService(Market.USDM, replace(Settings(), market=("usdm",)), thread, ManualClock())
        page = shown(Metrics([made]))
        assert "klagg_clock_offset_seconds" not in page
        assert page["klagg_symbols"] == {("usdm",): 0}
