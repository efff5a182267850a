"""Plays a venue to its hub: every event at its market time, in order, late if need be, never lost.

Trades of a minute are queued ahead of it; kline and mini-ticker pushes are ticks that put themselves back. When the loop was
held up, ticks that were missed are merged into one (as the exchange skips pushes under load); trades and closing
klines are all sent.
"""

import asyncio
import hashlib
import json
from dataclasses import dataclass, replace
from functools import partial
from heapq import heappop, heappush
from typing import Final

import numpy as np

from klagg.sim import calendar
from klagg.sim.block import Block, Ints
from klagg.sim.calendar import HOUR_MS, MINUTE_MS
from klagg.sim.candles import COUNT
from klagg.sim.contracts import Contract
from klagg.sim.listing import contract_event
from klagg.sim.settings import EmptyKlinePush
from klagg.sim.streams import Stream
from klagg.sim.venue import Venue
from klagg.sim.wire import Row

STEP_S: Final = 0.01
"""How often due events are sent, in real time."""
LEAD_S: Final = 2.0
"""How far ahead (real time) a minute's trades are queued, at least half a market minute. The queue is bounded by the market
itself: the trades of the minutes within the lead, which the settings' largest rate and number of symbols limit."""
CLOSING_MIN_MS: Final = 5
"""A closing kline push never comes sooner after the close."""
KLINE_KINDS: Final = ("kline", "continuousKline")


@dataclass(frozen=True, slots=True)
class _TradeDue:
    contract: Contract
    block: Block
    index: int
    decided: bool = False
    """Whether its delays are behind it."""


@dataclass(frozen=True, slots=True)
class _ClosingDue:
    name: str
    stream: Stream
    contract: Contract
    open_ms: int


@dataclass(frozen=True, slots=True)
class _ContractDue:
    contract: Contract


@dataclass(frozen=True, slots=True)
class _BoundaryDue:
    boundary_ms: int


@dataclass(frozen=True, slots=True)
class _Tick:
    kind: str
    every_ms: int


_Due = _TradeDue | _ClosingDue | _ContractDue | _BoundaryDue | _Tick


