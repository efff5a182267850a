"""The rounds of repair: when what is asked for, what becomes of it, and who is told.

The repair queue is the database's own list of unverified candles, so it survives restarts. Urgent candles are fetched as
soon as they have settled; the others are compared at a stated pace, after the closing pushes had their chance. It takes no
claim and moves no `closed_upto`: the store's guard refuses what it must not write.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import structlog

from klagg.clock import Clock
from klagg.errors import ExchangeError, KlaggError, StoreError
from klagg.exchange.budget import Purpose
from klagg.exchange.klines import SETTLE_MS
from klagg.exchange.rest import RestClient
from klagg.interval import DAY_MS, MINUTE, MINUTE_MS, Interval
from klagg.model import Candles, Flag, Instrument, Ints, Market, no_candles
from klagg.refold import Refolded, Span, refold
from klagg.repair import plan, queue, settling
from klagg.repair.plan import Fetch, Queue
from klagg.store.thread import StoreThread

log = structlog.get_logger()

URGENT_PACE_S: Final = 1.0
"""How often the queue is asked for urgent candles."""
LEISURE_PACE_S: Final = 60.0
"""How often the others are compared."""
LEISURE_AGE_MS: Final = 45_000
"""A candle this old after its close has had its chance of a closing push."""
LEISURE_SHARE: Final = 0.1
"""How much of the exchange's weight per minute one leisurely round may take."""
FOLD_RETRY_MS: Final = 10_000
"""A longer candle that waits for its children is folded again this often from what is stored."""
RETRY_MS: Final = 30_000
"""A candle that could not be settled is not asked for again sooner."""
REFUSED_RETRY_MS: Final = 600_000
"""Nor is anything of a symbol that the exchange refuses."""
REQUESTS_AT_ONCE: Final = 4
GAPS_BACK_MS: Final = 30 * DAY_MS
"""Gaps on record that are newer than this are fetched at the start."""
BACKOFF_FIRST_S: Final = 1.0
BACKOFF_LAST_S: Final = 60.0

OnRepaired = Callable[[Ints, Candles, Ints, Candles, int], Awaitable[None]]
"""Told (instrument ids, the exchange's candles now stored, instrument ids of bases, bases, upto_ms): see `Refolded`."""
InstrumentsById = Callable[[], Mapping[int, Instrument]]


@dataclass(slots=True)
class RepairStats:
    """What the repairer has done since it was made.

    `repaired`: urgent or differing candles replaced; `equal`: found equal by REST; `differences`: candles that stood on
    evidence and differed; `pending`: urgent candles seen in the last round.
    """

    repaired: int = 0
    equal: int = 0
    differences: int = 0
    unmatched: int = 0
    pending: int = 0
    requests: int = 0
    dropped: int = 0
    last_error: str = ""


