"""Connections that are refused, cut, closed, silent, or acknowledge what they never deliver."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from klagg.sim.faults.playing import Playing
from klagg.sim.faults.schedule import Fault, Span, fits

CloseCode = Annotated[int, msgspec.Meta(ge=1000, le=4999)]


class Cut(Fault, frozen=True, kw_only=True, tag_field="kind", tag="cut"):
    """Open connections end at the beginning of each turn: as a broken network would end them, or with a close code."""

    code: CloseCode | None = None


class Handshake(Fault, frozen=True, kw_only=True, tag_field="kind", tag="handshake"):
    """A connection fails while it is made: cut, answered with an HTTP status, or not answered for `hold`."""

    how: Literal["cut", "refuse", "hang"] = "cut"
    status: Annotated[int, msgspec.Meta(ge=400, le=599)] = 503
    hold: Span = Span(30_000)


class Subscription(Fault, frozen=True, kw_only=True, tag_field="kind", tag="subscription"):
    """A connection is cut when it asks for streams: before the acknowledgement, or right after it."""

    point: Literal["before", "after"] = "before"


class ShortLife(Fault, frozen=True, kw_only=True, tag_field="kind", tag="short_life"):
    """A connection that is opened in a turn is cut when it is as old as `life`."""

    life: Span = Span(20_000)


class Silence(Fault, frozen=True, kw_only=True, tag_field="kind", tag="silence"):
    """A live connection delivers nothing while the turn lasts; it answers and pings."""


class DeafSubscription(Fault, frozen=True, kw_only=True, tag_field="kind", tag="deaf_subscription"):
    """A subscription is acknowledged and delivers nothing, for as long as the connection lives."""

    streams: tuple[str, ...] = ("*",)


SocketFault = Cut | Handshake | Subscription | ShortLife | Silence | DeafSubscription


@dataclass(frozen=True, slots=True)
class Ending:
    """How a connection ends: with a close code, or without a word (None)."""

    code: int | None


class SocketFaults:
    """The fate of every connection; connections are numbered in the order in which they came."""

    def __init__(self, faults: Sequence[Playing[Fault]]) -> None:
        self._faults = faults
        self._cut_in_turn: dict[int, int] = {}
        self._silent_counted: set[tuple[int, int, int]] = set()

    def handshake(self, number: int, passed_ms: int) -> Handshake | None:
        """What spoils the making of a connection."""
        for playing in self._faults:
            if isinstance(playing.fault, Handshake) and playing.strikes(passed_ms, number):
                return playing.fault
        return None

    def subscription(self, number: int, asked: int, passed_ms: int) -> str | None:
        """Where a connection is cut that asks for streams, for the n-th time."""
        for playing in self._faults:
            if isinstance(playing.fault, Subscription) and playing.strikes(passed_ms, number, asked):
                return playing.fault.point
        return None

    def life_ms(self, number: int, born_ms: int) -> int | None:
        """After how long a connection that was opened at `born_ms` is cut."""
        for playing in self._faults:
            if isinstance(playing.fault, ShortLife) and playing.strikes(born_ms, number):
                return int(playing.fault.life)
        return None

    def deaf(self, number: int, stream: str, passed_ms: int) -> bool:
        """Whether a subscription is acknowledged in vain."""
        for playing in self._faults:
            fault = playing.fault
            wanted = isinstance(fault, DeafSubscription) and fits(stream, fault.streams)
            if wanted and playing.strikes(passed_ms, number, stream):
                return True
        return False

    def silent(self, number: int, passed_ms: int) -> bool:
        """Whether a connection delivers nothing now; each turn counts once for a connection."""
        for index, playing in enumerate(self._faults):
            if not isinstance(playing.fault, Silence):
                continue
            turn = playing.fault.turn_at(passed_ms)
            if turn is None:
                continue
            key = (index, turn, number)
            if key in self._silent_counted:
                return True
            if playing.on(passed_ms) is not None and playing.chosen(turn, number):
                self._silent_counted.add(key)
                playing.count()
                return True
        return False

    def cuts(self, numbers: Sequence[int], passed_ms: int) -> dict[int, Ending]:
        """Which of the open connections end now, and how. Asked often: each turn ends connections once."""
        ends: dict[int, Ending] = {}
        for index, playing in enumerate(self._faults):
            fault = playing.fault
            turn = playing.on(passed_ms)
            if not isinstance(fault, Cut) or turn is None or self._cut_in_turn.get(index, -1) >= turn:
                continue
            self._cut_in_turn[index] = turn
            for number in numbers:
                if playing.strikes(passed_ms, turn, number):
                    ends[number] = Ending(fault.code)
        return ends
