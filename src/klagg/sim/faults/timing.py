"""The exchange's time that cannot be had, comes by an uneven way, is wrong, drifts or jumps."""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated

import msgspec

from klagg.sim.faults.playing import Playing
from klagg.sim.faults.schedule import Fault, SignedSpan, Span, Turns, tag_of


class TimeDown(Fault, frozen=True, kw_only=True, tag_field="kind", tag="time_down"):
    """The time endpoint answers with an HTTP status."""

    status: Annotated[int, msgspec.Meta(ge=400, le=599)] = 503


class TimeDelay(Fault, frozen=True, kw_only=True, tag_field="kind", tag="time_delay"):
    """The way to the time endpoint takes longer by `request`, the way back by `answer`."""

    request: Span = Span(0)
    answer: Span = Span(0)


class TimeWrong(Fault, frozen=True, kw_only=True, tag_field="kind", tag="time_wrong"):
    """The time endpoint is wrong by `by`; the market's own clock is not."""

    by: SignedSpan = SignedSpan(2_000)


class ClockDrift(Turns, frozen=True, kw_only=True, tag_field="kind", tag="clock_drift"):
    """The market's clock runs faster by so many millionths while a turn lasts, and keeps what it gained."""

    ppm: Annotated[int, msgspec.Meta(ge=-100_000, le=100_000)] = 200


class ClockJump(Turns, frozen=True, kw_only=True, tag_field="kind", tag="clock_jump"):
    """The market's clock is off by `by` while a turn lasts."""

    by: SignedSpan = SignedSpan(1_000)


class TimeFaults:
    """The exchange's time as clients get it, and the market's clock itself."""

    def __init__(
        self, faults: Sequence[Playing[Fault]], clocks: Sequence[ClockDrift | ClockJump], tally: Counter[str]
    ) -> None:
        self._faults = faults
        self._clocks = clocks
        self._tally = tally
        self._turns: set[tuple[int, int]] = set()

    def shift_ms(self, passed_ms: int) -> int:
        """How far the market's clock is off where it would be."""
        shift = 0
        for index, fault in enumerate(self._clocks):
            turn = fault.turn_at(passed_ms)
            if turn is not None and (index, turn) not in self._turns:
                self._turns.add((index, turn))
                self._tally[tag_of(type(fault))] += 1
            if isinstance(fault, ClockDrift):
                shift += fault.active_ms(passed_ms) * fault.ppm // 1_000_000
            elif turn is not None:
                shift += fault.by
        return shift

    def down(self, number: int, passed_ms: int) -> int | None:
        """The HTTP status that the time endpoint answers with instead."""
        for playing in self._faults:
            if isinstance(playing.fault, TimeDown) and playing.strikes(passed_ms, number):
                return playing.fault.status
        return None

    def delays_ms(self, number: int, passed_ms: int) -> tuple[int, int]:
        """How much longer the way to the time endpoint takes, and the way back."""
        for playing in self._faults:
            if isinstance(playing.fault, TimeDelay) and playing.strikes(passed_ms, number):
                return int(playing.fault.request), int(playing.fault.answer)
        return 0, 0

    def wrong_ms(self, number: int, passed_ms: int) -> int:
        """How wrong the time endpoint is."""
        for playing in self._faults:
            if isinstance(playing.fault, TimeWrong) and playing.strikes(passed_ms, number):
                return int(playing.fault.by)
        return 0
