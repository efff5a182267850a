"""What every benchmark shares: how a time is taken, what a measurement says, and how it is told."""

import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
TIMES = "times"
"""The unit of a value that is a multiple of another."""


@dataclass(frozen=True)
class Plan:
    """How much is measured: `quick` only shows that the harness works, its figures mean little."""

    quick: bool = False
    newest_rows: int = 10_000_000
    """The longest history of P8."""

    def pick(self, whole: int, quick: int) -> int:
        return quick if self.quick else whole


@dataclass(frozen=True)
class Goal:
    """A bound, and the side of it on which a value meets the goal."""

    bound: float
    at_most: bool

    def met(self, value: float) -> bool:
        return value <= self.bound if self.at_most else value >= self.bound

    def text(self, unit: str) -> str:
        return f"{'≤' if self.at_most else '≥'} {number(self.bound)} {unit}"


def at_most(bound: float) -> Goal:
    return Goal(bound, at_most=True)


def at_least(bound: float) -> Goal:
    return Goal(bound, at_most=False)


@dataclass(frozen=True)
class Yardstick:
    """What a value is held against in the same run: a peer's value, or the limit of what is done underneath."""

    name: str
    value: float


@dataclass(frozen=True)
class Measurement:
    """One line: a value with its goal (None: it only explains another), its peer and its limit.

    `value` None: it could not be measured here, and `note` says why.
    """

    id: str
    name: str
    value: float | None
    unit: str
    goal: Goal | None = None
    peer: Yardstick | None = None
    limit: Yardstick | None = None
    samples: int = 1
    spread: tuple[float, float] | None = None
    """The least and the greatest sample."""
    note: str = ""

    @property
    def met(self) -> bool | None:
        return None if self.goal is None or self.value is None else self.goal.met(self.value)

    def ratio(self, other: Yardstick) -> float | None:
        """The value as a multiple of that one; a value that is such a multiple itself has none."""
        return None if self.value is None or self.unit == TIMES else self.value / other.value

    def line(self) -> dict[str, object]:
        """What is printed as JSON."""
        return {
            "id": self.id,
            "name": self.name,
            "value": rounded(self.value),
            "unit": self.unit,
            "goal": self.goal.text(self.unit) if self.goal else None,
            "met": self.met,
            "peer": self._held_against(self.peer),
            "limit": self._held_against(self.limit),
            "samples": self.samples,
            "spread": [rounded(end) for end in self.spread] if self.spread else None,
            "note": self.note,
        }

    def _held_against(self, other: Yardstick | None) -> dict[str, object] | None:
        if other is None:
            return None
        return {"name": other.name, "value": rounded(other.value), "ratio": rounded(self.ratio(other))}


Measure = Callable[[Plan], Iterator[Measurement]]


@dataclass(frozen=True)
class Figure:
    """One of the figures: what it is called, how it is measured (a paragraph for the page), and the measuring itself."""

    id: str
    title: str
    how: str
    measure: Measure = field(repr=False)


def rounded(value: float | None) -> float | None:
    """Four significant digits: no more is ever meant."""
    return None if value is None else float(f"{value:.4g}")


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    digits = float(f"{value:.3g}")
    return f"{digits:,.0f}" if abs(digits) >= 100 or digits == int(digits) else f"{digits:g}"


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def quantile(values: Sequence[float], q: float) -> float:
    """The nearest sample at or above that share of them."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def spread(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


@contextmanager
def no_garbage() -> Iterator[None]:
    """No collection of the harness's own objects in the middle of what is timed."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def cpu_seconds(run: Callable[[], object]) -> float:
    """The CPU time that a call takes on this thread: a busy neighbour does not count."""
    with no_garbage():
        started = time.thread_time()
        run()
        return time.thread_time() - started


def wall_seconds(run: Callable[[], object]) -> float:
    with no_garbage():
        started = time.perf_counter()
        run()
        return time.perf_counter() - started


def say(text: str) -> None:
    """Progress: stdout is for the figures."""
    print(text, file=sys.stderr, flush=True)
