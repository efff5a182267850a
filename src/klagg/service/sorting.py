"""What a start makes of the symbol list and of what the database knows: who trades, who is paused, who has left."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import structlog

from klagg.config.values import SymbolFilter
from klagg.errors import UsageError
from klagg.model import Instrument, Market, Status
from klagg.store import StoredInstrument

log = structlog.get_logger()

NAMED: Final = 10
"""Symbols named in one message."""
FEW: Final = 5
"""So many symbols may leave the list of a small market at once."""


@dataclass(frozen=True, slots=True)
class Sorted:
    """The wanted symbols of a start.

    Of a symbol that does not trade only what is stored and alive counts: who has never been seen to trade, or is long dead, is
    nobody here, and nothing is asked about it.
    """

    trading: list[Instrument]
    again: set[str]
    """Those of `trading` whose stored life has ended: they begin another."""
    were_paused: set[str]
    """Those of `trading` that the database knows as paused."""
    stopped: dict[str, Instrument]
    """Stored symbols that do not trade: HALTED ones are paused, RETIRED ones have left since the last run."""
    unseen_end: set[str]
    """Those of `stopped` that the database knows as trading: they went on after its last candle, nobody knows how long."""
    absent: list[Instrument]
    """Those of `stopped` that the list has not: whether they have left the next list tells."""
    ended_ms: dict[str, int]
    """Where the stored life of a symbol ended, if it has."""

    @property
    def paused(self) -> list[str]:
        """The symbols that may go on."""
        return [symbol for symbol, one in self.stopped.items() if one.status is Status.HALTED]


class Sorting:
    """Sorts the symbols of a market by a list and what is stored."""

    def __init__(self, market: Market, wanted: SymbolFilter, before: Iterable[StoredInstrument]) -> None:
        self._market = market
        self._wanted = wanted
        self._before = {one.instrument.symbol: one for one in before}
        self._alive = {
            symbol: one.instrument
            for symbol, one in self._before.items()
            if one.retired_ms is None and wanted.wants(symbol)
        }

    @property
    def ids(self) -> dict[str, int]:
        """The identifiers of the symbols that the database knows and whose life lasts."""
        return {symbol: self._before[symbol].id for symbol in self._alive}

    def _is_paused(self, symbol: str) -> bool:
        return self._alive[symbol].status is Status.HALTED

    def is_doubtful(self, listed: Iterable[Instrument]) -> bool:
        """Whether a list lacks so much of what is stored that it is better asked for again."""
        lacking = self._alive.keys() - {instrument.symbol for instrument in listed}
        return self._are_too_many(len(lacking))

    def _are_too_many(self, count: int) -> bool:
        return count > max(len(self._alive) // 2, FEW)

    def sort(self, listed: Sequence[Instrument]) -> Sorted:
        """What is to be done with each wanted symbol.

        Raises:
            UsageError: a name is not known, a glob matches nothing, or none of the wanted symbols trades or may go on.
        """
        now = {instrument.symbol: instrument for instrument in listed}
        names = self._wanted.resolve([*now, *(symbol for symbol in self._alive if symbol not in now)])
        trading = [now[symbol] for symbol in names if symbol in now and now[symbol].status is Status.TRADING]
        stopped = self._stopped(now, {instrument.symbol for instrument in trading})
        self._tell(names, now, trading, stopped)
        ended_ms = {symbol: one.retired_ms for symbol, one in self._before.items() if one.retired_ms is not None}
        return Sorted(
            trading,
            {instrument.symbol for instrument in trading if instrument.symbol in ended_ms},
            {one.symbol for one in trading if one.symbol in self._alive and self._is_paused(one.symbol)},
            stopped,
            {symbol for symbol in stopped if not self._is_paused(symbol)},
            [stopped[symbol] for symbol in stopped if symbol not in now],
            ended_ms,
        )

    def _stopped(self, now: Mapping[str, Instrument], trading: set[str]) -> dict[str, Instrument]:
        stopped = {}
        for symbol, stored in self._alive.items():
            if symbol not in trading:
                told = now.get(symbol, stored)
                has_left = symbol in now and told.status is Status.RETIRED
                stopped[symbol] = replace(told, status=Status.RETIRED if has_left else Status.HALTED)
        left = [symbol for symbol, one in stopped.items() if one.status is Status.RETIRED]
        if self._are_too_many(len(left)):
            # Half a market does not retire while nobody looks; a list that says so is not believed.
            log.error("symbols.list_shrunk", market=self._market.value, listed=len(trading), known=len(self._alive))
            for symbol in left:
                stopped[symbol] = replace(stopped[symbol], status=Status.HALTED)
        return stopped

    def _tell(
        self,
        names: Sequence[str],
        now: Mapping[str, Instrument],
        trading: Sequence[Instrument],
        stopped: Mapping[str, Instrument],
    ) -> None:
        if not trading and not any(one.status is Status.HALTED for one in stopped.values()):
            states = ", ".join(
                f"{symbol} {now[symbol].native_status or now[symbol].status.value}" for symbol in names[:NAMED]
            )
            raise UsageError(f"no symbol to run on market {self._market.value} trades now ({states}): choose others")
        if not self._wanted.wants_all and len(trading) < len(names):
            idle = [symbol for symbol in names if symbol not in {instrument.symbol for instrument in trading}]
            log.info("market.not_trading", market=self._market.value, count=len(idle), symbols=idle[:NAMED])
