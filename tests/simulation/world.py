"""A world: a plan played out from its beginning until everything has settled, whatever happens to the process meanwhile."""

import asyncio
import gc
import random
import sqlite3
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import structlog

from judge.truth import MINUTE
from klagg.config.settings import Settings
from klagg.errors import KlaggError
from klagg.exchange.transport import Transport
from klagg.interval import INTERVALS
from klagg.interval import MINUTE as ONE_MINUTE
from klagg.model import Market, Origin
from klagg.service.run import Service
from klagg.store import Commit, CommitResult
from simulation.disk import Disk
from simulation.exchange import Exchange
from simulation.network import Network
from simulation.plan import LAST, Happening, Plan
from simulation.power import found_after
from simulation.timeline import Crash, HostClock, Stuck, Timeline, VirtualLoop
from simulation.verdict import Verdict, difference, stored, told

TURN_S = 0.2
LOOK_S = 10.0
QUIET_S = 20.0
"""After the last fault nothing is expected to have settled before this."""
SOON_MS = 5_000
UNSEEN_MS = 400_000
"""A symbol listed this short a time ago may not have been found yet."""
PATIENCE_S = 2_700.0
"""After the last fault all must have settled by then."""
RESTART_S = 5.0
MAX_LIVES = 60
ASKED_DURING_BANS = 60
"""What is on its way when a ban begins is no fault, nor is the first request of a new life that was told of none."""
OF_PROCESS = {
    *("cut", "cut_all", "shutdown_notice", "oversized", "stop", "suspend", "pause", "wall_clock_jump"),
    *("crash", "crash_in_store", "crash_at_frame", "crash_at_request", "take_over", "power_loss"),
}
"""Instants that befall the process; the others befall the market, whether a process runs or not."""


def settings_of(memory_bytes: int) -> type[Settings]:
    """Settings with a bound of memory below what people may choose."""

    bound = property(lambda _self: memory_bytes)
    return type("TightSettings", (Settings,), {"memory_bytes": bound})


@dataclass
class Story:
    """How a world went."""

    plan: Plan
    problems: list[str] = field(default_factory=list)
    lives: int = 0
    exits: list[str] = field(default_factory=list)
    candles: int = 0
    verified: int = 0
    market_s: float = 0.0
    pushed: int = 0
    """Closing pushes that the exchange sent while the service was live."""
    soon: int = 0
    """Minutes of those that were verified in the database within five seconds of their close."""
    real_s: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)
    log: deque[str] = field(default_factory=lambda: deque(maxlen=4_000))

    @property
    def failed(self) -> bool:
        return bool(self.problems)

    def __str__(self) -> str:
        plan, kind = self.plan, self.plan.world or "ordinary"
        lines = [
            f"seed {plan.seed}: {kind} world, {plan.market} from {plan.start_ms}, {len(plan.symbols)} symbols",
            f"  intervals {plan.intervals}",
            f"  history {plan.history}, {plan.workers} worker(s), margin {plan.margin}, lag {plan.lag_ms} ms",
            *(f"  {one}" for one in plan.happenings),
            f"  {self.lives} lives, {self.market_s:.0f} s of market in {self.real_s:.1f} s",
            f"  {self.candles} candles, {self.verified} verified",
            *(f"  the process ended: {one}" for one in self.exits),
            *(f"  WRONG: {one}" for one in self.problems[:12]),
        ]
        return "\n".join(lines)


@dataclass(eq=False)
class Process:
    """One process of klagg, with its connections and its disk."""

    service: Service
    network: Network
    disk: Disk
    stopped: asyncio.Event
    task: asyncio.Task[None] | None = None
    error: KlaggError | None = None
    loses_power: bool = False


