"""Minutes that are not there between others."""

import numpy as np

from klagg.interval import MINUTE, MINUTE_MS
from klagg.model import CANDLE, Candles, Flag, Origin, no_candles
from klagg.store import SqliteStore


def find_gaps(
    store: SqliteStore, instrument_id: int, start_ms: int, end_ms: int, origin: Origin = Origin.UNMATCHED
) -> Candles:
    """Candles without trades for the minutes between stored ones that are not there.

    `unmatched`: the caller has asked the exchange for all of `[start_ms, end_ms)`, and it has none for these. A file that
    lacks minutes proves nothing: `filled`, so that the exchange is asked.
    """
    found: list[Candles] = []
    last = store.read(instrument_id, MINUTE, 0, start_ms, 1, descending=True)
    if len(last) and last["open_ms"][0] != start_ms - MINUTE_MS:
        last = no_candles()
    for piece in store.iter_read(instrument_id, MINUTE, start_ms, end_ms):
        rows = np.concatenate([last, piece])
        for at in np.flatnonzero(np.diff(rows["open_ms"]) > MINUTE_MS):
            opens = np.arange(rows["open_ms"][at] + MINUTE_MS, rows["open_ms"][at + 1], MINUTE_MS)
            gap = np.zeros(len(opens), CANDLE)
            gap["open_ms"] = opens
            gap["origin"] = origin
            gap["flags"] = Flag.CLOSED
            for name in ("price_scale", "qty_scale"):
                gap[name] = rows[name][at]
            for name in ("open", "high", "low", "close"):
                gap[name] = rows["close"][at]
            gap["first_id"] = gap["last_id"] = -1
            found.append(gap)
        last = piece[-1:]
    return np.concatenate(found) if found else no_candles()
