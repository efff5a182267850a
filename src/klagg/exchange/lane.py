"""A lane: one group of streams kept in sight over connections that come and go.

It connects with whatever keys it has at that moment, subscribes, watches, reconnects with backoff, and renews in time: the
replacement is opened first, both deliver, and the old connection is dropped once the new one has proven itself.

A silent connection is not a quiet market. It is dropped when, for `silence_s`,
- it answers no ping, or
- a subscription stays unacknowledged, or
- its heartbeat, once heard, has stopped, or
- nothing came of its symbols although others say that they traded (`Sink.traded_since`), or although at its usual rate dozens of
  messages were due and its heartbeat or other lanes go on.
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from klagg.clock import Clock
from klagg.exchange.link import Link, LinkFailed
from klagg.exchange.pacing import Backoff, ConnectGate
from klagg.exchange.settings import StreamSettings
from klagg.exchange.transport import Connect

log = structlog.get_logger()

UNDELIVERED_MS: Final = 1_000
"""What was traded this long before the last data may not have been delivered yet: futures trades come 150 ms late and more."""
WATCH_S: Final = 1.0
"""How often a lane looks at its connections when nothing wakes it."""
DUE_MESSAGES: Final = 50
"""So many messages overdue at the usual rate are no coincidence."""
RATE_AFTER_S: Final = 30.0
"""A connection's usual rate is known after this long."""
_HEARTBEAT_KEY: Final = ""


class Sink(Protocol):
    """Where a lane's messages and events go."""

    def message(self, payload: bytes, recv_ms: int) -> None:
        """A message of one of the streams."""

    def sighted(self, keys: frozenset[str], at_ms: int) -> None:
        """From this instant on these keys are in sight."""

    def blind(self, keys: frozenset[str], since_ms: int, reason: str) -> None:
        """Since this instant these keys are out of sight."""

    def traded_since(self, keys: Iterable[str], since_ms: int) -> bool:
        """Whether somebody else has seen one of these keys trade after this instant."""
        ...

    def others_alive(self) -> bool:
        """Whether other lanes have had data just now."""
        ...


@dataclass(frozen=True, slots=True)
class LaneStats:
    """A lane as the live view and the logs show it."""

    name: str
    keys: int
    sighted: int
    connections: int
    age_s: float
    messages: int
    last_data_ms: int
    reconnects: int
    renewals: int
    last_trouble: str