class World:
    """One plan, one database file."""

    def __init__(self, plan: Plan, path: Path) -> None:
        self.plan = plan
        self.path = path
        self.timeline = Timeline(plan.start_ms)
        plans = [plan] if plan.other is None else [plan, plan.other]
        self.exchanges = {each.market: Exchange(each, self.timeline) for each in plans}
        self.exchange = self.exchanges[plan.market]
        for each in self.exchanges.values():
            each.lasting = [one for one in plan.happenings if one.kind in LAST]
        self.story = Story(plan)
        self.intervals = tuple(plan.intervals.split(","))
        self._instants = deque(sorted(self._all_instants(), key=lambda one: one.at_s))
        self._settled = False
        self._first_live_ms = 0
        self._wall_ms = 0.0
        self._is_dead = False
        self._names: dict[int, tuple[str, str]] = {}
        self._processes: list[Process] = []
        """Those that run now: one, or one and the one that takes over."""
        self._is_made = True
        """Whether the database has its tables: a power failure may take all that was ever written."""
        self._durable_ms: dict[str, int] = {}
        """What each market was durable up to by the last commit that returned."""
        self._soon: set[tuple[str, int]] = set()
        self._down_s = 0.0
        self._end_ms = plan.start_ms + int(plan.end_s * 1_000)

    def _all_instants(self) -> list[Happening]:
        found = []
        for one in self.plan.happenings:
            if one.kind not in LAST:
                found.append(one)
                if one.kind == "halt":
                    found.append(Happening(one.at_s + one.span_s, "halt_over", 0.0, 0.0, one.name))
        return found

    def run(self) -> Story:
        """Play it; never raises for what the service did."""
        started = time.perf_counter()
        self._record_logs()
        # What a killed process leaves behind is collected in silence.
        with (
            mock.patch("sys.unraisablehook", _ignore),
            mock.patch("time.time", self._wall_s),
            mock.patch("time.time_ns", self._wall_ns),
        ):
            try:
                while not self._settled and not self.story.failed:
                    self._live()
                if not self.story.failed:
                    self._judge_final()
            finally:
                structlog.reset_defaults()
                if self.story.lives > 1:
                    gc.collect()
        self.story.market_s = self.timeline.now_s
        self.story.real_s = time.perf_counter() - started
        self.story.faults = dict(sum((one.counts for one in self.exchanges.values()), Counter()))
        # The minute that the first start fell into has no trades before it to be compared.
        pushed = {key for key in self.exchange.pushed if key[1] >= self._first_live_ms}
        self.story.pushed, self.story.soon = len(pushed), len(pushed & self._soon)
        return self.story

    def _wall_s(self) -> float:
        return (self.timeline.now_ms + self._wall_ms) / 1_000

    def _wall_ns(self) -> int:
        return int(self._wall_s() * 1e9)

    def _record_logs(self) -> None:
        def keep(_logger: object, _name: str, event: dict[str, Any]) -> dict[str, Any]:
            if self._is_dead:
                raise structlog.DropEvent
            said = " ".join(f"{key}={value}" for key, value in event.items() if key != "event")
            said = said.replace(f"{self.path.parent}/", "")
            self.story.log.append(f"{self.timeline.now_s:9.3f} {event['event']} {said}")
            raise structlog.DropEvent

        structlog.configure(processors=[keep], wrapper_class=structlog.make_filtering_bound_logger(20))

    # One process

    def _live(self) -> None:
        story = self.story
        if story.lives >= MAX_LIVES:
            story.problems.append(f"the process would not stay: {story.exits[-3:]}")
            return
        story.lives += 1
        loop = VirtualLoop(self.timeline)
        loop.set_exception_handler(self._unhandled)
        asyncio.set_event_loop(loop)
        self._down_s = RESTART_S
        try:
            loop.run_until_complete(loop.create_task(self._process(story.lives)))
        except Crash:
            # What it had not looked at yet is no fault either, whenever it is collected.
            loop.set_exception_handler(_ignore)
            self._torn()
            self._is_dead = True
            loop.bury()
            self._is_dead = False
            self._judge_torn()
        except Stuck as error:
            story.problems.append(f"stuck at {self.timeline.now_s:.1f} s: {error}")
        except BaseException as error:  # noqa: BLE001 - whatever it is, the service must not raise it
            where = "".join(traceback.format_exception(error))[-1_800:]
            story.problems.append(f"at {self.timeline.now_s:.1f} s the service raised {error!r}\n{where}")
        else:
            loop.close()
        finally:
            for each in self.exchanges.values():
                each.peers.clear()
            asyncio.set_event_loop(None)
        if not self._settled:
            self._be_down(self._down_s)

    def _unhandled(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not self._is_dead:
            where = "" if error is None else "".join(traceback.format_exception(error))[-1_200:]
            self.story.problems.append(f"at {self.timeline.now_s:.1f} s: {context['message']}\n{where}")

    def _torn(self) -> None:
        """The processes are gone, and with the power what the disk had not written."""
        with_power = next((one for one in self._processes if one.loses_power), None)
        chance = random.Random(f"{self.plan.seed} power {self.story.lives}")
        files = None if with_power is None else with_power.disk.synced.lose(chance)
        for one in self._processes:
            one.disk.tear()
        if files is not None:
            found_after(self.path, files)
            self._judge_loss()

    async def _process(self, life: int) -> None:
        """One process, or one and others that take over from it, until the last has ended."""
        self._processes = []
        self._begin(life, take_over=False)
        turning = asyncio.create_task(self._turns())
        befalling = asyncio.create_task(self._befall())
        try:
            for one in self._processes:  # grows while it is walked
                assert one.task is not None
                await one.task
        finally:
            for task in (turning, befalling):
                task.cancel()
            results = await asyncio.gather(turning, befalling, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    def _begin(self, life: int, *, take_over: bool) -> None:
        self._is_made = True
        number = f"{life}" if not take_over else f"{life}.{len(self._processes)}"
        chance = random.Random(f"{self.plan.seed} process {number}")
        hosts = dict(zip(self._hosts(), self.exchanges.values(), strict=True))
        network = Network(self.plan, hosts, number)
        disk = self._disk = Disk(self.plan, self.exchange, self.path, number)
        disk.committed = self._committed
        clock = HostClock(self.timeline, self.plan.drift_ppm, chance.randrange(10**15))
        transport = Transport(
            open_session=network.session,  # type: ignore[arg-type]
            connect=network.connect,
            chance=lambda: random.Random(chance.randrange(2**32)),
        )
        service = Service(self._settings(take_over=take_over), clock, disk, transport)  # type: ignore[arg-type]
        one = Process(service, network, disk, asyncio.Event())
        self._processes.append(one)
        one.task = asyncio.create_task(self._run(one))

    async def _run(self, one: "Process") -> None:
        looking = asyncio.create_task(self._look(one))
        try:
            await one.service.run(one.stopped)
        except KlaggError as error:
            one.error = error
            self.story.exits.append(f"{self.timeline.now_s:.1f} s: {type(error).__name__}: {error}")
        finally:
            looking.cancel()
            (result,) = await asyncio.gather(looking, return_exceptions=True)
            await one.disk.close()
        if isinstance(result, Exception):
            raise result

    def _hosts(self) -> list[str]:
        return ["exchange"] if len(self.exchanges) == 1 else list(self.exchanges)

    def _settings(self, *, take_over: bool) -> Settings:
        plan = self.plan
        hosts = self._hosts()
        names = ["" if len(hosts) == 1 else f"{host}=" for host in hosts]
        return settings_of(plan.memory_bytes)(
            db=str(self.path),
            market=tuple(self.exchanges),
            take_over=take_over,
            intervals=(plan.intervals,),
            history=plan.history,
            workers=plan.workers,
            margin_ms=plan.margin if len(hosts) == 1 else "auto",
            renew_hours=plan.renew_h,
            audit_weight_share=plan.audit_share,
            rest_url=tuple(f"{name}http://{host}" for name, host in zip(names, hosts, strict=True)),
            ws_url=tuple(f"{name}ws://{host}" for name, host in zip(names, hosts, strict=True)),
            log_format="json",
        )

    async def _turns(self) -> None:
        while True:
            for each in self.exchanges.values():
                each.turn()
            await asyncio.sleep(TURN_S)

    async def _look(self, one: "Process") -> None:
        """Stop for good once all faults are over and nothing waits any more; the newest process is looked at."""
        await one.service.live.wait()
        if not self._first_live_ms:
            self._first_live_ms = self.exchange.now_ms
        while True:
            await asyncio.sleep(LOOK_S)
            since_s = self.timeline.now_s - self.plan.end_s
            if since_s < QUIET_S or self._instants or one is not self._processes[-1]:
                continue
            if any((one.disk.store.closed_upto(Market(name)) or 0) <= self._end_ms for name in self.exchanges):
                continue
            waiting = [row for market, each in self.exchanges.items() for row in self._waiting(one, market, each)]
            if not waiting and all(market.history_ready for market in one.service.markets):
                self._settled = True
            elif since_s > PATIENCE_S:
                self.story.problems.append(f"still not settled {since_s:.0f} s after the last fault: {waiting[:5]}")
            else:
                continue
            for each in self._processes:
                if each is not one and each.task is not None and not each.task.done():
                    self.story.problems.append("the process that was taken over still runs")
                each.stopped.set()
            return

    def _waiting(self, one: "Process", market: str, exchange: Exchange) -> list[tuple[Any, ...]]:
        """The candles of a market that should have settled and have not."""
        store = one.disk.store
        names = {stored.id: stored.instrument.symbol for stored in store.instruments(Market(market))}
        return [
            (names[row[0]], *row[1:])
            for row in store.unverified(Market(market), before_ms=self._end_ms, limit=1_000).tolist()
            if self._closed_by(row, self._end_ms) and names[row[0]] not in exchange.vanished
        ]

    def _closed_by(self, row: tuple[int, ...], before_ms: int) -> bool:
        return INTERVALS[row[1]].next_open(row[2]) <= before_ms

    # What happens

    async def _befall(self) -> None:
        while self._instants:
            wait_s = self._instants[0].at_s - self.timeline.now_s
            if wait_s > 0:
                await asyncio.sleep(wait_s)
                continue
            one = self._instants.popleft()
            self.exchange.counts[one.kind] += 1
            if one.kind in OF_PROCESS:
                self._befall_process(one, self._processes[-1])
            else:
                self.exchange.befall(one)

    def _befall_process(self, one: Happening, process: "Process") -> None:
        timeline, network = self.timeline, process.network
        if one.kind in {"cut", "shutdown_notice", "oversized"} and network.sockets:
            alive = [socket for socket in network.sockets if not socket.is_disconnected]
            if alive:
                socket = alive[int(one.value) % len(alive)]
                if one.kind == "shutdown_notice":
                    socket.send_now(b'{"e":"serverShutdown","E":1}')
                    asyncio.get_running_loop().call_later(600.0, socket.cut, "")
                else:
                    socket.cut("message too big" if one.kind == "oversized" else "")
        elif one.kind == "cut_all":
            for socket in network.sockets:
                socket.cut("going away" if one.value > 5 else "")
        elif one.kind == "stop":
            self._down_s = one.span_s
            process.stopped.set()
        elif one.kind == "take_over":
            self._begin(self.story.lives, take_over=True)
        elif one.kind == "power_loss":
            process.loses_power = True
            self._arm(replace(one, kind="crash_in_store"), process)
            _hop(asyncio.get_running_loop(), 40 * int(one.value))
        elif one.kind == "suspend":
            timeline.now_ns += int(one.value * 1e9)
            timeline.suspended_ns += int(one.value * 1e9)
            if one.value > 60:
                for socket in network.sockets:
                    socket.cut("")
        elif one.kind == "pause":
            timeline.now_ns += int(one.value * 1e9)
        elif one.kind == "wall_clock_jump":
            self._wall_ms += one.value
        elif one.kind.startswith("crash"):
            self._arm(one, process)

    def _arm(self, one: Happening, process: "Process") -> None:
        self._down_s = one.span_s
        count = int(one.value)
        loop = asyncio.get_running_loop()
        if one.kind == "crash":
            _hop(loop, count)
            return
        left = [count]

        def fuse(explode: Callable[[], None]) -> Callable[[], None]:
            def burn() -> None:
                left[0] -= 1
                if left[0] == 0:
                    explode()

            return burn

        if one.kind == "crash_in_store":
            process.disk.due = fuse(_crash)
        elif one.kind == "crash_at_frame":
            process.network.frame_due = fuse(_crash)
        else:
            process.network.request_due = fuse(lambda: _hop(loop, 0))

    def _be_down(self, seconds: float) -> None:
        """No process runs; the market goes on."""
        end_ns = self.timeline.now_ns + int(seconds * 1e9)
        while self._instants and self._instants[0].at_s * 1e9 <= end_ns:
            one = self._instants.popleft()
            self.timeline.now_ns = max(self.timeline.now_ns, int(one.at_s * 1e9))
            if one.kind not in OF_PROCESS:
                self.exchange.counts[one.kind] += 1
                self.exchange.befall(one)
        self.timeline.now_ns = max(self.timeline.now_ns, end_ns)

    # Judging

    def _committed(self, batch: Commit, result: CommitResult) -> None:
        """At every commit: nothing closes before the exchange's clock has passed it."""
        accepted = result.accepted
        for row, instrument_id in zip(batch.candles[accepted], batch.instrument_ids[accepted].tolist(), strict=True):
            self._claimed(row, instrument_id)
        market = batch.claim.market.value
        self._durable_ms[market] = max(self._durable_ms.get(market, 0), batch.closed_upto_ms)
        if batch.closed_upto_ms > self.exchange.now_ms:
            self.story.problems.append(
                f"at {self.timeline.now_s:.3f} s closed up to {batch.closed_upto_ms}, "
                f"{batch.closed_upto_ms - self.exchange.now_ms} ms before its time"
            )

    def _claimed(self, row: np.void, instrument_id: int) -> None:
        """A closed minute that says it is whole has all its trades, at any instant."""
        if row["interval"] == ONE_MINUTE.code and row["flags"] & 2:
            if self.exchange.now_ms - int(row["open_ms"]) - MINUTE <= SOON_MS:
                self._soon.add((self._name(instrument_id)[1], int(row["open_ms"])))
            return
        if row["origin"] != Origin.TRADES or row["interval"] != ONE_MINUTE.code or row["flags"] & 3 != 1:
            return
        market, symbol = self._name(instrument_id)
        one = self.exchanges[market].everyone().get(symbol)
        open_ms = int(row["open_ms"])
        if one is not None and open_ms in one.minutes:
            expected = told(one, one.told_minute(open_ms))
            if stored(row) != expected:
                self.story.problems.append(
                    f"at {self.timeline.now_s:.3f} s {one.name} 1m {open_ms} committed as trades: "
                    f"{difference(stored(row), expected)}"
                )

    def _name(self, instrument_id: int) -> tuple[str, str]:
        if instrument_id not in self._names:
            self._names = {
                each.id: (each.instrument.market.value, each.instrument.symbol)
                for each in self._disk.store.instruments()
            }
        return self._names[instrument_id]

    def _judge_loss(self) -> None:
        """After a power failure: what was durable, if each commit is synced, and whether anything was ever closed."""
        with closing(sqlite3.connect(self.path)) as database:
            is_made = database.execute("SELECT count(*) FROM sqlite_master WHERE name = 'shard'").fetchone()[0]
            found = dict(
                database.execute("SELECT market, max(closed_upto_ms) FROM shard GROUP BY market") if is_made else []
            )
        for market, durable_ms in self._durable_ms.items():
            if self.plan.world == "power_full" and found.get(market, 0) < durable_ms:
                self.story.problems.append(
                    f"{market} was durable up to {durable_ms}, after the power failed up to {found.get(market, 0)}"
                )
        self._durable_ms = found
        self._names = {}
        self._is_made = bool(is_made)
        if not any(found.values()):
            self._first_live_ms = 0  # as if klagg had never been there

    def _judge_torn(self) -> None:
        if not self._is_made:
            return
        for each in self.exchanges.values():
            each.market.advance(each.now_ms)
            self.story.problems += Verdict(each, self.path, self.intervals).torn(self.path).problems

    def _judge_final(self) -> None:
        for each in self.exchanges.values():
            each.market.advance(each.now_ms)
            verdict = Verdict(each, self.path, self.intervals).final(self.path, self._born(each), self._end_ms)
            self.story.problems += verdict.problems + self._manners(each)
            self.story.candles += verdict.candles
            self.story.verified += verdict.verified

    @staticmethod
    def _manners(exchange: Exchange) -> list[str]:
        """What the exchange would ban an address for."""
        if exchange.over_weight and not exchange.counts["rest_wrong_weight"]:
            return [f"{exchange.over_weight} requests above the weight limit"]
        if exchange.counts["asked_during_ban"] > ASKED_DURING_BANS:
            return [f"{exchange.counts['asked_during_ban']} requests while banned"]
        return []

    def _born(self, exchange: Exchange) -> dict[str, int]:
        """From when on each symbol must have candles: its listing, or the first time klagg was live."""
        first_ms = self._first_live_ms
        born = {}
        for name, one in exchange.everyone().items():
            if one.retired_ms and (one.retired_ms < first_ms or name in exchange.vanished):
                continue
            if one.retired_ms and one.retired_ms - one.born_ms < 600_000:
                continue  # it may have come and gone unseen
            began_ms = max(one.born_ms, first_ms)
            if one.born_ms > first_ms and exchange.now_ms - one.born_ms < UNSEEN_MS:
                continue  # not activated yet
            born[name] = began_ms - began_ms % MINUTE
        return born


def _hop(loop: asyncio.AbstractEventLoop, count: int) -> None:
    """Die after so many more turns of the loop."""
    loop.call_soon(_hop, loop, count - 1) if count > 0 else loop.call_soon(_crash)


def _crash() -> None:
    raise Crash


def _ignore(*_: object) -> None:
    pass