class Repairer:
    """Settles a market's unverified candles with the exchange. `run` never ends by an error of the world."""

    def __init__(
        self,
        market: Market,
        rest: RestClient,
        store: StoreThread,
        instruments: InstrumentsById,
        *,
        now_ms: Callable[[], int],
        clock: Clock,
        intervals: Sequence[Interval],
        on_repaired: OnRepaired | None = None,
    ) -> None:
        self.stats = RepairStats()
        self._market = market
        self._rest = rest
        self._store = store
        self._instruments = instruments
        self._now_ms = now_ms
        self._clock = clock
        self._intervals = tuple(intervals)
        self._on_repaired = on_repaired
        self._asked = queue.Asked()
        self._waiting = queue.Waiting()
        self._gate = asyncio.Semaphore(REQUESTS_AT_ONCE)
        self._deadline_ns: int | None = None
        self._leisure_ns = 0
        self._gaps_read = False

    # What others ask for

    def ask(self, instrument_id: int, open_ms: int) -> None:
        """Compare one minute, whatever it is marked, once it has settled."""
        self._keep(Fetch(instrument_id, MINUTE, open_ms, open_ms + MINUTE_MS))

    def fetch(self, symbol: str, start_ms: int, end_ms: int) -> None:
        """Fetch the minutes of a symbol ("" for all) in `[start_ms, end_ms)`, stored or not."""
        for instrument_id, instrument in self._instruments().items():
            if symbol in {"", instrument.symbol}:
                self._keep(Fetch(instrument_id, MINUTE, start_ms, end_ms))

    def _keep(self, fetch: Fetch) -> None:
        self._asked.keep(fetch)
        self.stats.dropped = self._asked.dropped

    async def refold_after(
        self, instrument_ids: Iterable[int], start_ms: int, end_ms: int, *, numbers_changed: bool = True
    ) -> None:
        """Fold the parents of minutes that were verified or replaced in the store by someone else."""
        spans = self._spans((int(instrument_id), start_ms, end_ms) for instrument_id in instrument_ids)
        if spans:
            refolded = await self._store.call(self._refold, spans, numbers_changed)
            await self._tell(np.zeros(0, np.int64), no_candles(), refolded)

    # Rounds

    async def run(self) -> None:
        """Repair until cancelled."""
        failures = 0
        while True:
            try:
                await self._read_gaps()
                await self._urgent_round()
                if self._clock.monotonic_ns() >= self._leisure_ns:
                    self._leisure_ns = self._clock.monotonic_ns() + int(LEISURE_PACE_S * 1e9)
                    await self._leisure_round()
            except (KlaggError, OSError, TimeoutError) as error:
                failures += 1
                self._note(error)
                await self._clock.sleep(min(BACKOFF_FIRST_S * 2 ** min(failures - 1, 16), BACKOFF_LAST_S))
            else:
                failures = 0
                await self._clock.sleep(URGENT_PACE_S)

    async def fill(self, deadline_s: float) -> int:
        """Repair what is urgent until nothing is left to do or the deadline has passed; returns how many urgent ones remain.

        Raises:
            ExchangeError: the exchange cannot be reached.
            StoreError: the database cannot be used.

        """
        self._deadline_ns = self._clock.monotonic_ns() + int(deadline_s * 1e9)
        try:
            while await self._urgent_round() and not self._is_late(0):
                pass
        finally:
            self._deadline_ns = None
        return self.stats.pending

    def _is_late(self, wait_ms: int) -> bool:
        return self._deadline_ns is not None and self._clock.monotonic_ns() + wait_ms * 1_000_000 >= self._deadline_ns

    async def _urgent_round(self) -> int:
        """Settle what is urgent or asked for; returns how many candles or spans were brought to an end."""
        done = await self._settle_all(self._asked.take(self._now_ms()))
        ready = await self._ready(SETTLE_MS, urgent=True)
        self.stats.pending = sum(len(opens) for opens in ready.values())
        return done + await self._settle_queue(ready, weight=None)

    async def _leisure_round(self) -> int:
        ready = await self._ready(LEISURE_AGE_MS, urgent=False)
        return await self._settle_queue(ready, weight=int(self._rest.budget.limit * LEISURE_SHARE))

    async def _ready(self, age_ms: int, *, urgent: bool) -> dict[tuple[int, int], list[int]]:
        now_ms = self._now_ms()
        return await queue.ready(
            self._store,
            self._market,
            self._waiting,
            self._instruments(),
            closed_by_ms=now_ms - age_ms,
            now_ms=now_ms,
            urgent=urgent,
        )

    async def _settle_queue(self, ready: Queue, weight: int | None) -> int:
        """Settle candles of the queue: minutes first, then the longer ones that their minutes cannot settle."""
        minutes = {key: opens for key, opens in ready.items() if key[1] == MINUTE.code}
        longer = {key: opens for key, opens in ready.items() if key[1] != MINUTE.code}
        fetches = plan.fetches(self._market, minutes)
        if weight is not None:
            weight, fetches = plan.affordable(self._market, fetches, weight)
        done = await self._settle_all(fetches)
        if longer:
            wanted = await self._store.call(
                settling.unsettled_longer, self._store.store, self._market, self._intervals, longer, self._now_ms()
            )
            self._fold_later(longer, wanted)
            fetches = plan.fetches(self._market, wanted)
            if weight is not None:
                _, fetches = plan.affordable(self._market, fetches, weight)
            done += await self._settle_all(fetches)
        return done

    def _fold_later(self, longer: Queue, wanted: Queue) -> None:
        """Longer candles that were folded as far as can be wait for their children, before their own klines are fetched."""
        until_ms = self._now_ms() + FOLD_RETRY_MS
        for (instrument_id, code), opens in longer.items():
            for open_ms in set(opens).difference(wanted.get((instrument_id, code), ())):
                self._waiting.put((instrument_id, code, open_ms), until_ms)

    # One range

    async def _settle_all(self, fetches: Sequence[Fetch]) -> int:
        """Settle ranges, a few at a time, in order.

        Raises:
            ExchangeError | StoreError | OSError: the first failure, after the others have ended.

        """
        if not fetches:
            return 0
        results = await asyncio.gather(*(self._gated(fetch) for fetch in fetches), return_exceptions=True)
        for fetch, result in zip(fetches, results, strict=True):
            if isinstance(result, BaseException) and not fetch.opens:
                self._keep(fetch)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return sum(result for result in results if isinstance(result, int))

    async def _gated(self, fetch: Fetch) -> int:
        async with self._gate:
            return await self._settle(fetch)

    async def _settle(self, fetch: Fetch) -> int:
        """Ask for one range and bring the answer to the store; returns how many candles are settled by it."""
        instrument = self._instruments().get(fetch.instrument_id)
        now_ms = self._now_ms()
        if instrument is None or self._is_late(
            self._rest.budget.wait_ms(fetch.weight(self._market), Purpose.REPAIR, now_ms)
        ):
            if instrument is not None and not fetch.opens:
                self._keep(fetch)
            return 0
        self.stats.requests += 1
        try:
            rows = await self._rest.klines(
                instrument.symbol,
                fetch.interval,
                start_ms=fetch.start_ms,
                end_ms=plan.asked_end_ms(self._market, fetch, now_ms),
                price_scale=instrument.price_scale,
                qty_scale=instrument.qty_scale,
                purpose=Purpose.REPAIR,
            )
        except ExchangeError as error:
            if getattr(error, "http_status", None) in {400, 404}:
                # One symbol that the exchange refuses must not hold up the others.
                self._waiting.instruments[fetch.instrument_id] = now_ms + REFUSED_RETRY_MS
                self._note(error)
                return 0
            raise
        settled = await self._store.call(
            self._bring, fetch, rows[rows["flags"] & Flag.VERIFIED != 0], instrument, now_ms
        )
        self._count(fetch, settled, now_ms)
        await self._tell(
            np.full(len(settled.accepted), fetch.instrument_id, np.int64), settled.accepted, settled.refolded
        )
        return settled.ended

    def _bring(self, fetch: Fetch, rows: Candles, instrument: Instrument, now_ms: int) -> settling.Settled:
        return settling.settle(
            self._store.store,
            self._market,
            self._intervals,
            fetch,
            rows,
            listed_ms=instrument.listed_ms,
            now_ms=now_ms,
        )

    def _count(self, fetch: Fetch, settled: settling.Settled, now_ms: int) -> None:
        stats = self.stats
        stats.equal += settled.equal
        stats.repaired += settled.changed
        stats.differences += settled.differences
        stats.unmatched += settled.unmatched
        if settled.refused and not fetch.opens:
            self._keep(fetch)  # its owner has not closed those minutes yet
        done = set(settled.accepted["open_ms"].tolist())
        for open_ms in fetch.opens - done:
            self._waiting.put((fetch.instrument_id, fetch.interval.code, open_ms), now_ms + RETRY_MS)
        if settled.differences:
            log.warning(
                "repair.differences",
                market=self._market.value,
                symbol=self._instruments()[fetch.instrument_id].symbol,
                interval=fetch.interval.name,
                candles=settled.differences,
                start_ms=fetch.start_ms,
            )
        if settled.unmatched:
            log.warning(
                "repair.unmatched",
                market=self._market.value,
                symbol=self._instruments()[fetch.instrument_id].symbol,
                interval=fetch.interval.name,
                candles=settled.unmatched,
                start_ms=fetch.start_ms,
            )

    # Folding and telling

    def _spans(self, spans: Iterable[tuple[int, int, int]]) -> list[Span]:
        instruments = self._instruments()
        return [
            Span(instrument_id, start_ms, end_ms, instruments[instrument_id].listed_ms)
            for instrument_id, start_ms, end_ms in spans
            if instrument_id in instruments
        ]

    def _refold(self, spans: Sequence[Span], numbers_changed: bool) -> Refolded:
        store = self._store.store
        return refold(store, spans, self._intervals, store.closed_upto(self._market), numbers_changed=numbers_changed)

    async def _tell(self, instrument_ids: Ints, candles: Candles, refolded: Refolded) -> None:
        if self._on_repaired is None:
            return
        nothing = np.zeros(0, np.int64)
        if len(candles):
            await self._on_repaired(instrument_ids, candles, nothing, no_candles(), 0)
        for upto_ms, base_ids, bases in refolded.by_upto():
            await self._on_repaired(nothing, no_candles(), base_ids, bases, upto_ms)

    async def _read_gaps(self) -> None:
        """Once: ask for the minutes that were given up on record and are still not there."""
        if self._gaps_read:
            return
        self._gaps_read = True
        now_ms = self._now_ms()
        try:
            for gap in await self._store.call(self._store.store.gaps, self._market):
                if gap.end_ms > now_ms - GAPS_BACK_MS:
                    self.fetch(gap.symbol, gap.start_ms, gap.end_ms)
        except StoreError:
            self._gaps_read = False
            raise

    def _note(self, error: BaseException) -> None:
        text = " ".join(str(error).split()) or type(error).__name__
        self.stats.last_error = text
        log.warning("repair.failed", market=self._market.value, reason=text)
