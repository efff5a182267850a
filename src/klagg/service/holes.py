"""The way of a hole in the ids from the engine to the exchange, and of its trades back."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from klagg.clock import Clock
from klagg.engine.engine import Hole
from klagg.errors import ExchangeError
from klagg.model import Market
from klagg.repair.holes import Holes
from klagg.service.aside import put_aside
from klagg.service.recent import Recent
from klagg.service.shard import ShardCore

log = structlog.get_logger()

LOOK_S: Final = 0.5
"""How often the engines are asked for holes."""


class HoleFilling:
    """Looks for holes in the ids of all shards, and applies the trades that fill them like live ones."""

    def __init__(
        self,
        market: Market,
        cores: Sequence[ShardCore],
        holes: Holes,
        *,
        clock: Clock,
        now_ms: Callable[[], int],
        recent: Recent,
    ) -> None:
        self.filled = 0
        self._market = market
        self._cores = cores
        self._holes = holes
        self._clock = clock
        self._now_ms = now_ms
        self._recent = recent
        self._asking: set[tuple[int, int]] = set()

    async def run(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._clock.sleep(LOOK_S)
                for number, core in enumerate(self._cores):
                    for hole in core.engine.holes():
                        if (number, hole.slot) not in self._asking and self._holes.is_worth(hole):
                            self._asking.add((number, hole.slot))
                            tasks.create_task(self._fill(number, core, hole))

    async def _fill(self, number: int, core: ShardCore, hole: Hole) -> None:
        symbol = core.symbol(hole.slot)
        try:
            trades = await self._holes.trades(symbol, hole)
            if core.slots.get(symbol) != hole.slot:
                return
            trades["slot"] = hole.slot
            core.apply(trades, self._now_ms())
        except ExchangeError as error:
            log.warning("repair.failed", market=self._market.value, symbol=symbol, reason=str(error))
            return
        except Exception as error:  # noqa: BLE001 - put on record, with its traceback
            put_aside(self._recent, self._market, [symbol], error)
            return
        finally:
            self._asking.discard((number, hole.slot))
        self.filled += 1
        log.info("repair.hole_filled", market=self._market.value, symbol=symbol, trades=len(trades))
