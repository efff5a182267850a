"""The metrics of a running service, read from its state when they are asked for: nothing is counted twice, no path pays.

What only the database knows comes from the facts that each market reads at a low rate.
"""

import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

import klagg
from klagg import rules
from klagg.exchange.budget import Purpose
from klagg.model import Origin
from klagg.service.metric_table import METRICS

if TYPE_CHECKING:
    from klagg.service.market import MarketService

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""What `render` gives, for whoever serves it."""
_KINDS: Final = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily, "summary": SummaryMetricFamily}
_OUTCOMES: Final = ("applied", "late", "duplicate", "too_old", "invalid", "not_market", "after_verified")
"""Of `engine.Tally`: what becomes of a trade."""
_REJECTED: Final = "rejected."

Sample = tuple[str, tuple[str, ...], float]
"""Name, values of the labels after `market`, value."""
Source = Callable[[], Iterable[Metric]]


class Metrics(Collector):
    """Prometheus metrics of some markets; `render` is the page."""

    def __init__(self, markets: Sequence["MarketService"]) -> None:
        self._markets = markets
        self._sources: list[Source] = []
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def add_source(self, source: Source) -> None:
        """Have the metrics of another part on the page too."""
        self._sources.append(source)

    def render(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Every metric as it is now (`Collector`)."""
        build = GaugeMetricFamily("klagg_build_info", METRICS["klagg_build_info"].help, labels=["version", "python"])
        build.add_metric([klagg.__version__, platform.python_version()], 1)
        yield build
        families: dict[str, GaugeMetricFamily | CounterMetricFamily | SummaryMetricFamily] = {}
        for name, spec in METRICS.items():
            if name != "klagg_build_info":
                family = _KINDS[spec.kind](name.removesuffix("_total"), spec.help, labels=["market", *spec.labels])
                families[name] = family
        for market in self._markets:
            for name, labels, value in _samples(market):
                family = families[name]
                assert not isinstance(family, SummaryMetricFamily)
                family.add_metric([market.market.value, *labels], value)
            for worker in market.workers:
                commits = families["klagg_commit_seconds"]
                assert isinstance(commits, SummaryMetricFamily)
                commits.add_metric([market.market.value, worker.name], worker.commits, worker.commit_s)
        yield from families.values()
        for source in self._sources:
            yield from source()


def _samples(market: "MarketService") -> Iterator[Sample]:
    yield "klagg_live", (), market.live.is_set()
    yield "klagg_history_ready", (), market.history_ready
    yield "klagg_symbols", (), market.symbols
    yield "klagg_closed_minutes_total", (), market.closed_minutes
    yield "klagg_tick_margin_seconds", (), market.margin.value_ms / 1e3
    if market.workers:
        yield "klagg_boundary_timestamp_seconds", (), market.boundary_ms / 1e3
        yield from _of_workers(market)
        yield from _of_evidence(market)
        yield from _of_repair(market)
    if market.history_progress is not None:
        done, total, left_s = market.history_progress
        yield "klagg_history_days", (), total
        yield "klagg_history_done_days", (), done
        yield "klagg_history_left_seconds", (), left_s
    yield from _of_store(market)
    yield from _of_lanes(market)
    yield from _of_clock_and_weight(market)
    yield from _of_notes(market.recent.counts)


def _of_workers(market: "MarketService") -> Iterator[Sample]:
    now_ms = market.now_ms
    for worker in market.workers:
        label = (worker.name,)
        failing_ms = 0 if worker.failing_since_ms is None else now_ms - worker.failing_since_ms
        yield "klagg_tick_lag_seconds", label, worker.tick_lag_ms / 1e3
        yield "klagg_durable_timestamp_seconds", label, worker.durable_upto_ms / 1e3
        yield "klagg_write_lag_seconds", label, worker.write_lag_ms / 1e3
        yield "klagg_write_failing_seconds", label, failing_ms / 1e3
        yield "klagg_written_candles_total", label, worker.written
        yield "klagg_waiting_candles", label, worker.core.outbox.candles
        yield "klagg_waiting_bytes", label, worker.core.outbox.nbytes
        yield "klagg_messages_received_total", label, worker.inbox.received
        yield "klagg_messages_dropped_total", label, worker.inbox.dropped