class Feed:
    """The pacing of one venue."""

    def __init__(self, venue: Venue) -> None:
        self._venue = venue
        self._settings = venue.settings
        self._hub = venue.hub
        self._spot = venue.settings.is_spot
        self._batch_ms = venue.settings.own(venue.settings.batch_ms, 100, 0)
        self._lag_ms = venue.settings.own(venue.settings.event_lag_ms, 100, 1)
        self._due: list[tuple[int, int, _Due]] = []
        self._count = 0
        self._queued_to_ms = venue.start_ms // MINUTE_MS * MINUTE_MS
        self._last_event_ms: dict[str, int] = {}
        self._last_push_ms: dict[str, int] = {}
        self._last_price: dict[str, tuple[int, ...]] = {}
        self._prepared_hour = -1
        self._waiting: list[Contract] = []
        self.sent_trades = 0
        """Trades whose time came, with or without a listener."""
        self.lateness_ms = 0
        """How late (market time) the last step began to send its oldest event."""

    async def run(self) -> None:
        """Send until cancelled; `prepare` comes first."""
        while True:
            self.step()
            await asyncio.sleep(STEP_S)

    def prepare(self) -> None:
        """Queue what the first minutes need, before the market's clock runs."""
        start_ms = self._venue.start_ms
        push_ms = self._settings.own(self._settings.kline_push_ms, 250, 2_000)
        ticks = [_Tick("kline", push_ms), _Tick("mini", 1_000)]
        ticks.append(_Tick("single_mini", 1_000 if self._spot else 2_000))
        if self._spot:
            ticks.append(_Tick("kline_1s", 1_000))
        for tick in ticks:
            self._put(start_ms // tick.every_ms * tick.every_ms + tick.every_ms, tick)
        for contract in self._venue.contracts.values():
            edges = (edge for start_ms, end_ms, _ in contract.pauses for edge in (start_ms, end_ms))
            for at_ms in (contract.listed_ms, contract.retired_ms, *edges):
                if at_ms is not None and at_ms >= start_ms and not self._spot:
                    self._put(at_ms, _ContractDue(contract))
        self._queue_ahead(start_ms)

    def step(self) -> None:
        """Send what is due, and queue what comes."""
        now_ms = self._venue.now_ms()
        self._queue_ahead(now_ms)
        self.lateness_ms = max(0, now_ms - self._due[0][0]) if self._due else 0
        while self._due and self._due[0][0] <= now_ms:
            at_ms, _, due = heappop(self._due)
            self._send(at_ms, due, now_ms)
        self._make_next_hour(now_ms)

    def _queue_ahead(self, now_ms: int) -> None:
        lead_ms = max(MINUTE_MS // 2, int(LEAD_S * 1_000 * self._settings.speed))
        while self._queued_to_ms <= now_ms + lead_ms:
            self._queue_minute(self._queued_to_ms)
            self._queued_to_ms += MINUTE_MS

    def announce(self, contract: Contract) -> None:
        """A contract was listed or delisted just now: tell, and queue its trades."""
        now_ms = self._venue.now_ms()
        if not self._spot:
            self._put(now_ms, _ContractDue(contract))
        if contract.retired_ms is None:
            for minute_ms in range(now_ms // MINUTE_MS * MINUTE_MS, self._queued_to_ms, MINUTE_MS):
                self._queue_trades(contract, minute_ms)

    def _put(self, at_ms: int, due: _Due) -> None:
        self._count += 1
        heappush(self._due, (at_ms, self._count, due))

    def _queue_minute(self, minute_ms: int) -> None:
        self._put(minute_ms, _BoundaryDue(minute_ms))
        for contract in self._venue.contracts.values():
            self._queue_trades(contract, minute_ms)

    def _queue_trades(self, contract: Contract, minute_ms: int) -> None:
        block = self._venue.tape.hour(contract, minute_ms // HOUR_MS).between(minute_ms, minute_ms + MINUTE_MS)
        if not len(block):
            return
        for index, at_ms in enumerate(self._event_times(contract, block, minute_ms).tolist()):
            if at_ms >= self._venue.start_ms:
                self._put(at_ms, _TradeDue(contract, block, index))

    def _event_times(self, contract: Contract, block: Block, minute_ms: int) -> Ints:
        """When the stream sends each trade: after its window and a lag with a tail, never out of id order."""
        key = f"{self._settings.seed}:lag:{contract.symbol}:{minute_ms}".encode()
        draw = np.random.default_rng(int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big"))
        if self._batch_ms:
            window = block.time_ms // self._batch_ms
            times = (window + 1) * self._batch_ms + self._lag_ms + draw.integers(0, 20) - 10 * (self._lag_ms >= 10)
        else:
            lag = self._lag_ms + draw.integers(0, 2, len(block))
            slow = draw.random(len(block)) < 0.01
            times = block.time_ms + np.where(slow, self._lag_ms + draw.integers(20, 120, len(block)), lag)
        times[0] = max(int(times[0]), self._last_event_ms.get(contract.symbol, 0))
        times = np.maximum.accumulate(times)
        self._last_event_ms[contract.symbol] = int(times[-1])
        return times

    def _send(self, at_ms: int, due: _Due, now_ms: int) -> None:
        match due:
            case _TradeDue():
                self._send_trade(at_ms, due)
            case _Tick():
                self._send_tick(at_ms, due, now_ms)
            case _BoundaryDue():
                self._queue_closings(due.boundary_ms)
            case _ClosingDue():
                self._send_closing(at_ms, due)
            case _ContractDue():
                text = json.dumps(contract_event(due.contract, at_ms), ensure_ascii=False, separators=(",", ":"))
                self._hub.publish("!contractInfo", lambda _: text)

    def _send_trade(self, at_ms: int, due: _TradeDue) -> None:
        venue, contract, block, i = self._venue, due.contract, due.block, due.index
        if not contract.trades_at(int(block.time_ms[i])):
            return
        stream, symbol = contract.stream, contract.symbol
        agg_id = int(block.agg_id[i])
        if not due.decided and not self._comes_now(at_ms, due, agg_id):
            return
        late_ms = venue.delayed.get(symbol, {}).pop(agg_id, 0)
        if late_ms:
            self._put(at_ms + late_ms, due)
            return
        self.sent_trades += 1
        dropped = venue.dropped.get(symbol)
        if dropped is not None and agg_id in dropped:
            return
        scribe = venue.scribe(contract)
        times = 2 if agg_id in venue.repeated.get(symbol, ()) else 1
        for _ in range(times):
            self._hub.publish(f"{stream}@aggTrade", lambda unit: scribe.agg_trade(block, i, at_ms, unit))
        if self._spot and self._hub.heard(f"{stream}@trade"):
            count = int(block.last_id[i] - block.first_id[i]) + 1
            for k in range(count):
                self._hub.publish(f"{stream}@trade", partial(scribe.single_trade, block, i, k, at_ms))

    def _comes_now(self, at_ms: int, due: _TradeDue, agg_id: int) -> bool:
        """Let the faults decide when a trade comes: whether now, and what is queued for later."""
        faults, time_ms = self._venue.faults, int(due.block.time_ms[due.index])
        delays = faults.trades.arrivals(due.contract.symbol, agg_id, time_ms, at_ms, faults.passed())
        if delays == [0]:
            return True
        for delay_ms in delays:
            self._put(at_ms + delay_ms, replace(due, decided=True))
        return False

    def _send_tick(self, at_ms: int, tick: _Tick, now_ms: int) -> None:
        latest_ms = now_ms // tick.every_ms * tick.every_ms
        if latest_ms > at_ms:
            # Held up: one push for the newest instant stands for those that were missed.
            self._put(latest_ms, tick)
            return
        self._put(at_ms + tick.every_ms, tick)
        if tick.kind == "mini":
            self._send_mini_array(at_ms)
        elif tick.kind == "single_mini":
            self._send_single_minis(at_ms)
        else:
            self._send_klines(at_ms, seconds=tick.kind == "kline_1s")

    def _contract_of(self, stream: Stream) -> Contract | None:
        if stream.kind != "continuousKline":
            return self._venue.by_stream.get(stream.symbol)
        pair, _, kind = stream.symbol.partition("_")
        for contract in self._venue.contracts.values():
            if (contract.base + contract.quote).lower() == pair and contract.contract_type.lower() == kind:
                return contract
        return None

    def _kline_streams(self) -> list[tuple[str, Stream, Contract]]:
        found = []
        for kind in KLINE_KINDS:
            for name, stream in self._hub.named(kind):
                contract = self._contract_of(stream)
                if contract is not None:
                    found.append((name, stream, contract))
        return found

    def _send_klines(self, at_ms: int, *, seconds: bool) -> None:
        """The running candles: on spot all of them, on futures those that had a trade since their last push."""
        traded: dict[str, int] = {}
        for name, stream, contract in self._kline_streams():
            if (stream.interval == "1s") != seconds or not contract.trades_at(at_ms):
                continue
            open_ms = calendar.open_at(stream.interval, at_ms, stream.shift_ms)
            if not self._spot:
                if contract.symbol not in traded:
                    traded[contract.symbol] = self._last_trade_ms(contract, at_ms)
                if traded[contract.symbol] < max(self._last_push_ms.get(name, at_ms - 250) + 1, open_ms):
                    continue
            row = self._venue.candle_at(contract, stream.interval, open_ms, at_ms, stream.shift_ms)
            if row is not None:
                self._last_push_ms[name] = at_ms
                self._publish_kline(name, stream, contract, row, at_ms, closed=False)

    def _last_trade_ms(self, contract: Contract, at_ms: int) -> int:
        """The time of the last trade of this hour up to and at an instant; 0 for none."""
        times = self._venue.tape.hour(contract, at_ms // HOUR_MS).time_ms
        count = int(np.searchsorted(times, at_ms, "right"))
        return int(times[count - 1]) if count else 0

    def _publish_kline(
        self, name: str, stream: Stream, contract: Contract, row: Row, at_ms: int, *, closed: bool
    ) -> None:
        scribe = self._venue.scribe(contract)
        if stream.kind == "continuousKline":
            self._hub.publish(name, lambda _: scribe.continuous_kline_event(stream.interval, row, at_ms, closed=closed))
        else:
            shift_ms = stream.shift_ms
            self._hub.publish(
                name,
                lambda unit: scribe.kline_event(
                    stream.interval, row, at_ms, closed=closed, unit=unit, shift_ms=shift_ms
                ),
            )

    def _queue_closings(self, boundary_ms: int) -> None:
        """Queue the closing push of every heard candle that ends at a boundary, each with its own delay."""
        for name, stream, contract in self._kline_streams():
            open_ms = calendar.open_at(stream.interval, boundary_ms - 1, stream.shift_ms)
            ends = calendar.next_open(stream.interval, open_ms, stream.shift_ms) == boundary_ms
            if not ends or not contract.trades_at(boundary_ms - 1):
                continue
            digest = hashlib.blake2b(f"{self._settings.seed}:close:{name}:{boundary_ms}".encode(), digest_size=4)
            draw = int.from_bytes(digest.digest(), "big") / 2**32
            # Most come soon, a few as late as they may.
            spread_ms = max(0, self._settings.closing_push_max_ms - CLOSING_MIN_MS)
            delay_ms = CLOSING_MIN_MS + int(spread_ms * draw**4)
            self._put(boundary_ms + delay_ms, _ClosingDue(name, stream, contract, open_ms))

    def _send_closing(self, at_ms: int, due: _ClosingDue) -> None:
        stream = due.stream
        end_ms = calendar.next_open(stream.interval, due.open_ms, stream.shift_ms)
        row = self._venue.candle_at(due.contract, stream.interval, due.open_ms, end_ms, stream.shift_ms)
        if row is None:
            return
        if row[COUNT] == 0 and not self._spot and self._settings.empty_kline_push is EmptyKlinePush.NONE:
            return
        self._publish_kline(due.name, stream, due.contract, row, at_ms, closed=True)

    def _changed(self, key: str, row: Row) -> bool:
        state = tuple(row[1:])
        changed = self._last_price.get(key) != state
        self._last_price[key] = state
        return changed

    def _send_mini_array(self, at_ms: int) -> None:
        name = "!miniTicker@arr"
        if not self._hub.heard(name):
            return
        rows = []
        for contract in self._venue.contracts.values():
            if not contract.trades_at(at_ms) or not self._venue.day_at_hand(contract, at_ms):
                continue
            if self._last_trade_ms(contract, at_ms) <= at_ms - 1_000 and contract.symbol in self._last_price:
                continue
            row = self._venue.day_row(contract, at_ms)
            if row is not None and self._changed(contract.symbol, row):
                rows.append((self._venue.scribe(contract), row))
        if not rows:
            return
        others = "" if self._spot else "," + _coin_row(at_ms)
        self._hub.publish(
            name,
            lambda unit: "[" + ",".join(scribe.mini_ticker(row, at_ms, unit) for scribe, row in rows) + others + "]",
        )

    def _send_single_minis(self, at_ms: int) -> None:
        for name, stream in self._hub.named("miniTicker"):
            contract = self._venue.by_stream.get(stream.symbol)
            if contract is None or not contract.trades_at(at_ms) or not self._venue.day_at_hand(contract, at_ms):
                continue
            row = self._venue.day_row(contract, at_ms)
            if row is not None and self._changed(name, row):
                scribe = self._venue.scribe(contract)
                self._hub.publish(name, partial(scribe.mini_ticker, row, at_ms))

    def _make_next_hour(self, now_ms: int) -> None:
        """In the second half of an hour, make the next one's trades symbol by symbol, so that no step is long."""
        hour = (now_ms + HOUR_MS // 2) // HOUR_MS
        if hour != self._prepared_hour:
            self._prepared_hour = hour
            self._waiting = list(self._venue.contracts.values())
        if self._waiting:
            self._venue.tape.hour(self._waiting.pop(), hour)


def _coin_row(at_ms: int) -> str:
    """A COIN-M row, as the merged futures arrays have them since 2026-06-30 (a client keeps `st` 1)."""
    return (
        f'{{"e":"24hrMiniTicker","E":{at_ms},"s":"BTCUSD_PERP","c":"85000.1","o":"84000.0","h":"86000.0","l":"83000.0",'
        f'"v":"{at_ms % 100_000_000}","q":"1234.56780000","ps":"BTCUSD","st":2}}'
    )
