"""Kline answers whose rows are not what they will be: the running candle too many, the newest not yet final, some missing."""

from collections.abc import Callable, Sequence

from klagg.sim.faults.playing import Playing
from klagg.sim.faults.schedule import Fault, Span, fits


class RowFault(Fault, frozen=True, kw_only=True):
    """A fault of kline answers."""

    symbols: tuple[str, ...] = ("*",)
    intervals: tuple[str, ...] = ("*",)


class RunningRow(RowFault, frozen=True, kw_only=True, tag_field="kind", tag="running_row"):
    """An answer ends with the running candle, although a range was asked for that ends before it."""


class UnsettledRow(RowFault, frozen=True, kw_only=True, tag_field="kind", tag="unsettled_row"):
    """Until `settles` after its close a candle's row lacks the trades of its last `lacks`."""

    settles: Span = Span(5_000)
    lacks: Span = Span(2_000)


class MissingRow(RowFault, frozen=True, kw_only=True, tag_field="kind", tag="missing_row"):
    """Rows are left out of answers while a turn lasts: a missing row stays missing until then."""

    opened_after: Span | None = None
    """Only candles that open this long after the start, or later."""
    opened_for: Span | None = None
    """And before this long after that."""

    def concerns(self, opened_ms: int) -> bool:
        """Whether candles are struck that open so long after the start (negative: before it)."""
        if self.opened_after is None:
            return True
        end_ms = None if self.opened_for is None else self.opened_after + self.opened_for
        return self.opened_after <= opened_ms and (end_ms is None or opened_ms < end_ms)


class RowFaults:
    """What becomes of the rows of kline answers."""

    def __init__(self, faults: Sequence[Playing[RowFault]], passed: Callable[[], int], start_ms: int) -> None:
        self._faults = faults
        self._passed = passed
        self._start_ms = start_ms

    def adds_running(self, symbol: str, interval: str, now_ms: int) -> bool:
        """Whether an answer ends with the running candle, wanted or not."""
        return any(
            isinstance(playing.fault, RunningRow)
            and self._meant(playing.fault, symbol, interval)
            and playing.strikes(self._passed(), symbol, interval, now_ms)
            for playing in self._faults
        )

    def lacks_ms(self, symbol: str, interval: str, ended_ms: int, now_ms: int) -> int:
        """How much of its end a candle that is over lacks now."""
        for playing in self._faults:
            fault = playing.fault
            if (
                isinstance(fault, UnsettledRow)
                and 0 <= now_ms - ended_ms < fault.settles
                and self._meant(fault, symbol, interval)
                and playing.strikes(self._passed(), symbol, interval, ended_ms)
            ):
                return int(fault.lacks)
        return 0

    def missing(self, symbol: str, interval: str, open_ms: int) -> bool:
        """Whether a row is left out now."""
        return any(
            isinstance(playing.fault, MissingRow)
            and self._meant(playing.fault, symbol, interval)
            and playing.fault.concerns(open_ms - self._start_ms)
            and playing.strikes(self._passed(), symbol, interval, open_ms)
            for playing in self._faults
        )

    @staticmethod
    def _meant(fault: RowFault, symbol: str, interval: str) -> bool:
        return fits(symbol, fault.symbols) and fits(interval, fault.intervals)
