"""What the database knows of the trades right before and right after a recording's: by their ids, and by nothing else."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from klagg.interval import DAY_MS, MINUTE, MINUTE_MS
from klagg.model import Candles, Market
from klagg.store import SqliteStore

REACH_MS: Final = 3 * DAY_MS
"""So far before and after a recording a candle with trades is looked for that its ids chain to: no symbol is quiet for longer."""


@dataclass(frozen=True, slots=True)
class Before:
    """What stands before a recording.

    `covered_ms`: from when on its first trade is the next, None where that is not known; `close` and `price_scale` are the price until
    then. `anew_since_ms`: when the trades before ended whose ids are higher, so that another numbering, and with it another life of
    the symbol, begins; None where they are not.
    """

    covered_ms: int | None = None
    close: int = 0
    price_scale: int = 0
    anew_since_ms: int | None = None


NOTHING: Final = Before()


class Chain:
    """The trade ids of a market's stored candles."""

    def __init__(self, store: SqliteStore, market: Market) -> None:
        self._store = store
        self._market = market
        self._ids: dict[str, int] = {}

    def before(self, symbol: str, first_id: int, time_ms: int) -> Before:
        """What stands before the trade of this id and time.

        The nearest candle before it that has trades shows by its last id whether any are missing between.
        """
        open_ms = MINUTE.open_at(time_ms)
        rows = self._minutes(symbol, open_ms - REACH_MS, open_ms)
        traded = rows[rows["trades"] > 0]
        if len(traded) == 0 or traded["last_id"][-1] < 0:
            return NOTHING
        last = traded[-1]
        end_ms = int(last["open_ms"]) + MINUTE_MS
        if last["last_id"] >= first_id:
            return Before(anew_since_ms=end_ms)
        if last["last_id"] + 1 != first_id:
            return NOTHING
        return Before(end_ms, int(last["close"]), int(last["price_scale"]))

    def after(self, symbol: str, last_id: int, time_ms: int) -> int | None:
        """Up to when no trade follows the one of this id and time: the open of the candle whose first trade is the next; else None."""
        end_ms = MINUTE.open_at(time_ms) + MINUTE_MS
        rows = self._minutes(symbol, end_ms, end_ms + REACH_MS)
        traded = rows[rows["trades"] > 0]
        if len(traded) and traded["first_id"][0] == last_id + 1:
            return int(traded["open_ms"][0])
        return None

    def _minutes(self, symbol: str, start_ms: int, end_ms: int) -> Candles:
        if symbol not in self._ids:
            self._ids = {one.instrument.symbol: one.id for one in self._store.instruments(self._market)}
        number = self._ids.get(symbol)
        if number is None:
            return np.zeros(0, self._store.read(0, MINUTE, 0, 0).dtype)
        return self._store.read(number, MINUTE, start_ms, end_ms)
