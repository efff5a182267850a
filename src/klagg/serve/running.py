"""The running candle of any frame: from memory where that is known to hold all of it, else from what is stored and the running minute."""

import numpy as np

from klagg.model import NUMBERS, Candles, joined, no_candles
from klagg.serve.folding import joined as span_of
from klagg.serve.source import Frame, Listing, Live, Source


class RunningCandles:
    """Running candles of one market.

    A candle in memory may have been begun in its middle (a first start, a new symbol). Whoever asks for one for the first time has it
    compared with what is stored; one that was seen from its open on, or was equal, is taken from memory until it ends.
    """

    def __init__(self, live: Live, source: Source) -> None:
        self._live = live
        self._source = source
        self._whole: dict[tuple[int, int], int] = {}
        """By instrument and interval: the open of the candle that memory holds whole."""

    def in_memory(self, one: Listing, frame: Frame, running: Candles) -> Candles | None:
        """The running candle where memory is known to hold it whole; none where the minute before is not durable; None: ask `of`.

        `running`: the symbol's row of `Live.running`.
        """
        market = one.instrument.market
        kept, durable_ms = self._live.kept(market), self._live.durable_ms(market)
        minute = running[:1]
        if minute["close"][0] == 0 or minute["open_ms"][0] != durable_ms:
            return no_candles()
        if frame.shift_ms or frame.interval not in kept:
            return None
        open_ms, key = frame.open_at(durable_ms), (one.id, frame.interval.code)
        if open_ms == durable_ms:
            self._whole[key] = open_ms
        elif self._whole.get(key) != open_ms:
            return None
        found = running[kept.index(frame.interval) :][:1]
        return found if found["open_ms"][0] == open_ms else no_candles()

    async def of(self, one: Listing, frame: Frame, running: Candles) -> Candles:
        """The running candle, or none where a part of it is not known."""
        known = self.in_memory(one, frame, running)
        if known is not None:
            return known
        market = one.instrument.market
        kept, durable_ms = self._live.kept(market), self._live.durable_ms(market)
        minute, open_ms = running[:1], frame.open_at(durable_ms)
        whole = minute.copy()
        if open_ms < durable_ms:
            past = await self._source.part(one, open_ms, durable_ms)
            whole = span_of(joined([past, minute])) if len(past) else past
        found = no_candles()
        if not frame.shift_ms and frame.interval in kept:
            found = running[kept.index(frame.interval) :][:1]
            if found["open_ms"][0] != open_ms:
                found = no_candles()
        if len(whole) == 0:
            # What is not stored whole (a week of a short history) may have been folded into memory from the exchange's own candles.
            is_whole = len(found) > 0 and await self._source.is_sure(one, frame.interval)
        else:
            is_whole = len(found) > 0 and _equal(whole, found)
        if is_whole:
            self._whole[one.id, frame.interval.code] = open_ms
            return found
        if len(whole) == 0:
            return whole
        whole["open_ms"] = open_ms
        whole["interval"] = frame.interval.code
        whole["flags"] = 0
        return whole


def _equal(one: Candles, other: Candles) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in (*NUMBERS, "price_scale", "qty_scale"))
