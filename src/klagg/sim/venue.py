"""One market of the offline exchange: its clock, contracts, trades and candles, and what can be done to it."""

import time
from collections.abc import Iterable, Sequence

import numpy as np

from klagg.errors import UsageError
from klagg.model import Market
from klagg.sim import calendar
from klagg.sim.block import Block
from klagg.sim.calendar import DAY_MS, HOUR_MS, MINUTE_MS
from klagg.sim.candles import CLOSE, COUNT, FIRST, HIGH, LAST, LOW, QUOTE, TAKER_QUOTE, TAKER_VOLUME, VOLUME, CandleBook
from klagg.sim.contracts import Contract, fresh_contract, synthetic_contracts
from klagg.sim.faults import Faults
from klagg.sim.hub import Hub
from klagg.sim.settings import ExchangeSettings
from klagg.sim.tape import SyntheticTape, Tape
from klagg.sim.wire import Row, Scribe


class Venue:
    """The market itself; the REST side reads it, the feed plays it to the hub."""

    def __init__(self, settings: ExchangeSettings, start_ms: int, contracts: Sequence[Contract], tape: Tape) -> None:
        self.settings = settings
        self.start_ms = start_ms
        self.tape = tape
        self.book = CandleBook(tape, flat_after_retirement=not settings.is_spot)
        self.faults = Faults(settings, start_ms, self.passed_ms)
        self.hub = Hub(self.faults.messages.harm)
        self.contracts: dict[str, Contract] = {contract.symbol: contract for contract in contracts}
        self.by_stream = {contract.stream: contract for contract in contracts}
        self._scribes: dict[str, Scribe] = {}
        self._minutes: dict[tuple[str, str, int], tuple[int, Row | None]] = {}
        self._origin_ns = time.monotonic_ns()
        self._offset_ms = 0
        self.dropped: dict[str, set[int]] = {}
        """Aggregate ids, by symbol, that the stream leaves out."""
        self.delayed: dict[str, dict[int, int]] = {}
        """By symbol and aggregate id, how much later the stream has it (ms)."""
        self.repeated: dict[str, set[int]] = {}
        """Aggregate ids, by symbol, that the stream has twice."""

    @classmethod
    def synthetic(cls, settings: ExchangeSettings) -> "Venue":
        """A market made from the seed."""
        tape, contracts, start_ms = synthetic_market(settings)
        return cls(settings, start_ms, contracts, tape)

    @property
    def market(self) -> Market:
        """Which market it is."""
        return self.settings.market

    def begin(self) -> None:
        """Let the market's clock run from the start instant now."""
        self._origin_ns = time.monotonic_ns()

    def now_ms(self) -> int:
        """The market's time."""
        passed_ms = self.passed_ms()
        return self.start_ms + self._offset_ms + passed_ms + self.faults.time.shift_ms(passed_ms)

    def passed_ms(self) -> int:
        """How long the market has been running, by a clock that nothing puts wrong."""
        return int((time.monotonic_ns() - self._origin_ns) * self.settings.speed // 1_000_000)

    def set_offset(self, offset_ms: int) -> None:
        """Put the market's clock this far from where it would be."""
        self._offset_ms = offset_ms

    def contract(self, symbol: str) -> Contract:
        """The contract of a symbol.

        Raises:
            UsageError: there is none.
        """
        contract = self.contracts.get(symbol)
        if contract is None:
            raise UsageError(f"exchange: {self.market} has no symbol {symbol!r}; see its exchangeInfo for those it has")
        return contract

    def scribe(self, contract: Contract) -> Scribe:
        """The writer of a contract's numbers."""
        scribe = self._scribes.get(contract.symbol)
        if scribe is None:
            scribe = self._scribes[contract.symbol] = Scribe(contract, spot=self.settings.is_spot)
        return scribe

    def list_symbol(self, symbol: str) -> Contract:
        """Let a new symbol trade from now on.

        Raises:
            UsageError: the symbol is there already.
        """
        if symbol in self.contracts:
            raise UsageError(f"exchange: {symbol} is listed already; choose another name")
        contract = fresh_contract(self.settings, symbol, self.now_ms())
        self.contracts[symbol] = contract
        self.by_stream[contract.stream] = contract
        return contract

    def delist_symbol(self, symbol: str) -> Contract:
        """Let a symbol's trading end now."""
        contract = self.contract(symbol)
        contract.retired_ms = self.now_ms()
        self.tape.forget(contract)
        self.book.forget(symbol)
        return contract

    def trades(self, symbol: str, start_ms: int, end_ms: int) -> Block:
        """The aggregates of `[start_ms, end_ms)`, those of the future included."""
        contract = self.contract(symbol)
        hours = range(start_ms // HOUR_MS, -(-end_ms // HOUR_MS))
        return Block.joined([self.tape.hour(contract, hour) for hour in hours]).between(start_ms, end_ms)

    def rows(self, contract: Contract, interval: str, opens: list[int], shift_ms: int = 0) -> list[list[int]]:
        """The candles at `opens` as they are now."""
        rows: list[list[int]] = self.book.candles(contract, interval, opens, self.now_ms(), shift_ms).T.tolist()
        return rows

    def klines(self, symbol: str, interval: str, start_ms: int, end_ms: int) -> list[list[int | str]]:
        """The kline rows that open in `[start_ms, end_ms)`, as the REST endpoint gives them, without its limit."""
        contract, scribe = self.contract(symbol), self.scribe(self.contract(symbol))
        opens = self.book.select(
            contract, interval, start_ms=start_ms, end_ms=end_ms - 1, limit=10**9, now_ms=self.now_ms()
        )
        return [scribe.kline_row(interval, row) for row in self.rows(contract, interval, opens)]

    def candle_at(self, contract: Contract, interval: str, open_ms: int, at_ms: int, shift_ms: int = 0) -> Row | None:
        """The candle that opens at `open_ms` from the trades up to and at `at_ms`; None if there is none yet.

        For the running candle what is over of it is kept, so that many calls in one minute are cheap.
        """
        minute_ms = at_ms // MINUTE_MS * MINUTE_MS
        if at_ms >= calendar.next_open(interval, open_ms, shift_ms) or interval in ("1s", "1m"):
            return self._plain(contract, interval, open_ms, at_ms, shift_ms)
        key = (contract.symbol, interval, shift_ms)
        kept_ms, over = self._minutes.get(key, (0, None))
        if kept_ms != minute_ms:
            over = self._plain(contract, interval, open_ms, minute_ms - 1, shift_ms) if open_ms < minute_ms else None
            self._minutes[key] = (minute_ms, over)
        return _joined(open_ms, over, self._plain(contract, "1m", minute_ms, at_ms, 0))

    def _plain(self, contract: Contract, interval: str, open_ms: int, at_ms: int, shift_ms: int) -> Row | None:
        table = self.book.candles(contract, interval, [open_ms], at_ms, shift_ms)
        if table.shape[1] == 0:
            return None
        row: list[int] = table[:, -1].tolist()
        return row

    def day_row(self, contract: Contract, at_ms: int) -> Row | None:
        """The last 24 hours as one candle (to the minute at its beginning); None before the first trade."""
        minute_ms = at_ms // MINUTE_MS * MINUTE_MS
        key = (contract.symbol, "24h", 0)
        kept_ms, over = self._minutes.get(key, (0, None))
        if kept_ms != minute_ms:
            over = self.book.window(contract, minute_ms - DAY_MS, minute_ms)
            self._minutes[key] = (minute_ms, over)
        return _joined(minute_ms - DAY_MS, over, self._plain(contract, "1m", minute_ms, at_ms, 0))

    def day_hours(self, contract: Contract, at_ms: int) -> range:
        """The hours that the last 24 hours' candle is made of."""
        first_ms = self.tape.first_trade_ms(contract) or at_ms
        return range(max(first_ms, at_ms - DAY_MS - MINUTE_MS) // HOUR_MS, at_ms // HOUR_MS + 1)

    def day_at_hand(self, contract: Contract, at_ms: int) -> bool:
        """Whether the last 24 hours' candle is cheap to have now."""
        return not self.hours_to_make(contract, self.day_hours(contract, at_ms)[:-1])

    def hours_to_make(self, contract: Contract, hours: Iterable[int]) -> list[int]:
        """Those of the hours whose candles are not at hand."""
        return [hour for hour in hours if not self.book.ready(contract, hour)]

    def last_trade(self, contract: Contract, at_ms: int) -> Block:
        """The last aggregate up to and at an instant within the last day (empty if there was none)."""
        for hour in range(at_ms // HOUR_MS, at_ms // HOUR_MS - 25, -1):
            block = self.tape.hour(contract, hour)
            count = int(np.searchsorted(block.time_ms, at_ms, "right"))
            if count:
                return block.cut(count - 1, count)
        return Block.empty()


def synthetic_market(settings: ExchangeSettings) -> tuple[Tape, list[Contract], int]:
    """The tape, the contracts and the start instant of a market made from the seed."""
    start_ms = settings.start_ms if settings.start_ms is not None else time.time_ns() // 1_000_000
    return SyntheticTape(settings.seed, settings.market), synthetic_contracts(settings, start_ms), start_ms


def _joined(open_ms: int, earlier: Row | None, later: Row | None) -> Row | None:
    """Two neighbouring candles as one that opens at `open_ms`."""
    if earlier is None or later is None:
        only = earlier if later is None else later
        return None if only is None else [open_ms, *only[1:]]
    if later[COUNT] == 0:
        return [open_ms, *earlier[1:]]
    if earlier[COUNT] == 0:
        return [open_ms, *later[1:]]
    row = [open_ms, *earlier[1:]]
    row[HIGH], row[LOW], row[CLOSE] = max(earlier[HIGH], later[HIGH]), min(earlier[LOW], later[LOW]), later[CLOSE]
    for column in (VOLUME, QUOTE, COUNT, TAKER_VOLUME, TAKER_QUOTE):
        row[column] = earlier[column] + later[column]
    row[FIRST], row[LAST] = earlier[FIRST], later[LAST]
    return row
