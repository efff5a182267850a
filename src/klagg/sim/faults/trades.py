"""Trades of the stream that come twice, out of order, late, or not at all; the candles count them as they happened."""

from collections.abc import Sequence
from typing import Final

from klagg.sim.faults.playing import Playing
from klagg.sim.faults.schedule import Fault, Span, fits

MINUTE_MS: Final = 60_000


class TradeFault(Fault, frozen=True, kw_only=True):
    """A fault of single trades."""

    symbols: tuple[str, ...] = ("*",)


class Duplicate(TradeFault, frozen=True, kw_only=True, tag_field="kind", tag="duplicate"):
    """A trade comes again, `copies` times, each `by` after the one before."""

    copies: int = 1
    by: Span = Span(0)


class Reorder(TradeFault, frozen=True, kw_only=True, tag_field="kind", tag="reorder"):
    """A trade comes up to `within` later than those around it.

    With `boundary` only trades at the end of their minute are struck, and come after it.
    """

    within: Span = Span(400)
    boundary: bool = False


class Late(TradeFault, frozen=True, kw_only=True, tag_field="kind", tag="late"):
    """A trade comes between `least` and `most` later."""

    least: Span = Span(1_000)
    most: Span = Span(3 * MINUTE_MS)


class Withhold(TradeFault, frozen=True, kw_only=True, tag_field="kind", tag="withhold"):
    """A trade never comes: a gap in the ids. REST has it, and the candles count it."""


class TradeFaults:
    """The fate of every trade of the stream."""

    def __init__(self, faults: Sequence[Playing[TradeFault]]) -> None:
        self._faults = faults

    def arrivals(self, symbol: str, agg_id: int, time_ms: int, at_ms: int, passed_ms: int) -> list[int]:
        """How much later than `at_ms` the stream has the trade: one number for each time it comes.

        Args:
            symbol: of the trade.
            agg_id: of the trade.
            time_ms: when it happened.
            at_ms: when the stream would have it.
            passed_ms: market time since the start.
        """
        delays = [0]
        for playing in self._faults:
            fault = playing.fault
            if not fits(symbol, fault.symbols):
                continue
            ends_ms = time_ms // MINUTE_MS * MINUTE_MS + MINUTE_MS
            if isinstance(fault, Reorder) and fault.boundary and time_ms < ends_ms - fault.within:
                continue
            if not playing.strikes(passed_ms, symbol, agg_id):
                continue
            draw = playing.draw("how", symbol, agg_id)
            match fault:
                case Withhold():
                    return []
                case Duplicate():
                    delays += [delays[0] + fault.by * n for n in range(1, fault.copies + 1)]
                case Late():
                    delay_ms = fault.least + int(draw * max(0, fault.most - fault.least))
                    delays = [delay + delay_ms for delay in delays]
                case Reorder():
                    first_ms = max(0, ends_ms - at_ms) if fault.boundary else 0
                    delays = [delay + first_ms + int(draw * fault.within) for delay in delays]
        return delays
