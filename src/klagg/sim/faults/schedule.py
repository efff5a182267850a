"""When a fault plays. All durations are market time since the exchange's start."""

import re
from fnmatch import fnmatchcase
from typing import Annotated, Final

import msgspec

from klagg.model import Market

_UNITS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_SPAN: Final = re.compile(r"([+-]?\d{1,12})(ms|s|m|h|d)", re.ASCII)

Share = Annotated[float, msgspec.Meta(gt=0, le=1)]
Times = Annotated[int, msgspec.Meta(ge=1)]


class Span(int):
    """Milliseconds of market time, written as `250ms`, `3s`, `2m`, `1h`."""


class SignedSpan(int):
    """A span that may be negative: `-3s`."""


def read_span(kind: type, value: object) -> Span | SignedSpan:
    """What a span's text says.

    Raises:
        ValueError: not a duration, or negative where it cannot be.
    """
    match = _SPAN.fullmatch(value) if isinstance(value, str) else None
    if match is None or (match[1].startswith("-") and kind is Span):
        allowed = '"250ms", "3s", "2m", "1h"' + (', "-3s"' if kind is SignedSpan else "")
        raise ValueError(f"{value!r} is no duration; write {allowed}")
    ms = int(match[1]) * _UNITS[match[2]]
    return SignedSpan(ms) if kind is SignedSpan else Span(ms)


class Turns(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"length": "for"}):
    """The turns in which something plays."""

    after: Span = Span(0)
    """When the first turn begins."""
    length: Span | None = None
    """How long a turn is (`for` in the file); without it, until the next one, or for ever."""
    every: Span | None = None
    """When the next turn begins, after the last one began; without it there is one turn."""
    market: Market | None = None
    """The market that is struck; without it, all that are served."""

    def turn_at(self, passed_ms: int) -> int | None:
        """The number of the turn that is on, from 0; None between turns."""
        since_ms = passed_ms - self.after
        if since_ms < 0:
            return None
        turn = 0
        if self.every:
            turn, since_ms = divmod(since_ms, self.every)
        return turn if self.length is None or since_ms < self.length else None

    def active_ms(self, passed_ms: int) -> int:
        """How much of the time so far its turns were on."""
        since_ms = passed_ms - self.after
        if since_ms <= 0:
            return 0
        length = since_ms if self.length is None else int(self.length)
        if not self.every:
            return min(since_ms, length)
        turns, rest_ms = divmod(since_ms, int(self.every))
        return turns * min(int(self.every), length) + min(rest_ms, length)


class Fault(Turns, frozen=True, kw_only=True):
    """What strikes single trades, messages, requests or connections in its turns, and how often."""

    share: Share = 1.0
    """Of those that it could strike, so many are struck."""
    times: Times | None = None
    """It strikes at most so often."""


def fits(name: str, globs: tuple[str, ...]) -> bool:
    """Whether a name is one of those that the patterns mean."""
    return any(fnmatchcase(name, glob) for glob in globs)


def tag_of(kind: type[msgspec.Struct]) -> str:
    """A fault's name in the file."""
    return str(kind.__struct_config__.tag)
