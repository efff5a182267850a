"""The closing kline pushes of the exchange, compared with our minutes as soon as both are there."""

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from klagg import rules
from klagg.engine import matching
from klagg.interval import MINUTE_MS
from klagg.model import CANDLE, Candles, Flag, Ints
from klagg.service.shard import ShardCore

GRACE_MS: Final = 3_000
"""How long a difference may still be a trade on its way: pushes often arrive before the trades they hold."""
WAITING_BOUND: Final = 200_000
"""Pushes that wait for their minute to close or for their trades (3 s of a whole market is some thousand). When full, new
ones are dropped and counted; the repairer asks for those minutes later."""


@dataclass(slots=True, eq=False)
class Comparison:
    """Pushes that wait for their minute, and what the compared ones showed."""

    core: ShardCore
    verified: int = 0
    differences: int = 0
    """Minutes that our evidence called whole and the exchange has otherwise."""
    completed: int = 0
    """Minutes known to be incomplete that the exchange's push completed."""
    differing: list[np.void] = field(default_factory=list)
    """The differences that the last `judge` found."""
    asked: list[tuple[int, int]] = field(default_factory=list)
    """Slot and open of the minutes of which push and trades tell otherwise: the exchange's settled kline decides."""
    dropped: int = 0
    _waiting: Candles = field(default_factory=lambda: np.zeros(0, CANDLE))
    _since_ms: Ints = field(default_factory=lambda: np.zeros(0, np.int64))

    def take(self, klines: Candles, now_ms: int) -> None:
        """Keep closing pushes (`slot` set) until they can be judged."""
        if len(klines) == 0:
            return
        if len(self._waiting) + len(klines) > WAITING_BOUND:
            self.dropped += len(klines)
            return
        self._waiting = np.concatenate([self._waiting, klines])
        self._since_ms = np.concatenate([self._since_ms, np.full(len(klines), now_ms, np.int64)])

    def judge(self, now_ms: int) -> tuple[Candles, Candles]:
        """Compare what waits; returns the minutes now verified as equal, and those that the exchange's have replaced.

        A push that trades do not confirm is one word of the exchange against another: it fills a minute that is known to be
        incomplete, and verifies nothing.
        """
        if len(self._waiting) == 0:
            return self._waiting, self._waiting
        verdicts = self.core.compare(self._waiting)
        equal = verdicts == matching.EQUAL
        overdue = (verdicts == matching.DIFFERS) & (now_ms - self._since_ms >= GRACE_MS)
        evident = np.zeros(len(self._waiting), np.bool_)
        evident[overdue] = [self._was_evident(row) for row in self._waiting[overdue]]
        self.differing = list(self._waiting[evident])
        self.differences += len(self.differing)
        self.asked += [(int(row["slot"]), int(row["open_ms"])) for row in self._waiting[overdue]]
        replaced = self._waiting[overdue & ~evident]
        if len(replaced):
            replaced["flags"] &= ~np.uint8(Flag.VERIFIED)
            self.core.replace(replaced)
        verified = self._waiting[equal]
        stay = ~equal & ~overdue & (verdicts != matching.GONE)
        # A push for a minute that our clock has not closed waits for it; one far ahead would wait for ever.
        stay &= self._waiting["open_ms"] <= now_ms + MINUTE_MS
        self._waiting, self._since_ms = self._waiting[stay], self._since_ms[stay]
        self.verified += len(verified)
        self.completed += len(replaced)
        return verified, replaced

    def take_asked(self) -> list[tuple[int, int]]:
        """The minutes that the exchange's settled kline is to decide, each once."""
        asked, self.asked = list(dict.fromkeys(self.asked)), []
        return asked

    def _was_evident(self, kline: np.void) -> bool:
        """Whether our evidence said that the minute was whole, so that its difference is news and not just a repair."""
        origin = self.core.engine.minute_origin(int(kline["slot"]), int(kline["open_ms"]))
        return origin is not None and origin not in rules.URGENT
