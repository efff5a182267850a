"""A tape with changes: hours in which nobody trades, and prices with more digits from an instant on.

Ids run on without a hole over the trades that a halt takes away, as they would on the exchange.
"""

from dataclasses import dataclass, replace

import numpy as np

from klagg.sim.block import Block
from klagg.sim.calendar import HOUR_MS
from klagg.sim.contracts import Contract
from klagg.sim.tape import Tape

DAYS_SEARCHED = 2
"""A symbol trades every day: its first trade is found within these."""


@dataclass(frozen=True, slots=True)
class Finer:
    """More digits from `at_ms` on."""

    at_ms: int
    price_digits: int
    quantity_digits: int


@dataclass(frozen=True, slots=True)
class _Halt:
    start_ms: int
    end_ms: int
    first_agg_id: int
    aggregates: int
    """How many the halt takes away."""
    trades: int
    """How many trade ids these had."""


class AlteredTape:
    """A tape behind its changes."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self._spans: dict[str, list[tuple[int, int]]] = {}
        self._halts: dict[str, list[_Halt]] = {}
        self._finer: dict[str, Finer] = {}
        self._plain: dict[str, tuple[int, int, int, int]] = {}
        self._first_ms: dict[str, int | None] = {}

    @property
    def changes(self) -> bool:
        """Whether there are any."""
        return bool(self._spans or self._finer)

    def halt(self, contract: Contract, start_ms: int, end_ms: int) -> None:
        """Nobody trades in `[start_ms, end_ms)`."""
        self._spans[contract.symbol] = sorted([*self._spans.get(contract.symbol, []), (start_ms, end_ms)])

    def refine(self, contract: Contract, finer: Finer) -> None:
        """Prices and quantities have more digits from an instant on; the contract's grid is changed for good."""
        symbol = contract.symbol
        self._plain[symbol] = (contract.price_decimals, contract.tick, contract.qty_decimals, contract.step)
        self._finer[symbol] = finer
        contract.price_decimals += finer.price_digits
        contract.qty_decimals += finer.quantity_digits
        contract.finer_from_ms = finer.at_ms
        contract.coarse_tick = contract.tick * 10**finer.price_digits
        contract.coarse_step = contract.step * 10**finer.quantity_digits

    def hour(self, contract: Contract, hour: int) -> Block:
        """See `Tape`."""
        block = self._tape.hour(self._before(contract), hour)
        if contract.symbol in self._spans:
            block = self._without_halts(contract, block)
        finer = self._finer.get(contract.symbol)
        return block if finer is None else _finer(block, finer)

    def hour_of_id(self, contract: Contract, agg_id: int) -> int:
        """See `Tape`."""
        for halt in self._halts_of(contract):
            if agg_id >= halt.first_agg_id:
                agg_id += halt.aggregates
        return self._tape.hour_of_id(self._before(contract), agg_id)

    def first_trade_ms(self, contract: Contract) -> int | None:
        """See `Tape`."""
        symbol = contract.symbol
        if symbol not in self._first_ms:
            first_ms = self._tape.first_trade_ms(self._before(contract))
            if first_ms is not None and symbol in self._spans:
                hours = range(first_ms // HOUR_MS, first_ms // HOUR_MS + 24 * DAYS_SEARCHED)
                blocks = (self.hour(contract, hour) for hour in hours)
                first_ms = next((int(block.time_ms[0]) for block in blocks if len(block)), None)
            self._first_ms[symbol] = first_ms
        return self._first_ms[symbol]

    def last_price_before(self, contract: Contract, t_ms: int) -> int | None:
        """See `Tape`."""
        if contract.symbol not in self._spans and contract.symbol not in self._finer:
            return self._tape.last_price_before(contract, t_ms)
        first_ms = self.first_trade_ms(contract)
        if first_ms is None:
            return None
        for hour in range((t_ms - 1) // HOUR_MS, first_ms // HOUR_MS - 1, -1):
            block = self.hour(contract, hour).between(0, t_ms)
            if len(block):
                return int(block.price[-1])
        return None

    def forget(self, contract: Contract) -> None:
        """See `Tape`."""
        self._first_ms.pop(contract.symbol, None)
        self._tape.forget(contract)

    def _before(self, contract: Contract) -> Contract:
        """The contract as the tape behind knows it."""
        plain = self._plain.get(contract.symbol)
        if plain is None:
            return contract
        price_decimals, tick, qty_decimals, step = plain
        return replace(contract, price_decimals=price_decimals, tick=tick, qty_decimals=qty_decimals, step=step)

    def _halts_of(self, contract: Contract) -> list[_Halt]:
        symbol = contract.symbol
        if symbol not in self._halts:
            found, taken = [], 0
            for start_ms, end_ms in self._spans.get(symbol, []):
                hours = range(start_ms // HOUR_MS, -(-end_ms // HOUR_MS))
                block = Block.joined([self._tape.hour(self._before(contract), hour) for hour in hours])
                block = block.between(start_ms, end_ms)
                if len(block):
                    trades = int(block.last_id[-1] - block.first_id[0]) + 1
                    found.append(_Halt(start_ms, end_ms, int(block.agg_id[0]) - taken, len(block), trades))
                    taken += len(block)
            self._halts[symbol] = found
        return self._halts[symbol]

    def _without_halts(self, contract: Contract, block: Block) -> Block:
        aggregates = np.zeros(len(block), np.int64)
        trades = np.zeros(len(block), np.int64)
        kept = np.ones(len(block), np.bool_)
        for halt in self._halts_of(contract):
            after = block.time_ms >= halt.end_ms
            aggregates += after * halt.aggregates
            trades += after * halt.trades
            kept &= after | (block.time_ms < halt.start_ms)
        columns = (
            block.agg_id - aggregates,
            block.price,
            block.qty,
            block.first_id - trades,
            block.last_id - trades,
            block.time_ms,
            block.maker,
        )
        return Block(*(column[kept] for column in columns))


def _finer(block: Block, finer: Finer) -> Block:
    """The trades on the finer grid; from the change on they use it."""
    later = block.time_ms >= finer.at_ms
    price_unit, qty_unit = 10**finer.price_digits, 10**finer.quantity_digits
    price = block.price * price_unit + later * (block.agg_id * 7 % price_unit)
    qty = block.qty * qty_unit + later * (block.agg_id * 3 % qty_unit)
    return Block(block.agg_id, price, qty, block.first_id, block.last_id, block.time_ms, block.maker)