class Lane:
    """One group of streams; `run` it in a TaskGroup. `add` and `remove` work at any time."""

    def __init__(
        self,
        name: str,
        url: str,
        sink: Sink,
        *,
        settings: StreamSettings,
        clock: Clock,
        now_ms: Callable[[], int],
        gate: ConnectGate,
        connect: Connect,
        rng: random.Random,
    ) -> None:
        self.name = name
        self.names: dict[str, tuple[str, ...]] = {}
        """The stream names of each key, today's."""
        self._url = url
        self._sink = sink
        self._settings = settings
        self._clock = clock
        self._now_ms = now_ms
        self._gate = gate
        self._connect_to = connect
        self._rng = rng
        self._backoff = Backoff(rng)
        self._renewal_backoff = Backoff(rng, first_s=5.0, last_s=300.0)
        self._renewal_after_ns = 0
        self._links: list[Link] = []
        self._sighted: set[str] = set()
        self._wake = asyncio.Event()
        self._closing = False
        self._looked_ns = clock.monotonic_ns()
        self._trouble = ""
        self.messages = 0
        self.reconnects = 0
        self.renewals = 0

    @property
    def sighted(self) -> frozenset[str]:
        """The keys in sight."""
        return frozenset(self._sighted)

    @property
    def last_data_ms(self) -> int:
        """Exchange time of the last data on any of its connections, 0 for none."""
        return max((link.last_data_ms for link in self._links), default=0)

    def stats(self) -> LaneStats:
        """How it fares."""
        now_ns = self._clock.monotonic_ns()
        age_s = (now_ns - self._links[0].opened_ns) / 1e9 if self._links else 0.0
        return LaneStats(
            self.name,
            len(self.names),
            len(self._sighted),
            len(self._links),
            age_s,
            self.messages,
            self.last_data_ms,
            self.reconnects,
            self.renewals,
            self._trouble,
        )

    def add(self, names: Mapping[str, tuple[str, ...]]) -> None:
        """Take more keys in; those in sight are not disturbed."""
        self.names.update(names)
        for link in self._links:
            link.subscribe(names)
        self._wake.set()

    def remove(self, keys: Iterable[str]) -> None:
        """Let keys go."""
        gone = {key: self.names.pop(key) for key in keys if key in self.names}
        self._sighted.difference_update(gone)
        for link in self._links:
            link.unsubscribe(gone)
        self._wake.set()

    def close(self) -> None:
        """Let `run` return."""
        self._closing = True
        self._wake.set()

    async def run(self) -> None:
        """Keep the streams in sight until closed or cancelled."""
        try:
            while not self._closing:
                if await self._connect():
                    await self._tend()
                if not self._closing:
                    await self._clock.sleep(self._backoff.next_s())
        finally:
            for link in self._links:
                link.close()
            self._links.clear()

    async def _connect(self) -> bool:
        """Open one connection and subscribe today's keys."""
        await self._gate.enter()
        try:
            link = await self._open()
        except LinkFailed as error:
            self._report_failure(error)
            if error.floor_s:
                await self._clock.sleep(error.floor_s)
            return False
        self._links.append(link)
        return True

    async def _open(self) -> Link:
        def message(payload: bytes, recv_ms: int) -> None:
            self.messages += 1
            self._sink.message(payload, recv_ms)

        link = Link(
            self._settings,
            clock=self._clock,
            now_ms=self._now_ms,
            message=message,
            sighted=self._see,
            changed=self._wake.set,
            connect=self._connect_to,
            rng=self._rng,
        )
        try:
            await link.open(self._url)
        except BaseException:
            link.close()
            raise
        if self._settings.heartbeat:
            # By itself, so that an exchange that refuses it refuses nothing else.
            link.subscribe({_HEARTBEAT_KEY: (self._settings.heartbeat,)})
        link.subscribe(self.names)
        log.info("stream.connected", lane=self.name, keys=len(self.names))
        return link

    def _report_failure(self, error: LinkFailed) -> None:
        self._trouble = f"cannot connect to {self._url} ({error})"
        hint = "set HTTPS_PROXY or name another address with --ws-url" if error.status in {403, 451} else ""
        report = log.error if hint or self._backoff.failures >= 5 else log.warning
        report(
            "stream.connect_failed",
            lane=self.name,
            url=self._url,
            reason=str(error),
            failures=self._backoff.failures + 1,
            floor_ms=int(error.floor_s * 1e3),
            hint=hint,
        )

    async def _tend(self) -> None:
        """Look after the connections until none is left."""
        while self._links and not self._closing:
            due_s = min(link.pump() for link in self._links)
            await self._nap(min(due_s, WATCH_S))
            self._excuse_stall()
            for link in tuple(self._links):
                reason = link.lost or self._verdict(link)
                if reason:
                    self._drop(link, reason)
            self._finish_renewal()
            if self._renewal_due():
                await self._renew()

    async def _nap(self, seconds: float) -> None:
        """Sleep, or less if something happens."""
        if seconds <= 0:
            await self._clock.sleep(0)
            return
        sleeper = asyncio.ensure_future(self._clock.sleep(seconds))
        waker = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait((sleeper, waker), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeper.cancel()
            waker.cancel()
        self._wake.clear()

    def _see(self, keys: frozenset[str], at_ms: int) -> None:
        new = frozenset(key for key in keys if key in self.names) - self._sighted
        self._sighted |= new
        if new:
            self._sink.sighted(new, at_ms)

    def _drop(self, link: Link, reason: str) -> None:
        """Give a connection up; what only it had in sight goes blind."""
        self._links.remove(link)
        link.close()
        covered = {key for other in self._links for key in other.sighted}
        lost = frozenset(key for key in self._sighted if key not in covered)
        self._sighted -= lost
        age_s = (self._clock.monotonic_ns() - link.opened_ns) / 1e9
        if link.sighted and age_s >= self._settings.stable_s:
            self._backoff.reset()
        self.reconnects += not self._links
        self._trouble = reason
        log.warning(
            "stream.lost",
            lane=self.name,
            reason=reason,
            keys=len(lost),
            age_ms=int(age_s * 1e3),
            messages=link.messages,
        )
        if lost:
            self._sink.blind(lost, (link.last_data_ms or self._now_ms()) - UNDELIVERED_MS, reason)

    # Watching

    def _excuse_stall(self) -> None:
        """After a stall of this very process the sockets get time to be read before they are judged."""
        now_ns = self._clock.monotonic_ns()
        stalled = now_ns - self._looked_ns > (WATCH_S + self._settings.silence_s / 4) * 1e9
        self._looked_ns = now_ns
        if stalled:
            for link in self._links:
                link.excuse_silence()

    def _verdict(self, link: Link) -> str:
        """Why a connection must go, "" if it may stay."""
        now_ns = self._clock.monotonic_ns()
        limit_ns = int(self._settings.silence_s * 1e9)
        if now_ns - link.last_frame_ns > limit_ns // 2:
            link.ping()
        if link.pinged_ns and now_ns - link.pinged_ns > limit_ns // 2:
            return "silent, and a ping was not answered"
        if link.unanswered_ns() > limit_ns:
            return "a subscription was not acknowledged"
        if link.heartbeat_ns and now_ns - link.heartbeat_ns > limit_ns:
            return "its heartbeat has stopped"
        heard_ns = max(link.last_message_ns, link.acknowledged_ns)
        silent_ns = now_ns - heard_ns
        if not heard_ns or silent_ns <= limit_ns:
            return ""
        if self._sink.traded_since(self.names, self._now_ms() - silent_ns // 1_000_000):
            return "silent while its symbols trade"
        lived_ns = max(link.last_message_ns - link.opened_ns, 1)
        due = link.messages * silent_ns / lived_ns
        alive_elsewhere = link.heartbeat_ns > heard_ns or self._sink.others_alive()
        if lived_ns > RATE_AFTER_S * 1e9 and due >= DUE_MESSAGES and alive_elsewhere:
            return "silent, against its usual rate"
        return ""

    # Renewal

    def _renewal_due(self) -> bool:
        if len(self._links) != 1 or self._closing:
            return False
        now_ns, link = self._clock.monotonic_ns(), self._links[0]
        old = link.shutdown_announced or now_ns >= link.renew_at_ns
        return old and now_ns >= self._renewal_after_ns and self._gate.is_open()

    async def _renew(self) -> None:
        """Open the replacement; until it has proven itself both deliver."""
        await self._gate.enter()
        try:
            self._links.append(await self._open())
        except LinkFailed as error:
            self._report_failure(error)
            self._postpone_renewal(error.floor_s)

    def _postpone_renewal(self, floor_s: float = 0.0) -> None:
        delay_s = self._renewal_backoff.next_s(floor_s)
        self._renewal_after_ns = self._clock.monotonic_ns() + int(delay_s * 1e9)

    def _finish_renewal(self) -> None:
        if len(self._links) != 2:
            return
        old, new = self._links
        wanted = self._sighted - new.refused
        if self.names and wanted <= new.sighted and new.sighted:
            self._links.remove(old)
            old.close()
            self.renewals += 1
            self._renewal_backoff.reset()
            log.info("stream.renewed", lane=self.name, keys=len(self.names))
            return
        patience_ns = int(self._settings.renew_patience_s * 1e9)
        waited_ns = self._clock.monotonic_ns() - new.opened_ns
        if waited_ns > patience_ns and old.last_message_ns > new.opened_ns + patience_ns // 2:
            self._drop(new, "the replacement brought no data")
            self._postpone_renewal()
