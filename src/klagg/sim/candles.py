"""The exchange's own candles, computed from the trades by plain means: group, add, compare.

A table of candles is an int64 array of twelve rows (one per column below) and one column per candle. Prices, volumes and
quote volumes are whole numbers of the contract's smallest written units (quote: 10^-(price_decimals + qty_decimals)).
"""

from collections import OrderedDict
from itertools import islice
from typing import Final

import numpy as np

from klagg.sim import calendar
from klagg.sim.block import Block, Ints
from klagg.sim.calendar import HOUR_MS, MINUTE_MS, SECOND_MS
from klagg.sim.contracts import Contract
from klagg.sim.tape import Tape

OPEN_MS, OPEN, HIGH, LOW, CLOSE, VOLUME, QUOTE, COUNT, TAKER_VOLUME, TAKER_QUOTE, FIRST, LAST = range(12)

HOUR_TABLES: Final = 6_000
"""Tables of an hour's minutes kept (6 KB each); beyond it the least recently read are made anew."""
HOUR_ROWS: Final = 100_000
"""Candles of one hour kept (0.2 KB each): a month of 130 symbols; beyond it the least recently read are made anew."""


def _no_rows() -> Ints:
    return np.zeros((12, 0), np.int64)


def group(block: Block, opens: Ints, last_price: int) -> Ints:
    """The candles that open at `opens` (ascending; the last one has no end) from trades at or after the first.

    A candle without trades is flat at the price before it, `last_price` before the first.
    """
    table = np.zeros((12, len(opens)), np.int64)
    table[OPEN_MS] = opens
    table[FIRST] = table[LAST] = -1
    place = np.searchsorted(opens, block.time_ms, "right") - 1
    busy, starts = np.unique(place, return_index=True)
    if len(busy):
        ends = np.append(starts[1:], len(block)) - 1
        quote = block.price * block.qty
        taker = 1 - block.maker
        table[OPEN, busy] = block.price[starts]
        table[HIGH, busy] = np.maximum.reduceat(block.price, starts)
        table[LOW, busy] = np.minimum.reduceat(block.price, starts)
        table[CLOSE, busy] = block.price[ends]
        table[VOLUME, busy] = np.add.reduceat(block.qty, starts)
        table[QUOTE, busy] = np.add.reduceat(quote, starts)
        table[COUNT, busy] = np.add.reduceat(block.last_id - block.first_id + 1, starts)
        table[TAKER_VOLUME, busy] = np.add.reduceat(block.qty * taker, starts)
        table[TAKER_QUOTE, busy] = np.add.reduceat(quote * taker, starts)
        table[FIRST, busy] = block.first_id[starts]
        table[LAST, busy] = block.last_id[ends]
    _flatten(table, last_price)
    return table


def fold(children: Ints, opens: Ints) -> Ints:
    """The candles that open at `opens` from shorter ones that tile them; children without trades give no open, high, low."""
    table = np.zeros((12, len(opens)), np.int64)
    table[OPEN_MS] = opens
    table[FIRST] = table[LAST] = -1
    if not children.shape[1]:
        return table
    traded = children[:, children[COUNT] > 0]
    busy, starts = np.unique(np.searchsorted(opens, traded[OPEN_MS], "right") - 1, return_index=True)
    if len(busy):
        ends = np.append(starts[1:], traded.shape[1]) - 1
        for column, at in ((OPEN, starts), (FIRST, starts), (CLOSE, ends), (LAST, ends)):
            table[column, busy] = traded[column, at]
        table[HIGH, busy] = np.maximum.reduceat(traded[HIGH], starts)
        table[LOW, busy] = np.minimum.reduceat(traded[LOW], starts)
        for column in (VOLUME, QUOTE, COUNT, TAKER_VOLUME, TAKER_QUOTE):
            table[column, busy] = np.add.reduceat(traded[column], starts)
    # A flat child carries the price before it, which is what a flat parent needs.
    _flatten(table, int(children[CLOSE, 0]))
    return table


