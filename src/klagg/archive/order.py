"""The trades of a recording in the order of their ids, however late some of them were recorded."""

from datetime import UTC, datetime
from typing import Final

import numpy as np

from klagg.interval import DAY_MS, MINUTE_MS
from klagg.model import TRADE, Ints, Trades

LATE_MS: Final = 10 * MINUTE_MS
"""Trades are held back until the recording is this much further, so that one recorded late still finds its place."""
HELD_ROWS: Final = 1 << 20
"""At most so many trades of a symbol are held back (60 MB); past it the oldest go on, and lateness is bounded by that."""
RENUMBERING_MS: Final = MINUTE_MS
"""A lower id dated this much after all before it begins a new numbering; it is not late."""
BACK_MS: Final = 3 * MINUTE_MS
"""From one id to the next the time may fall by no more than this."""
AHEAD_MS: Final = 366 * DAY_MS
"""From one id to the very next the time may rise by no more than this."""


class BrokenTime(Exception):
    """A trade whose time cannot be true beside its neighbours': `agg_id` names it, the message is the reason."""

    def __init__(self, agg_id: int, reason: str) -> None:
        super().__init__(reason)
        self.agg_id = agg_id


class InOrder:
    """Puts one symbol's trades in the order of their ids; `take` and `flush` return what is ready."""

    def __init__(self) -> None:
        self._held = np.zeros(0, TRADE)
        self._last_id = -1
        self._last_ms = 0

    def take(self, trades: Trades) -> list[Trades]:
        """Take trades as they were recorded; those come back that nothing late can precede any more.

        Raises:
            BrokenTime: a time far before that of the id before, or far after that of the id right before.

        """
        if len(self._held):
            trades = np.concatenate([self._held, trades])
        *ended, running = _sorted_runs(trades)
        times = running["time_ms"]
        ready = int(np.argmax(times > times.max() - LATE_MS))
        ready = max(ready, len(running) - HELD_ROWS)
        self._held = running[ready:]
        return self._checked([*ended, running[:ready]])

    def flush(self) -> list[Trades]:
        """What was held back: the recording is over.

        Raises:
            BrokenTime: as `take`.

        """
        held, self._held = self._held, np.zeros(0, TRADE)
        return self._checked([held])

    def _checked(self, runs: list[Trades]) -> list[Trades]:
        runs = [run for run in runs if len(run)]
        for run in runs:
            ids = np.concatenate([[self._last_id], run["agg_id"]])
            times = np.concatenate([[self._last_ms], run["time_ms"]])
            _check_times(ids, times)
            self._last_id, self._last_ms = int(ids[-1]), int(times[-1])
        return runs


def _sorted_runs(trades: Trades) -> list[Trades]:
    """The trades by id (at equal ids as recorded), one array for each numbering."""
    ids = trades["agg_id"]
    falls = np.flatnonzero(ids[1:] < ids[:-1]) + 1
    if not len(falls):
        return [trades]
    # The highest id and the latest time before each row.
    highest = np.maximum.accumulate(ids)[:-1]
    latest = np.maximum.accumulate(trades["time_ms"])[:-1]
    anew = falls[(ids[falls] < highest[falls - 1]) & (trades["time_ms"][falls] > latest[falls - 1] + RENUMBERING_MS)]
    return [run[np.argsort(run["agg_id"], kind="stable")] for run in np.split(trades, anew)]


def _check_times(ids: Ints, times: Ints) -> None:
    rises = np.diff(times)
    steps = np.diff(ids)
    for what, wrong in (
        ("before", (rises < -BACK_MS) & (steps > 0)),
        ("after", (rises > AHEAD_MS) & (steps == 1) & (ids[:-1] >= 0)),
    ):
        if wrong.any():
            at = int(np.argmax(wrong)) + 1
            raise BrokenTime(
                int(ids[at]),
                f"trade {ids[at]} is dated {_iso(times[at])}, long {what} trade {ids[at - 1]} of {_iso(times[at - 1])}",
            )


def _iso(t_ms: int) -> str:
    return datetime.fromtimestamp(t_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
