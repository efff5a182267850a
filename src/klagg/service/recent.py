"""The last things worth telling a person: shown by the live view, counted, and logged once each."""

from collections import Counter, deque
from collections.abc import Callable
from typing import Final

import structlog

from klagg.exchange.wire import Rejected
from klagg.model import Market

log = structlog.get_logger()

KEPT: Final = 50
"""Notes kept for the live view; older ones are in the log."""
LOGGED_REJECTIONS: Final = 20
"""Rejected messages logged one by one for each reason; after that they are only counted."""


class Recent:
    """A bounded list of notes of one market, and counts by event that are never dropped."""

    def __init__(self, market: Market, now_ms: Callable[[], int]) -> None:
        self._market = market
        self._now_ms = now_ms
        self.notes: deque[tuple[int, str, str]] = deque(maxlen=KEPT)
        self.counts: Counter[str] = Counter()

    def note(self, event: str, text: str) -> None:
        """Something happened that a person may want to know."""
        self.keep(event, text)
        log.warning(event, market=self._market.value, detail=text)

    def keep(self, event: str, text: str) -> None:
        """Count and show what is in the log already."""
        self.counts[event] += 1
        self.notes.append((self._now_ms(), event, text))

    def reject(self, rejected: Rejected) -> None:
        """A message of the exchange was rejected; the rest went on."""
        reason = str(rejected.reason)
        self.counts[f"rejected.{reason}"] += 1
        if self.counts[f"rejected.{reason}"] <= LOGGED_REJECTIONS:
            log.warning(
                "feed.rejected",
                market=self._market.value,
                reason=reason,
                symbol=rejected.symbol,
                field=rejected.field,
                value=rejected.value,
            )
