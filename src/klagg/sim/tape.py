"""The trades of a market: a tape that can be read at any hour, and the synthetic one made from a seed.

The synthetic tape is counter-based: what happens in an hour is drawn from a generator keyed by (seed, symbol, hour), so any
hour can be made alone and always comes out the same. Ids run on across hours without summing history because every full
UTC day of a symbol has the same number of aggregates.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from klagg.model import Market
from klagg.sim.block import Block, Ints
from klagg.sim.calendar import HOUR_MS, MINUTE_MS
from klagg.sim.contracts import Contract

BLOCK_CACHE_BYTES: Final = 96 * 2**20
"""Hours of trades kept: a live hour of a whole market is some MB; beyond it the least recently read are made anew."""
PLAN_CACHE: Final = 2_000
"""Day plans kept (23 KB each): a month of 64 symbols; beyond it the least recently read are made anew."""
MINUTE_SIGMA: Final = 0.0007
"""Standard deviation of the log price over a minute."""


class Tape(Protocol):
    """Where trades come from. Hours are counted from 1970."""

    def hour(self, contract: Contract, hour: int) -> Block:
        """The aggregates of one hour within the contract's life, those of the future included."""

    def hour_of_id(self, contract: Contract, agg_id: int) -> int:
        """An hour that has the aggregate of that id or, if none has it, one before the first later id."""

    def first_trade_ms(self, contract: Contract) -> int | None:
        """When the contract's first trade was (or will be), if there is any."""

    def last_price_before(self, contract: Contract, t_ms: int) -> int | None:
        """The price of the last trade before an instant."""

    def forget(self, contract: Contract) -> None:
        """Drop what was derived from the contract's life, which has changed."""


@dataclass(frozen=True, slots=True)
class _DayPlan:
    """A day of a symbol: aggregates before each minute (1441), and log price at each minute's start (1441)."""

    before: Ints
    log_price: npt.NDArray[np.float64]


