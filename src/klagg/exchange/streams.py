"""The trades and minute klines of one worker's symbols, over as many connections as the limits ask."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

import structlog

from klagg.clock import Clock
from klagg.exchange.endpoints import Endpoints
from klagg.exchange.inbox import Blind, Inbox, Sighted
from klagg.exchange.lane import Lane, LaneStats
from klagg.exchange.pacing import ConnectGate
from klagg.exchange.settings import StreamSettings
from klagg.exchange.transport import SOCKETS, Transport

log = structlog.get_logger()

ALIVE_MS: Final = 3_000
"""Data within this time is a sign of life."""


def stream_names(symbol: str) -> tuple[str, ...]:
    """What is subscribed for a symbol: its aggregate trades, and the klines whose closing push verifies its minutes.

    Names are lower case: others are acknowledged and stay silent.
    """
    name = symbol.lower()
    return f"{name}@aggTrade", f"{name}@kline_1m"


class TradeStreams:
    """Streams of a changing set of symbols into one inbox.

    Besides messages the inbox gets `Sighted` and `Blind`, in order: sighted once data flows after the acknowledgement,
    blind at disconnect or silence.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        *,
        clock: Clock,
        now_ms: Callable[[], int],
        settings: StreamSettings | None = None,
        gate: ConnectGate | None = None,
        inbox: Inbox | None = None,
        transport: Transport = SOCKETS,
        name: str = "",
    ) -> None:
        self.inbox = Inbox() if inbox is None else inbox
        self.traded_ms: Callable[[str], int] | None = None
        """When a symbol was last seen to trade by others (see `Discovery.traded_ms`): how a silent connection is judged."""
        self._endpoints = endpoints
        self._clock = clock
        self._now_ms = now_ms
        self._settings = settings or StreamSettings.of(endpoints.market)
        self._gate = gate or ConnectGate(clock)
        self._transport = transport
        self._rng = transport.chance()
        self._name = name or endpoints.market.value
        self._groups: list[_Group] = []
        self._tasks: asyncio.TaskGroup | None = None
        self._made = 0

    @property
    def symbols(self) -> frozenset[str]:
        """The symbols subscribed or about to be."""
        return frozenset(symbol for group in self._groups for symbol in group.slot_of)

    @property
    def sighted(self) -> frozenset[str]:
        """The symbols in sight."""
        return frozenset(symbol for group in self._groups for symbol in group.lane.sighted)

    @property
    def slots_in_sight(self) -> frozenset[int]:
        """The engine's rows of the symbols in sight."""
        return frozenset(slot for group in self._groups for slot in group.slots())

    def stats(self) -> list[LaneStats]:
        """How each connection fares."""
        return [group.lane.stats() for group in self._groups]

    async def run(self) -> None:
        """Hold the streams until cancelled."""
        assert self._tasks is None
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                for group in self._groups:
                    tasks.create_task(group.lane.run())
                await asyncio.get_running_loop().create_future()
        finally:
            self._tasks = None

    async def add(self, slots: Mapping[str, int]) -> None:
        """Take symbols in, by the engine's row of each; those in sight are not disturbed.

        Returns when they are assigned to connections; `Sighted` tells when they flow.
        """
        known = self.symbols
        waiting = {symbol: slot for symbol, slot in slots.items() if symbol not in known}
        for group in self._groups:
            part = dict(_take(waiting, self._settings.symbols_per_connection - len(group.slot_of)))
            group.add(part)
        connections = -(-len(waiting) // self._settings.symbols_per_connection)
        for left in range(connections, 0, -1):
            self._open_group(dict(_take(waiting, -(-len(waiting) // left))))

    async def remove(self, symbols: Iterable[str]) -> None:
        """Let symbols go; a connection left without any is closed."""
        gone = set(symbols)
        for group in tuple(self._groups):
            group.remove(gone)
            if not group.slot_of:
                self._groups.remove(group)
                group.lane.close()
                self.inbox.forget([group])

    def _open_group(self, slots: dict[str, int]) -> None:
        self._made += 1
        group = _Group(self)
        group.lane = Lane(
            f"{self._name}-{self._made}",
            self._endpoints.ws_url,
            group,
            settings=self._settings,
            clock=self._clock,
            now_ms=self._now_ms,
            gate=self._gate,
            connect=self._transport.connect,
            rng=self._rng,
        )
        group.add(slots)
        self._groups.append(group)
        if self._tasks is not None:
            self._tasks.create_task(group.lane.run())

    def heard_trading(self, symbols: Iterable[str], since_ms: int) -> bool:
        """Whether others have seen one of these symbols trade clearly after an instant."""
        traded_ms = self.traded_ms
        return traded_ms is not None and any(traded_ms(symbol) > since_ms + ALIVE_MS for symbol in symbols)

    def alive_besides(self, lane: Lane) -> bool:
        """Whether other connections have had data just now."""
        alive_ms = self._now_ms() - ALIVE_MS
        return any(group.lane is not lane and group.lane.last_data_ms > alive_ms for group in self._groups)


class _Group:
    """The symbols of one lane, and where its messages and events go."""

    lane: Lane

    def __init__(self, streams: TradeStreams) -> None:
        self.slot_of: dict[str, int] = {}
        self._streams = streams
        self._inbox = streams.inbox

    def add(self, slots: Mapping[str, int]) -> None:
        if slots:
            self.slot_of.update(slots)
            self.lane.add({symbol: stream_names(symbol) for symbol in slots})

    def remove(self, symbols: Iterable[str]) -> None:
        gone = [symbol for symbol in symbols if symbol in self.slot_of]
        if gone:
            self.lane.remove(gone)
            for symbol in gone:
                del self.slot_of[symbol]

    def slots(self) -> frozenset[int]:
        """The slots in sight (`inbox.Source`)."""
        return self._slots_of(self.lane.sighted)

    def message(self, payload: bytes, recv_ms: int) -> None:
        self._inbox.put(payload, recv_ms, self)

    def sighted(self, keys: frozenset[str], at_ms: int) -> None:
        self._inbox.tell(Sighted(self._slots_of(keys), at_ms))

    def blind(self, keys: frozenset[str], since_ms: int, reason: str) -> None:
        self._inbox.tell(Blind(self._slots_of(keys), since_ms, reason))

    def traded_since(self, keys: Iterable[str], since_ms: int) -> bool:
        return self._streams.heard_trading(keys, since_ms)

    def others_alive(self) -> bool:
        return self._streams.alive_besides(self.lane)

    def _slots_of(self, keys: Iterable[str]) -> frozenset[int]:
        return frozenset(self.slot_of[key] for key in keys if key in self.slot_of)


def _take(waiting: dict[str, int], count: int) -> Iterator[tuple[str, int]]:
    """Move up to `count` entries out of `waiting`, first come first."""
    for symbol in list(waiting)[: max(count, 0)]:
        yield symbol, waiting.pop(symbol)
