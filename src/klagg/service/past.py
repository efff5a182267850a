"""A running market's past: the configured depth of history, then that of symbols that come later."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import structlog

from klagg.backfill import OnRepaired, Pace, Progress, backfill
from klagg.clock import Clock
from klagg.errors import ExchangeError, StoreUnavailable
from klagg.exchange.klines import SETTLE_MS
from klagg.exchange.rest import RestClient
from klagg.interval import BY_NAME, HOUR_MS, Interval
from klagg.model import Instrument, Market, Status
from klagg.refold import HeldFrom
from klagg.service.aside import put_aside
from klagg.service.listings import Listings
from klagg.service.pauses import trim_head
from klagg.service.recent import Recent
from klagg.store.thread import StoreThread

log = structlog.get_logger()

RETRY_S: Final = 5.0
REFUSED_RETRY_MS: Final = 300_000
"""The exchange refuses the klines of a listing's first hour: they are asked for again this much later."""
LEAST_HISTORY_MS: Final = HOUR_MS
"""Fetched even of a newcomer without `--history`, from the hour's open: what passed between its listing and its discovery (or, where
nobody looked for longer than this, all of that absence), and what its running candles had before it began."""

_HOUR: Final = BY_NAME["1h"]


class Past:
    """Fetches history while live candles already run; what the exchange does not give now is asked for again."""

    def __init__(
        self,
        market: Market,
        history_ms: int,
        intervals: Sequence[Interval],
        *,
        listings: Listings,
        rest: RestClient,
        store: StoreThread,
        clock: Clock,
        now_ms: Callable[[], int],
        on_repaired: OnRepaired,
        held_from: HeldFrom,
        recent: Recent,
        absent_ms: int = 0,
    ) -> None:
        self.ready = False
        """Whether the configured depth is there, but for refused symbols."""
        self.fetched = 0
        """How often the past of newcomers has come."""
        self.progress: tuple[int, int, float] | None = None
        """Days of symbols done, all of them, and seconds left; None while none is fetched."""
        self.differences = 0
        """Candles that the history had otherwise than the database."""
        self._market = market
        self._history_ms = history_ms
        self._intervals = intervals
        self._listings = listings
        self._rest = rest
        self._store = store
        self._clock = clock
        self._now_ms = now_ms
        self._on_repaired = on_repaired
        self._held_from = held_from
        self._recent = recent
        self._least_ms = max(LEAST_HISTORY_MS, absent_ms)

    async def run(self, end_ms: int) -> None:
        """Fetch all symbols up to `end_ms`, then each newcomer up to where it began; until cancelled."""
        not_before_ms: dict[int, int] = {}
        newcomers = self._listings.newcomers
        if self._history_ms > 0:
            trading = {number: one for number, one in self._listings.by_id().items() if one.status is Status.TRADING}
            refused = await self._fetch(trading, end_ms, self._tell)
            self.progress = None
            start_ms = end_ms - self._history_ms
            log.info("history.ready", market=self._market.value, start_ms=start_ms, end_ms=end_ms, refused=len(refused))
            newcomers.update(dict.fromkeys(refused, end_ms))
            not_before_ms.update(dict.fromkeys(refused, self._now_ms() + REFUSED_RETRY_MS))
        self.ready = True
        while True:
            await self._clock.sleep(RETRY_S)
            due = [number for number in newcomers if not_before_ms.get(number, 0) <= self._now_ms()]
            for upto_ms in sorted({newcomers[number] for number in due}):
                begun = [number for number in due if newcomers.get(number) == upto_ms]
                known = self._listings.by_id()
                refused = await self._fetch({number: known[number] for number in begun}, upto_ms)
                not_before_ms.update(dict.fromkeys(refused, self._now_ms() + REFUSED_RETRY_MS))
                for number in begun:
                    # It waits here until its past is there: so long, what lacks of it is known to be still to come.
                    if number not in refused and newcomers.get(number) == upto_ms:
                        await self._trimmed(number, upto_ms)
                        del newcomers[number]
                self.fetched += 1

    async def _trimmed(self, number: int, upto_ms: int) -> None:
        try:
            await self._store.call(trim_head, self._store.store, number, upto_ms)
        except StoreUnavailable as error:
            self._recent.note("history.failed", str(error))

    async def _fetch(
        self, instruments: Mapping[int, Instrument], end_ms: int, progress: Progress | None = None
    ) -> list[int]:
        """The history of these instruments up to a boundary; tried until it is there. Returns whom the exchange refuses."""
        refused: list[int] = []
        began = self._listings.began_again
        for since_ms in sorted({began.get(number, 0) for number in instruments}):
            alike = {number: one for number, one in instruments.items() if began.get(number, 0) == since_ms}
            refused += await self._fetch_since(alike, since_ms, end_ms, progress)
        return refused

    async def _fetch_since(
        self, instruments: Mapping[int, Instrument], since_ms: int, end_ms: int, progress: Progress | None
    ) -> list[int]:
        start_ms = max(min(end_ms - self._history_ms, _HOUR.open_at(end_ms - self._least_ms)), since_ms)
        while self._now_ms() < end_ms + SETTLE_MS:
            await self._clock.sleep(SETTLE_MS / 4_000)
        while True:
            try:
                done = await backfill(
                    self._rest,
                    self._store,
                    self._market,
                    instruments,
                    self._intervals,
                    start_ms,
                    end_ms,
                    now_ms=self._now_ms,
                    clock=self._clock,
                    progress=progress,
                    on_repaired=self._on_repaired,
                    held_from=self._held_from,
                )
            except (ExchangeError, StoreUnavailable, OSError) as error:
                self._recent.note("history.failed", str(error))
                await self._clock.sleep(RETRY_S)
            except Exception as error:  # noqa: BLE001 - put on record, with its traceback
                put_aside(self._recent, self._market, [one.symbol for one in instruments.values()], error)
                if len(instruments) > 1:
                    failed: list[int] = []
                    for number, one in instruments.items():
                        failed += await self._fetch_since({number: one}, since_ms, end_ms, None)
                    return failed
                return list(instruments)  # tried again like one that the exchange refuses
            else:
                self.differences += done.differences.candles
                return [number for number, one in instruments.items() if one.symbol in done.refused_symbols]

    def _tell(self, pace: Pace) -> None:
        if self.progress is None:
            minutes = max(pace.left_s / 60, 0.1)
            log.info(
                "history.started",
                market=self._market.value,
                text=f"live now; history ready in about {minutes:.1f} min at {pace.allowed_per_min} weight/min",
            )
        self.progress = (pace.done, pace.total, pace.left_s)