class SyntheticTape:
    """A market made from a seed (see the module)."""

    def __init__(self, seed: int, market: Market) -> None:
        self._seed = seed
        self._market = market
        self._plans: OrderedDict[tuple[str, int], _DayPlan] = OrderedDict()
        self._blocks: OrderedDict[tuple[str, int], Block] = OrderedDict()
        self._block_bytes = 0
        self._first_ms: dict[str, int | None] = {}
        self._id_base: dict[str, tuple[int, int]] = {}

    def hour(self, contract: Contract, hour: int) -> Block:
        """See `Tape`."""
        start_ms = hour * HOUR_MS
        if start_ms + HOUR_MS <= contract.listed_ms:
            return Block.empty()
        if contract.retired_ms is not None and start_ms >= contract.retired_ms:
            return Block.empty()
        block = self._whole_hour(contract, hour)
        end_ms = start_ms + HOUR_MS if contract.retired_ms is None else contract.retired_ms
        block = block.between(contract.listed_ms, end_ms)
        if contract.numbered_from_listing and len(block):
            agg_base, trade_base = self._bases(contract)
            ids = (block.agg_id - agg_base, block.first_id - trade_base, block.last_id - trade_base)
            block = Block(ids[0], block.price, block.qty, ids[1], ids[2], block.time_ms, block.maker)
        return block

    def hour_of_id(self, contract: Contract, agg_id: int) -> int:
        """See `Tape`."""
        absolute = agg_id + (self._bases(contract)[0] if contract.numbered_from_listing else 0)
        day, in_day = divmod(absolute, contract.per_day)
        minute = int(np.searchsorted(self._plan(contract, day).before, in_day, "right")) - 1
        return day * 24 + minute // 60

    def first_trade_ms(self, contract: Contract) -> int | None:
        """See `Tape`."""
        if contract.symbol not in self._first_ms:
            self._first_ms[contract.symbol] = self._find_first(contract)
        return self._first_ms[contract.symbol]

    def last_price_before(self, contract: Contract, t_ms: int) -> int | None:
        """See `Tape`."""
        first_ms = self.first_trade_ms(contract)
        if first_ms is None or first_ms >= t_ms:
            return None
        if contract.retired_ms is not None:
            t_ms = min(t_ms, contract.retired_ms)
        hour = (t_ms - 1) // HOUR_MS
        while hour >= first_ms // HOUR_MS:
            block = self.hour(contract, hour)
            count = int(np.searchsorted(block.time_ms, t_ms, "left"))
            if count:
                return int(block.price[count - 1])
            hour -= 1
        return None

    def forget(self, contract: Contract) -> None:
        """See `Tape`."""
        self._first_ms.pop(contract.symbol, None)
        self._id_base.pop(contract.symbol, None)

    def _find_first(self, contract: Contract) -> int | None:
        # Every day of a symbol has trades, so the second day after the listing is always far enough.
        for hour in range(contract.listed_ms // HOUR_MS, contract.listed_ms // HOUR_MS + 49):
            block = self.hour(contract, hour)
            if len(block):
                return int(block.time_ms[0])
        return None

    def _bases(self, contract: Contract) -> tuple[int, int]:
        """What to take off the absolute aggregate and trade ids so that the first after the listing is 1."""
        if contract.symbol not in self._id_base:
            for hour in range(contract.listed_ms // HOUR_MS, contract.listed_ms // HOUR_MS + 49):
                block = self._whole_hour(contract, hour)
                block = block.between(contract.listed_ms, (hour + 1) * HOUR_MS)
                if len(block):
                    self._id_base[contract.symbol] = (int(block.agg_id[0]) - 1, int(block.first_id[0]) - 1)
                    break
        return self._id_base[contract.symbol]

    def _generator(self, what: str, contract: Contract, index: int) -> np.random.Generator:
        # An asset drifts alike on both markets; its trades are each market's own.
        own = contract.base if what.startswith("drift") else f"{self._market}:{contract.symbol}"
        name = f"{self._seed}:{what}:{own}:{index}".encode()
        key = int.from_bytes(hashlib.blake2b(name, digest_size=16).digest(), "big")
        return np.random.Generator(np.random.Philox(key=key))

    def _day_log_price(self, contract: Contract, day: int) -> float:
        """The log price at a day's start: noise of three periods around the base price, so that it never runs away."""
        log_price = float(np.log(contract.base_price))
        for period, size in ((1, 0.012), (7, 0.04), (30, 0.10)):
            index, within = divmod(day, period)
            left = self._generator(f"drift{period}", contract, index).normal()
            right = self._generator(f"drift{period}", contract, index + 1).normal()
            log_price += size * (left + (right - left) * within / period)
        return log_price

    def _plan(self, contract: Contract, day: int) -> _DayPlan:
        key = (contract.symbol, day)
        plan = self._plans.get(key)
        if plan is not None:
            self._plans.move_to_end(key)
            return plan
        draw = self._generator("day", contract, day)
        activity = np.exp(0.4 * np.repeat(draw.normal(size=24), 60) + 0.7 * draw.normal(size=1440))
        activity[draw.random(1440) < 0.004] *= 10.0
        counts = draw.multinomial(contract.per_day, activity / activity.sum())
        before = np.zeros(1441, np.int64)
        np.cumsum(counts, out=before[1:])
        # A Brownian bridge from this day's price to the next one's, livelier where there is more activity.
        walk = np.zeros(1441)
        np.cumsum(draw.normal(size=1440) * MINUTE_SIGMA * np.sqrt(activity), out=walk[1:])
        start, end = self._day_log_price(contract, day), self._day_log_price(contract, day + 1)
        plan = _DayPlan(before, start + walk + (end - start - walk[-1]) * np.linspace(0.0, 1.0, 1441))
        self._plans[key] = plan
        if len(self._plans) > PLAN_CACHE:
            self._plans.popitem(last=False)
        return plan

    def _whole_hour(self, contract: Contract, hour: int) -> Block:
        key = (contract.symbol, hour)
        block = self._blocks.get(key)
        if block is not None:
            self._blocks.move_to_end(key)
            return block
        block = self._draw_hour(contract, hour)
        self._blocks[key] = block
        self._block_bytes += block.nbytes
        while self._block_bytes > BLOCK_CACHE_BYTES and len(self._blocks) > 1:
            self._block_bytes -= self._blocks.popitem(last=False)[1].nbytes
        return block

    def _draw_hour(self, contract: Contract, hour: int) -> Block:
        day, first_minute = hour // 24, hour % 24 * 60
        plan = self._plan(contract, day)
        before = plan.before[first_minute : first_minute + 61]
        count = int(before[-1] - before[0])
        if count == 0:
            return Block.empty()
        draw = self._generator("hour", contract, hour)
        minute = np.repeat(np.arange(60), np.diff(before))
        time = self._draw_times(draw, minute)
        log_price = plan.log_price[first_minute : first_minute + 61]
        path = log_price[minute] + np.diff(log_price)[minute] * (time % MINUTE_MS) / MINUTE_MS
        path += draw.normal(size=count) * (MINUTE_SIGMA * 0.2)
        unit = contract.tick / 10**contract.price_decimals
        level = np.rint(np.exp(path) / unit).astype(np.int64)
        # The book moves with one trade in three only; the others hit the level that stands.
        moves = draw.random(count) < 0.35
        level = level[np.maximum.accumulate(np.where(moves, np.arange(count), 0))]
        maker = (np.cumsum(draw.random(count) < 0.3) + hour) % 2
        price = np.maximum(level + 1 - maker, 1) * contract.tick
        steps = 120.0 / contract.base_price * 10**contract.qty_decimals / contract.step
        qty = np.maximum(np.rint(steps * np.exp(1.3 * draw.normal(size=count))), 1.0).astype(np.int64) * contract.step
        first, last = self._draw_trade_ids(draw, day * contract.per_day + int(before[0]), count)
        agg_id = day * contract.per_day + int(before[0]) + np.arange(count, dtype=np.int64)
        return Block(agg_id, price, qty, first, last, hour * HOUR_MS + time, maker.astype(np.int64))

    @staticmethod
    def _draw_times(draw: np.random.Generator, minute: Ints) -> Ints:
        """Times within the hour, ascending, as many in each minute as `minute` has: a third in bursts, many of one ms."""
        count = len(minute)
        offset = draw.integers(0, MINUTE_MS, count)
        centre = draw.integers(0, MINUTE_MS, (60, 4))[minute, draw.integers(0, 4, count)]
        burst = np.minimum(centre + draw.exponential(60.0, count).astype(np.int64), MINUTE_MS - 1)
        time = np.sort(minute * MINUTE_MS + np.where(draw.random(count) < 0.35, burst, offset))
        own = draw.random(count) > 0.4
        own[0] = True
        own[1:] |= minute[1:] != minute[:-1]
        return time[np.maximum.accumulate(np.where(own, np.arange(count), 0))]

    def _draw_trade_ids(self, draw: np.random.Generator, before: int, count: int) -> tuple[Ints, Ints]:
        """First and last trade ids of `count` aggregates that have `before` others before them in all time.

        Trade ids run at 5/4 of the aggregates' pace; on futures some belong to no aggregate (insurance fund, ADL).
        """
        start, end = before * 5 // 4, (before + count) * 5 // 4
        span = 1 + np.bincount(draw.integers(0, count, end - start - count), minlength=count).astype(np.int64)
        last = start + np.cumsum(span) - 1
        first = last - span + 1
        if self._market is Market.USDM:
            first = np.where(draw.random(count) < 0.08, last, first)
        return first, last
