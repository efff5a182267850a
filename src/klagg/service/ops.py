"""What a running service says of itself: its state now, and the last ten minutes of what people watch, once a second."""

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import structlog

from klagg import __version__
from klagg.interval import MINUTE_MS
from klagg.model import Market, Origin
from klagg.serve.source import Live
from klagg.service.market import MarketService
from klagg.store.gaps import GapState

log = structlog.get_logger()

STEP_S: Final = 1.0
KEPT: Final = 600
"""Samples of each series: ten minutes."""
SHOWN_NOTES: Final = 50
RATE_SAMPLES: Final = 10
"""Seconds over which trades a second are counted."""
_NAMES: Final = ("offset_ms", "tick_lag_ms", "trades_per_s", "weight_used", "write_ms", "pending")

Number = float | int | None


class MarketOps:
    """The samples of one market."""

    def __init__(self, market: MarketService) -> None:
        self._market = market
        self._series: dict[str, deque[Number]] = {name: deque(maxlen=KEPT) for name in _NAMES}
        self._ages: dict[str, deque[Number]] = {}
        self._trades: deque[tuple[float, int]] = deque(maxlen=RATE_SAMPLES + 1)
        self._commits = (0, 0.0)
        self._ticks: dict[int, int] = {}
        """How late the last ticks came, by boundary."""

    def sample(self) -> None:
        """Look once."""
        market, series = self._market, self._series
        workers, clock = market.workers, market.exchange_clock
        known = clock.age_ms != float("inf")
        tallies = [worker.core.engine.tally for worker in workers]
        self._trades.append((time.monotonic(), sum(tally.applied + tally.late for tally in tallies)))
        series["offset_ms"].append(round(-clock.offset_ms(time.time_ns() / 1e6), 1) if known else None)
        lag_ms = max((worker.tick_lag_ms for worker in workers), default=None)
        series["tick_lag_ms"].append(lag_ms)
        if workers and lag_ms is not None:
            self._ticks[market.boundary_ms] = lag_ms
            for old in sorted(self._ticks)[: -KEPT // 10]:
                del self._ticks[old]
        series["trades_per_s"].append(self.trades_per_s)
        series["weight_used"].append(market.budget.used(market.now_ms) if known else None)
        series["write_ms"].append(self._write_ms())
        series["pending"].append(market.unverified)
        self._sample_lanes(market.now_ms if known else 0)

    def _write_ms(self) -> Number:
        """How long the commits since the last look took on average; None where there was none."""
        commits = sum(worker.commits for worker in self._market.workers)
        taken_s = sum(worker.commit_s for worker in self._market.workers)
        before, before_s = self._commits
        self._commits = commits, taken_s
        return round((taken_s - before_s) * 1e3 / (commits - before), 1) if commits > before else None

    def _sample_lanes(self, now_ms: int) -> None:
        lanes = {lane.name: lane for lane in self._market.lanes()}
        for name in lanes:
            if name not in self._ages:
                self._ages[name] = deque([None] * (len(self._series["pending"]) - 1), maxlen=KEPT)
        for name, ages in list(self._ages.items()):
            lane = lanes.get(name)
            ages.append(max(now_ms - lane.last_data_ms, 0) if lane is not None and lane.last_data_ms else None)
            if lane is None and all(age is None for age in ages):
                del self._ages[name]

    @property
    def trades_per_s(self) -> float:
        """Trades a second over the last seconds."""
        if len(self._trades) < 2:
            return 0.0
        (first_s, first), (last_s, last) = self._trades[0], self._trades[-1]
        return round((last - first) / (last_s - first_s), 1) if last_s > first_s else 0.0

    def ops(self) -> dict[str, Any]:
        """The body of `/v1/ops`."""
        series: dict[str, Any] = {name: list(values) for name, values in self._series.items()}
        series["feed_age_ms"] = {name: list(ages) for name, ages in sorted(self._ages.items())}
        return {"market": self._market.market.value, "step_ms": int(STEP_S * 1e3), "series": series}

    def status(self, live: Live) -> dict[str, Any]:
        """The market's part of `/v1/status`."""
        market = self._market
        workers, clock, stored = market.workers, market.exchange_clock, market.stored
        known = clock.age_ms != float("inf")
        now_ms = market.now_ms if known else None
        durable_ms = live.durable_ms(market.market)
        candles = sum(count.candles for count in stored.candles if count.origin is not Origin.UNMATCHED)
        verified = sum(count.candles for count in stored.candles if count.verified)
        writes = [value for value in self._series["write_ms"] if value is not None]
        progress = market.history_progress
        last_tick_ms = max((worker.tick_lag_ms for worker in workers), default=None)
        return {
            "market": market.market.value,
            "phase": market.phase,
            "symbols": market.symbols,
            "boundary_ms": market.boundary_ms or None,
            "durable_ms": durable_ms or None,
            "verified_ms": None,
            "closed_lag_ms": last_tick_ms,
            "durable_lag_ms": max((worker.write_lag_ms for worker in workers), default=None),
            "verified_share": verified / candles if candles else None,
            "pending": market.unverified,
            "urgent": market.repairer.stats.pending if workers else None,
            "next_tick_ms": None if now_ms is None or not workers else market.boundary_ms + MINUTE_MS - now_ms,
            "offset_ms": round(-clock.offset_ms(time.time_ns() / 1e6), 1) if known else None,
            "uncertainty_ms": round(clock.uncertainty_ms, 1) if known else None,
            "tick_lag_p99_ms": _p99(list(self._ticks.values())),
            "trades_per_s": self.trades_per_s,
            "connections": [
                {
                    "name": lane.name,
                    "keys": lane.keys,
                    "sighted": lane.sighted,
                    "age_s": round(lane.age_s, 1),
                    "feed_age_ms": max(now_ms - lane.last_data_ms, 0) if now_ms and lane.last_data_ms else None,
                    "reconnects": lane.reconnects,
                    "renewals": lane.renewals,
                    "last_trouble": lane.last_trouble or None,
                }
                for lane in market.lanes()
            ],
            "weight_used": market.budget.used(now_ms) if now_ms is not None else None,
            "weight_limit": market.budget.limit,
            "write_p99_ms": _p99(writes),
            "repair_eta_s": self._repair_eta_s(),
            "history_progress": None if progress is None else _progress(*progress),
            "gaps_open": stored.gaps.get(GapState.OPEN, 0),
            "gaps_final": stored.gaps.get(GapState.FINAL, 0),
        }

    def _repair_eta_s(self) -> float | None:
        """When nothing will be left to repair, if it goes on as in the last ten minutes; None where it does not shrink."""
        seen = [value for value in self._series["pending"] if value is not None]
        if not seen or seen[-1] == 0:
            return 0.0
        shrunk = (seen[0] - seen[-1]) / (len(seen) * STEP_S)
        return round(seen[-1] / shrunk, 1) if shrunk > 0 else None

    def notes(self) -> list[dict[str, Any]]:
        """The newest notes."""
        name = self._market.market.value
        return [
            {"at_ms": at_ms, "event": event, "text": text, "market": name}
            for at_ms, event, text in self._market.recent.notes
        ]


class Ops:
    """`serve.native.desk.Ops` of a running service."""

    def __init__(self, markets: Sequence[MarketService], live: Live) -> None:
        self._live = live
        self._markets: Mapping[Market, MarketOps] = {market.market: MarketOps(market) for market in markets}

    async def run(self) -> None:
        """Look once a second until cancelled."""
        while True:
            for name, market in self._markets.items():
                try:
                    market.sample()
                except Exception as error:  # noqa: BLE001 - a small chart is not worth the service
                    log.error("serve.sample_failed", market=name.value, reason=f"{type(error).__name__}: {error}")
            await asyncio.sleep(STEP_S)

    def ops(self, market: Market) -> dict[str, Any]:
        """The small charts of a market."""
        return self._markets[market].ops()

    def status(self) -> dict[str, Any]:
        """The state of all markets."""
        notes = [note for market in self._markets.values() for note in market.notes()]
        notes.sort(key=lambda note: -note["at_ms"])
        return status_of(self._live, [market.status(self._live) for market in self._markets.values()], notes)


class NoOps:
    """The same where nothing runs: `klagg serve` over what another process writes."""

    def __init__(self, live: Live) -> None:
        self._live = live

    async def run(self) -> None:
        """Nothing to look at."""

    def ops(self, market: Market) -> dict[str, Any]:
        """No samples."""
        series: dict[str, Any] = {name: [] for name in _NAMES} | {"feed_age_ms": {}}
        return {"market": market.value, "step_ms": int(STEP_S * 1e3), "series": series}

    def status(self) -> dict[str, Any]:
        """What can be known without the one who runs."""
        nothing = dict.fromkeys(
            (
                *(
                    "boundary_ms",
                    "closed_lag_ms",
                    "durable_lag_ms",
                    "verified_share",
                    "pending",
                    "urgent",
                    "next_tick_ms",
                ),
                *("offset_ms", "uncertainty_ms", "tick_lag_p99_ms", "trades_per_s", "weight_used", "weight_limit"),
                *("write_p99_ms", "repair_eta_s", "history_progress", "gaps_open", "gaps_final", "verified_ms"),
            )
        )
        markets: list[dict[str, Any]] = [
            {
                "market": market.value,
                "phase": "read only",
                "symbols": sum(one.retired_ms is None for one in self._live.listings(market).values()),
                **nothing,
                "durable_ms": self._live.durable_ms(market) or None,
                "connections": [],
            }
            for market in self._live.markets
        ]
        return status_of(self._live, markets, [])


def status_of(live: Live, markets: list[dict[str, Any]], notes: list[dict[str, Any]]) -> dict[str, Any]:
    """The body of `/v1/status`."""
    missing = list(live.missing())
    now_ms = live.now_ms(live.markets[0]) if live.markets else time.time_ns() // 1_000_000
    return {
        "version": __version__,
        "now_ms": now_ms,
        "ready": not missing,
        "missing": missing,
        "markets": markets,
        "notes": notes[:SHOWN_NOTES],
    }


def _progress(done: int, total: int, left_s: float) -> dict[str, Any]:
    return {"done": done, "total": total, "left_s": round(left_s, 1) if np.isfinite(left_s) else None}


def _p99(values: Sequence[float | int]) -> float | None:
    return round(float(np.percentile(values, 99)), 1) if values else None