def _of_evidence(market: "MarketService") -> Iterator[Sample]:
    """What the shards' engines and comparisons have counted, together."""
    tallies = [asdict(worker.core.engine.tally) for worker in market.workers]
    for outcome in _OUTCOMES:
        yield "klagg_trades_total", (outcome,), sum(tally[outcome] for tally in tallies)
    yield "klagg_id_holes_total", (), sum(tally["holes"] for tally in tallies)
    yield "klagg_renumberings_total", (), sum(tally["renumbered"] for tally in tallies)
    compared = [worker.comparison for worker in market.workers]
    yield "klagg_verified_minutes_total", ("push",), sum(one.verified for one in compared)
    yield "klagg_completed_minutes_total", (), sum(one.completed for one in compared)
    yield "klagg_pushes_dropped_total", (), sum(one.dropped for one in compared)
    yield "klagg_folds_dropped_total", (), sum(worker.folds_dropped for worker in market.workers)
    yield "klagg_differences_total", ("push",), sum(one.differences for one in compared)


def _of_repair(market: "MarketService") -> Iterator[Sample]:
    repair, audit = market.repairer.stats, market.audit.stats
    yield "klagg_verified_minutes_total", ("rest",), repair.equal
    yield "klagg_differences_total", ("repair",), repair.differences
    yield "klagg_differences_total", ("audit",), audit.differing
    yield "klagg_differences_total", ("backfill",), market.past.differences
    yield "klagg_repair_pending_candles", (), repair.pending
    yield "klagg_repaired_candles_total", (), repair.repaired
    yield "klagg_unmatched_candles_total", (), repair.unmatched
    yield "klagg_repair_requests_total", (), repair.requests
    yield "klagg_repair_refused_total", (), repair.refused
    yield "klagg_repair_dropped_total", (), repair.dropped
    for result in ("equal", "missing", "extra", "differing"):
        yield "klagg_audit_candles_total", (result,), getattr(audit, result)
    yield "klagg_audit_repaired_total", (), audit.repaired
    yield "klagg_audit_timestamp_seconds", (), audit.last_run_ms / 1e3


def _of_store(market: "MarketService") -> Iterator[Sample]:
    stored = market.stored
    pending: dict[str, int] = {"urgent": 0, "leisure": 0}
    for count in stored.candles:
        yield "klagg_candles", (count.origin.label, "yes" if count.verified else "no"), count.candles
        if not count.verified and count.origin is not Origin.UNMATCHED:
            pending["urgent" if rules.is_urgent(count.origin, count.verified) else "leisure"] += count.candles
    if stored.read_ms:
        for urgency, candles in pending.items():
            yield "klagg_unverified_candles", (urgency,), candles
    for state, gaps in stored.gaps.items():
        yield "klagg_gaps", (state.value,), gaps
    for settled, minutes in stored.last_hour.items():
        yield "klagg_last_hour_minutes", (settled.value,), minutes


def _of_lanes(market: "MarketService") -> Iterator[Sample]:
    for lane in market.lanes():
        label = (lane.name,)
        yield "klagg_lane_symbols", label, lane.keys
        yield "klagg_lane_symbols_in_sight", label, lane.sighted
        if lane.last_data_ms:
            yield "klagg_lane_feed_age_seconds", label, max(market.now_ms - lane.last_data_ms, 0) / 1e3
        yield "klagg_lane_messages_total", label, lane.messages
        yield "klagg_lane_reconnects_total", label, lane.reconnects
        yield "klagg_lane_renewals_total", label, lane.renewals


def _of_clock_and_weight(market: "MarketService") -> Iterator[Sample]:
    clock, budget = market.exchange_clock, market.budget
    if clock.age_ms != float("inf"):
        yield "klagg_clock_offset_seconds", (), clock.offset_ms(time.time_ns() / 1e6) / 1e3
        yield "klagg_clock_uncertainty_seconds", (), clock.uncertainty_ms / 1e3
        yield "klagg_clock_calibration_age_seconds", (), clock.age_ms / 1e3
        yield "klagg_weight_used", (), budget.used(market.now_ms)
    yield "klagg_weight_limit", (), budget.limit
    for purpose in Purpose:
        yield "klagg_weight_share", (purpose.name.lower(),), budget.rate(purpose)
    yield "klagg_weight_shared", (), budget.is_shared
    yield "klagg_weight_banned_seconds", (), budget.banned_s


def _of_notes(counts: Mapping[str, int]) -> Iterator[Sample]:
    for event, count in sorted(counts.items()):
        if event.startswith(_REJECTED):
            yield "klagg_rejected_messages_total", (event.removeprefix(_REJECTED),), count
        else:
            yield "klagg_notes_total", (event,), count
