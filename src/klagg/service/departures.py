"""Symbols that stopped trading while no process ran: their candles go on to where they stopped, as far as that can be known."""

from collections.abc import Callable
from typing import Final

from klagg.clock import Clock
from klagg.errors import ExchangeError, RequestRejected, StoreUnavailable
from klagg.exchange.budget import Purpose
from klagg.exchange.rest import RestClient
from klagg.interval import BY_NAME, DAY_MS, MINUTE, MINUTE_MS, Interval
from klagg.model import Candles, Instrument, Market
from klagg.repair import Repairer
from klagg.service.aside import put_aside
from klagg.service.listings import Listings
from klagg.service.pauses import extend, forget_running
from klagg.service.recent import Recent
from klagg.store.thread import StoreThread

RETRY_S: Final = 5.0
_DAY: Final = BY_NAME["1d"]


class Departures:
    """Finds the ends of `unseen` symbols (by where their stored candles stop), one after the other, while the others run."""

    def __init__(
        self,
        market: Market,
        *,
        listings: Listings,
        rest: RestClient,
        store: StoreThread,
        repairer: Repairer,
        clock: Clock,
        recent: Recent,
        now_ms: Callable[[], int],
        boundary_ms: int,
    ) -> None:
        self.unseen: dict[str, int] = {}
        self._market = market
        self._listings = listings
        self._rest = rest
        self._store = store
        self._repairer = repairer
        self._clock = clock
        self._recent = recent
        self._now_ms = now_ms
        self._boundary_ms = boundary_ms

    async def run(self) -> None:
        """Settle all of them; then there is nothing left to do."""
        while self.unseen:
            symbol, since_ms = next(iter(self.unseen.items()))
            try:
                await self._settle(symbol, since_ms)
            except (ExchangeError, StoreUnavailable, OSError) as error:
                self._recent.note("symbol.failed", f"{symbol}: {error}")
                self.unseen[symbol] = self.unseen.pop(symbol)
                await self._clock.sleep(RETRY_S)
            except Exception as error:  # noqa: BLE001 - put on record, with its traceback
                put_aside(self._recent, self._market, [symbol], error)
                del self.unseen[symbol]
            else:
                del self.unseen[symbol]

    async def _settle(self, symbol: str, since_ms: int) -> None:
        """Make the minutes up to the end, leave them to the repair, and only then keep the symbol's new state.

        In this order a process that is killed in between leaves a symbol that still counts as trading: the next start does it again.
        """
        instrument = self._listings.instruments[symbol]
        end_ms = await self._end(instrument, since_ms)
        await self._store.call(forget_running, self._store.store, [self._listings.ids[symbol]])
        if end_ms > since_ms:
            number = self._listings.ids[symbol]
            await self._store.call(extend, self._store.store, number, end_ms, self._now_ms())
            self._repairer.fetch(symbol, since_ms, end_ms)
        await self._listings.departed(symbol, instrument, end_ms)

    async def _end(self, instrument: Instrument, since_ms: int) -> int:
        """A contract ends at its delivery; else the exchange's last candle tells, which may be that of just now."""
        delivery_ms = MINUTE.open_at(int(instrument.extra.get("delivery_ms", 0)))
        if since_ms < delivery_ms < self._boundary_ms:
            return delivery_ms
        return await self._last_candle_end(instrument, since_ms)

    async def _last_candle_end(self, instrument: Instrument, since_ms: int) -> int:
        """The end of the last minute that the exchange has of a symbol that stopped; `since_ms` where it tells of none.

        Today's minutes, else those of the last day that it has any of: three requests, however long nobody looked.
        """
        boundary_ms = self._boundary_ms
        today_ms = max(since_ms, boundary_ms - boundary_ms % DAY_MS)
        try:
            minutes = await self._klines_of(instrument, MINUTE, today_ms, boundary_ms)
            if len(minutes) == 0 and since_ms < today_ms:
                days = await self._klines_of(instrument, _DAY, _DAY.open_at(since_ms), today_ms)
                if len(days):
                    day_ms = int(days[-1]["open_ms"])
                    minutes = await self._klines_of(instrument, MINUTE, max(day_ms, since_ms), day_ms + DAY_MS)
        except RequestRejected as error:
            self._recent.note("symbol.refused", f"{instrument.symbol}: {error}")
            return since_ms
        return int(minutes[-1]["open_ms"]) + MINUTE_MS if len(minutes) else since_ms

    async def _klines_of(self, instrument: Instrument, interval: Interval, start_ms: int, end_ms: int) -> Candles:
        return await self._rest.klines(
            instrument.symbol,
            interval,
            start_ms=start_ms,
            end_ms=end_ms,
            price_scale=instrument.price_scale,
            qty_scale=instrument.qty_scale,
            purpose=Purpose.LIVE,
        )