def _flatten(table: Ints, last_price: int) -> None:
    """Set open, high, low and close of the candles without trades to the close before them."""
    empty = table[COUNT] == 0
    if not empty.any():
        return
    source = np.maximum.accumulate(np.where(empty, -1, np.arange(table.shape[1])))
    close = np.where(source >= 0, table[CLOSE, source], last_price)
    for column in (OPEN, HIGH, LOW, CLOSE):
        table[column, empty] = close[empty]


class CandleBook:
    """Candles of any interval, as the exchange's kline endpoint has them at a given time."""

    def __init__(self, tape: Tape, *, flat_after_retirement: bool) -> None:
        self._tape = tape
        self._flat_after_retirement = flat_after_retirement
        self._tables: OrderedDict[tuple[str, int], Ints] = OrderedDict()
        self._rows: OrderedDict[tuple[str, int], Ints] = OrderedDict()

    def forget(self, symbol: str) -> None:
        """Drop what was computed for a symbol whose life has changed."""
        for cache in (self._tables, self._rows):
            for key in [key for key in cache if key[0] == symbol]:
                del cache[key]

    def life(self, contract: Contract, now_ms: int) -> tuple[int, int] | None:
        """The first minute with a candle and the end (exclusive) of the last, at `now_ms`; None if there is none yet."""
        first_ms = self._tape.first_trade_ms(contract)
        if first_ms is None or first_ms > now_ms:
            return None
        end_ms = now_ms // MINUTE_MS * MINUTE_MS + MINUTE_MS
        if contract.retired_ms is not None and not self._flat_after_retirement:
            end_ms = min(end_ms, -(-contract.retired_ms // MINUTE_MS) * MINUTE_MS)
        return first_ms // MINUTE_MS * MINUTE_MS, end_ms

    def select(
        self,
        contract: Contract,
        interval: str,
        *,
        start_ms: int | None,
        end_ms: int | None,
        limit: int,
        now_ms: int,
        shift_ms: int = 0,
    ) -> list[int]:
        """The opens a kline request gets, ascending: of those in `[start_ms, end_ms]` that exist `limit` at most.

        With a start the oldest ones, else the latest.
        """
        life = self.life(contract, now_ms)
        if life is None:
            return []
        unit_ms = SECOND_MS if interval == "1s" else MINUTE_MS
        first_ms = calendar.open_at(interval, life[0], shift_ms)
        last_ms = min(life[1] - 1, now_ms // unit_ms * unit_ms)
        upto_ms = last_ms if end_ms is None else min(last_ms, end_ms)
        if start_ms is not None:
            opens = calendar.opens_from(interval, max(first_ms, start_ms), upto_ms + 1, shift_ms)
            return list(islice(opens, limit))
        if upto_ms < first_ms:
            return []
        return list(islice(calendar.opens_before(interval, upto_ms + 1, first_ms, shift_ms), limit))[::-1]

    def hours_of(self, contract: Contract, interval: str, opens: list[int], now_ms: int, shift_ms: int = 0) -> range:
        """The hours of trades that the candles at `opens` are made of."""
        if not opens:
            return range(0)
        first_ms = max(opens[0], self._tape.first_trade_ms(contract) or 0)
        last_ms = min(calendar.next_open(interval, opens[-1], shift_ms) - 1, now_ms)
        return range(first_ms // HOUR_MS, last_ms // HOUR_MS + 1)

    def ready(self, contract: Contract, hour: int) -> bool:
        """Whether an hour's candles need no making."""
        key = (contract.symbol, hour)
        return key in self._rows or key in self._tables

    def candles(self, contract: Contract, interval: str, opens: list[int], now_ms: int, shift_ms: int = 0) -> Ints:
        """The candles at `opens` (consecutive, existing) from the trades up to and at `now_ms`."""
        life = self.life(contract, now_ms)
        if not opens or life is None:
            return _no_rows()
        start_ms = max(opens[0], life[0])
        end_ms = min(calendar.next_open(interval, opens[-1], shift_ms), life[1])
        if interval == "1s":
            return self._seconds(contract, np.array(opens, np.int64), end_ms, now_ms)
        by_hour = interval not in ("1m", "3m", "5m", "15m", "30m") and shift_ms % HOUR_MS == 0
        children = self._children(contract, start_ms, end_ms, now_ms, by_hour=by_hour)
        return children if interval == "1m" else fold(children, np.array(opens, np.int64))

    def window(self, contract: Contract, start_ms: int, end_ms: int) -> list[int] | None:
        """One candle of the whole minutes of `[start_ms, end_ms)`, both minute boundaries; None if there are none."""
        life = self.life(contract, end_ms - 1)
        if life is None or max(start_ms, life[0]) >= min(end_ms, life[1]):
            return None
        children = self._children(contract, max(start_ms, life[0]), min(end_ms, life[1]), end_ms, by_hour=True)
        row: list[int] = fold(children, np.array([start_ms], np.int64))[:, 0].tolist()
        return row

    def _children(self, contract: Contract, start_ms: int, end_ms: int, now_ms: int, *, by_hour: bool) -> Ints:
        """Minutes of `[start_ms, end_ms)`, and with `by_hour` hours where these are whole and over."""
        running_ms = now_ms // MINUTE_MS * MINUTE_MS
        parts = []
        for hour in range(start_ms // HOUR_MS, -(-end_ms // HOUR_MS)):
            hour_ms = hour * HOUR_MS
            whole = hour_ms >= start_ms and hour_ms + HOUR_MS <= min(end_ms, running_ms)
            if by_hour and whole:
                parts.append(self.hour_row(contract, hour))
                continue
            table = self.hour_table(contract, hour)
            low = max(0, (start_ms - hour_ms) // MINUTE_MS)
            high = min(60, (min(end_ms, running_ms) - hour_ms) // MINUTE_MS)
            parts.append(table[:, low : max(low, high)])
            if hour_ms <= running_ms < min(hour_ms + HOUR_MS, end_ms):
                parts.append(self._running_minute(contract, running_ms, now_ms))
        return np.concatenate(parts, axis=1) if parts else _no_rows()

    def _running_minute(self, contract: Contract, minute_ms: int, now_ms: int) -> Ints:
        """The minute's candle from its trades up to and at `now_ms`."""
        block = self._tape.hour(contract, minute_ms // HOUR_MS).between(minute_ms, now_ms + 1)
        place = (minute_ms % HOUR_MS) // MINUTE_MS
        if place:
            last_price = int(self.hour_table(contract, minute_ms // HOUR_MS)[CLOSE, place - 1])
        else:
            last_price = self._tape.last_price_before(contract, minute_ms) or 0
        return group(block, np.array([minute_ms], np.int64), last_price)

    def _seconds(self, contract: Contract, opens: Ints, end_ms: int, now_ms: int) -> Ints:
        start_ms = int(opens[0])
        hours = range(start_ms // HOUR_MS, (end_ms - 1) // HOUR_MS + 1)
        blocks = [self._tape.hour(contract, hour).between(start_ms, min(end_ms, now_ms + 1)) for hour in hours]
        return group(Block.joined(blocks), opens, self._tape.last_price_before(contract, start_ms) or 0)

    def hour_table(self, contract: Contract, hour: int) -> Ints:
        """The sixty minutes of an hour as they will be when all of it is over."""
        key = (contract.symbol, hour)
        table = self._tables.get(key)
        if table is not None:
            self._tables.move_to_end(key)
            return table
        block = self._tape.hour(contract, hour)
        opens = hour * HOUR_MS + np.arange(60, dtype=np.int64) * MINUTE_MS
        needs_price = not len(block) or int(block.time_ms[0]) >= hour * HOUR_MS + MINUTE_MS
        last_price = (self._tape.last_price_before(contract, hour * HOUR_MS) or 0) if needs_price else 0
        table = group(block, opens, last_price)
        self._tables[key] = table
        if len(self._tables) > HOUR_TABLES:
            self._tables.popitem(last=False)
        return table

    def hour_row(self, contract: Contract, hour: int) -> Ints:
        """The candle of a whole hour that is over."""
        key = (contract.symbol, hour)
        row = self._rows.get(key)
        if row is not None:
            self._rows.move_to_end(key)
            return row
        row = fold(self.hour_table(contract, hour), np.array([hour * HOUR_MS], np.int64))
        self._rows[key] = row
        if len(self._rows) > HOUR_ROWS:
            self._rows.popitem(last=False)
        return row
