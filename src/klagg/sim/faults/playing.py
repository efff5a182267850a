"""One fault being played: lots drawn from the seed, so that the same seed strikes the same trades, and a count."""

import hashlib
from collections import Counter
from typing import Generic, TypeVar

from klagg.sim.faults.schedule import Fault

F_co = TypeVar("F_co", bound=Fault, covariant=True)


class Playing(Generic[F_co]):
    """A fault with its dice and its count."""

    def __init__(self, fault: F_co, name: str, seed: int, tally: Counter[str]) -> None:
        self.fault = fault
        self.struck = 0
        self._name = name
        self._kind = name.partition("#")[0]
        self._seed = seed
        self._tally = tally

    def draw(self, *key: object) -> float:
        """A number in `[0, 1)` that depends on the seed, the fault and the key only."""
        text = ":".join([str(self._seed), self._name, *map(str, key)])
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") / 2**64

    def count(self) -> None:
        """It has struck."""
        self.struck += 1
        self._tally[self._kind] += 1

    def on(self, passed_ms: int) -> int | None:
        """The turn that is on, if it may still strike."""
        if self.fault.times is not None and self.struck >= self.fault.times:
            return None
        return self.fault.turn_at(passed_ms)

    def chosen(self, *key: object) -> bool:
        """Whether the lot falls on the key."""
        return self.fault.share >= 1 or self.draw("share", *key) < self.fault.share

    def strikes(self, passed_ms: int, *key: object) -> bool:
        """Whether it strikes what the key names now; counted if so."""
        if self.on(passed_ms) is None or not self.chosen(*key):
            return False
        self.count()
        return True
