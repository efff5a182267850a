"""When what is asked for, what becomes of it, and who is told.

The repair queue is the database's own list of unverified candles, so it survives restarts. Urgent candles are fetched as
soon as they have settled; the others are compared at a stated pace, after the closing pushes had their chance. A plan is made
anew every few seconds, newest first, and several lanes work it off, so that a slow answer or a symbol that fails holds up
nothing else. It takes no claim and moves no `closed_upto`: the store's guard refuses what it must not write.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import structlog

from klagg.clock import Clock
from klagg.errors import KlaggError, RequestRejected
from klagg.exchange.budget import Purpose
from klagg.exchange.rest import RestClient
from klagg.interval import DAY_MS, MINUTE, MINUTE_MS, Interval
from klagg.model import Candles, Flag, Gap, Instrument, Ints, Market, no_candles
from klagg.refold import HeldFrom, Refolded, Span, nothing_runs, refold
from klagg.repair import plan, settling
from klagg.repair.agenda import Agenda
from klagg.repair.patience import RETRY_MS, Patience
from klagg.repair.plan import Fetch, Why
from klagg.repair.planner import Planner
from klagg.store import Quarantined
from klagg.store.thread import StoreThread

log = structlog.get_logger()

PACE_S: Final = 1.0
"""How often the queue is looked at while nothing is left of the last plan."""
PLAN_LIFE_MS: Final = 10_000
"""A longer plan is made anew this often: what has become urgent meanwhile is newer, and goes first."""
REQUESTS_AT_ONCE: Final = 24
"""Lanes: with a tenth of a second an answer they use up a minute's weight in some ten seconds. They leave a quarter of the
client's connections to others."""
GAPS_BACK_MS: Final = 30 * DAY_MS
"""Gaps on record that are newer than this are fetched at the start."""
GAPS_PACE_MS: Final = 10_000
"""How often gaps on record are looked at: those whose minutes are settled are closed."""
REFUSED: Final = "the exchange refuses the symbol"
"""The reason on record of what a symbol that is refused for good leaves unverified."""

OnRepaired = Callable[[Ints, Candles, Ints, Candles, int], Awaitable[None]]
"""Told (instrument ids, the exchange's candles now stored, instrument ids of bases, bases, upto_ms): see `Refolded`."""
InstrumentsById = Callable[[], Mapping[int, Instrument]]


@dataclass(slots=True)
class RepairStats:
    """What the repairer has done since it was made.

    `repaired`: urgent or differing candles replaced; `equal`: found equal by REST; `differences`: candles that stood on
    evidence and differed; `pending`: urgent candles of the last plan, and those on
    their way; `refused`: requests that the exchange refused; `put_aside`: answers that klagg could not handle.
    """

    repaired: int = 0
    equal: int = 0
    differences: int = 0
    unmatched: int = 0
    pending: int = 0
    requests: int = 0
    dropped: int = 0
    refused: int = 0
    put_aside: int = 0
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
        held_from: HeldFrom = nothing_runs,
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
        self._held_from = held_from
        self._agenda = Agenda()
        self._patience = Patience()
        self._planner = Planner(market, store, rest.budget, intervals, self._agenda, self._patience)
        self._retired: dict[int, Instrument] = {}
        self._deadline_ns: int | None = None
        self._ended = 0
        self._gaps_ms = 0
        self._record_read = False

    # What others ask for

    def ask(self, instrument_id: int, open_ms: int) -> None:
        """Compare one minute, whatever it is marked, once it has settled."""
        self._keep(Fetch(instrument_id, MINUTE, open_ms, open_ms + MINUTE_MS))

    def fetch(self, symbol: str, start_ms: int, end_ms: int) -> None:
        """Fetch the minutes of a symbol ("" for all) in `[start_ms, end_ms)`, stored or not.

        Longer candles follow from them; those that began before the span and ended within it are fetched themselves, since
        the minutes before it may not be stored.
        """
        begun = {interval: interval.open_at(start_ms) for interval in self._intervals if interval is not MINUTE}
        for instrument_id, instrument in self._known().items():
            if symbol in {"", instrument.symbol}:
                self._keep(Fetch(instrument_id, MINUTE, start_ms, end_ms))
                for interval, open_ms in begun.items():
                    if open_ms < start_ms and interval.next_open(open_ms) <= end_ms:
                        self._keep(Fetch(instrument_id, interval, open_ms, interval.next_open(open_ms)))

    def _keep(self, fetch: Fetch, not_before_ms: int = 0) -> None:
        self._planner.asked.keep(fetch, not_before_ms)
        self.stats.dropped = self._planner.asked.dropped

    def _known(self) -> Mapping[int, Instrument]:
        return {**self._retired, **self._instruments()}

    async def refold_after(
        self, instrument_ids: Iterable[int], start_ms: int, end_ms: int, *, numbers_changed: bool = True
    ) -> None:
        """Fold the parents of minutes that were verified or replaced in the store by someone else."""
        spans = self._spans((int(instrument_id), start_ms, end_ms) for instrument_id in instrument_ids)
        if spans:
            refolded = await self._store.call(self._refold, spans, numbers_changed, self._now_ms())
            await self._tell(np.zeros(0, np.int64), no_candles(), refolded)

    # Plans and lanes

    async def run(self) -> None:
        """Repair until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(REQUESTS_AT_ONCE):
                tasks.create_task(self._lane())
            while True:
                try:
                    await self._read_record()
                    await self._settle_gaps()
                    if len(self._agenda) == 0 or self._now_ms() - self._planner.planned_ms >= PLAN_LIFE_MS:
                        await self._plan(starting=False)
                except (KlaggError, OSError, TimeoutError) as error:
                    self._note(error)
                    self._patience.pause(self._now_ms())
                await self._clock.sleep(max(PACE_S, self._patience.pause_ms(self._now_ms()) / 1e3))

    async def fill(self, deadline_s: float) -> int:
        """Repair what is urgent until nothing is left to do or the deadline has passed; returns how many urgent ones remain."""
        self._deadline_ns = self._clock.monotonic_ns() + int(deadline_s * 1e9)
        lanes = [asyncio.create_task(self._lane()) for _ in range(REQUESTS_AT_ONCE)]
        filling = asyncio.create_task(self._until_settled())
        late = asyncio.create_task(self._clock.sleep(deadline_s))
        try:
            await asyncio.wait([filling, late], return_when=asyncio.FIRST_COMPLETED)
            if filling.done() and (error := filling.exception()) is not None:
                if not isinstance(error, (KlaggError, OSError, TimeoutError)):
                    raise error
                self._note(error)
        finally:
            self._deadline_ns = None
            tasks = [*lanes, filling, late]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return self.stats.pending

    async def _until_settled(self) -> None:
        while True:
            ended = self._ended
            await self._plan(starting=True)
            await self._agenda.finished()
            if self._ended == ended:
                return

    def _is_late(self, wait_ms: int) -> bool:
        return self._deadline_ns is not None and self._clock.monotonic_ns() + wait_ms * 1_000_000 >= self._deadline_ns

    async def _plan(self, *, starting: bool) -> None:
        await self._planner.plan(self._known().keys(), self._now_ms(), starting=starting)
        self.stats.pending = self._planner.pending

    async def _lane(self) -> None:
        """Settle what is on the agenda, one after the other, for ever."""
        while True:
            fetch = await self._agenda.next()
            ended = False
            try:
                while (pause_ms := self._patience.pause_ms(self._now_ms())) > 0:
                    await self._clock.sleep(pause_ms / 1e3)
                ended = await self._settle(fetch)
            except RequestRejected as error:
                await self._refused(fetch, error)
            except (KlaggError, OSError, TimeoutError) as error:
                self._note(error, fetch)
                self._patience.failed(fetch.instrument_id, self._now_ms())
            except Exception as error:  # noqa: BLE001 - data that nobody foresaw put one symbol's work aside, and end nothing
                await self._put_aside(fetch, error)
            finally:
                self._agenda.done(fetch)
                if not ended and fetch.why is Why.ASKED:
                    self._keep(fetch, self._now_ms() + RETRY_MS)

    # One range

    async def _settle(self, fetch: Fetch) -> bool:
        """Ask for one range and bring the answer to the store; returns whether that was done."""
        instrument = self._known().get(fetch.instrument_id)
        now_ms = self._now_ms()
        if instrument is None or self._patience.is_resting(fetch.instrument_id, now_ms):
            return instrument is None
        if self._is_late(self._rest.budget.wait_ms(fetch.weight(self._market), Purpose.REPAIR, now_ms)):
            return False
        self.stats.requests += 1
        start_ms, end_ms = fetch.start_ms, plan.asked_end_ms(self._market, fetch, now_ms)
        if self._has_lacked(fetch):
            start_ms, end_ms = await self._store.call(settling.span_to_ask, self._store.store, fetch, now_ms)
        rows = await self._rest.klines(
            instrument.symbol,
            fetch.interval,
            start_ms=start_ms,
            end_ms=end_ms,
            price_scale=instrument.price_scale,
            qty_scale=instrument.qty_scale,
            purpose=Purpose.REPAIR,
        )
        landing = asyncio.ensure_future(self._land(fetch, rows[rows["flags"] & Flag.VERIFIED != 0], instrument, now_ms))
        try:
            return await asyncio.shield(landing)
        except asyncio.CancelledError:
            # What the store knows the engine must be told, at the end of a start too.
            await landing
            raise

    def _has_lacked(self, fetch: Fetch) -> bool:
        """Whether an answer has lacked a candle of this range, so that the next one has to span it."""
        opens = fetch.opens or range(fetch.start_ms, fetch.end_ms, MINUTE_MS)
        return any(self._patience.has_lacked((fetch.instrument_id, fetch.interval.code, open_ms)) for open_ms in opens)

    async def _land(self, fetch: Fetch, rows: Candles, instrument: Instrument, now_ms: int) -> bool:
        """Bring an answer to the store and tell the engine; returns whether nothing of it is to be asked for again."""
        held_ms = self._held_from(fetch.instrument_id)
        settled = await self._store.call(self._bring, fetch, rows, instrument, held_ms, now_ms)
        self._patience.succeeded(fetch.instrument_id)
        self._count(fetch, settled, instrument, now_ms)
        await self._tell(
            np.full(len(settled.accepted), fetch.instrument_id, np.int64), settled.accepted, settled.refolded
        )
        return not settled.lacked and settled.refused == 0

    def _bring(
        self, fetch: Fetch, rows: Candles, instrument: Instrument, held_ms: int, now_ms: int
    ) -> settling.Settled:
        return settling.settle(
            self._store.store,
            self._market,
            self._intervals,
            instrument,
            fetch,
            rows,
            held_ms=held_ms,
            now_ms=now_ms,
        )

    def _count(self, fetch: Fetch, settled: settling.Settled, instrument: Instrument, now_ms: int) -> None:
        stats = self.stats
        self._ended += settled.ended
        stats.equal += settled.equal
        stats.repaired += settled.changed
        stats.differences += settled.differences
        stats.unmatched += settled.unmatched
        head = fetch.instrument_id, fetch.interval.code
        self._patience.settled((*head, open_ms) for open_ms in settled.accepted["open_ms"].tolist())
        for open_ms in settled.lacked:
            self._patience.lacked((*head, open_ms), fetch.interval.next_open(open_ms), now_ms)
        undone = fetch.opens.difference(settled.accepted["open_ms"].tolist(), settled.lacked)
        self._patience.put_off([(*head, open_ms) for open_ms in undone], now_ms + RETRY_MS, now_ms)
        if settled.differences:
            log.warning(
                "repair.differences",
                market=self._market.value,
                symbol=instrument.symbol,
                interval=fetch.interval.name,
                candles=settled.differences,
                start_ms=fetch.start_ms,
            )
        if settled.unmatched:
            log.warning(
                "repair.unmatched",
                market=self._market.value,
                symbol=instrument.symbol,
                interval=fetch.interval.name,
                candles=settled.unmatched,
                start_ms=fetch.start_ms,
            )

    async def _put_aside(self, fetch: Fetch, error: Exception) -> None:
        """An answer could not be handled: the symbol rests, and that it does is on record."""
        instrument = self._known().get(fetch.instrument_id)
        symbol = "" if instrument is None else instrument.symbol
        log.error("repair.put_aside", market=self._market.value, symbol=symbol, reason=repr(error), exc_info=error)
        self.stats.put_aside += 1
        self._patience.failed(fetch.instrument_id, self._now_ms())
        entry = Quarantined(
            self._market,
            symbol,
            "repair",
            "an answer that klagg could not handle",
            fetch.interval.name,
            fetch.start_ms,
            repr(error),
        )
        try:
            await self._store.call(self._store.store.put_aside, [entry], self._now_ms())
        except (KlaggError, OSError) as failure:
            self._note(failure, fetch)

    async def _refused(self, fetch: Fetch, error: RequestRejected) -> None:
        """The exchange refuses a symbol: it rests; once that has lasted, what is unverified of it goes on record."""
        self.stats.refused += 1
        self._note(error, fetch)
        if not self._patience.refused(fetch.instrument_id, self._now_ms()):
            return
        instrument = self._known().get(fetch.instrument_id)
        if instrument is None:
            return
        start_ms, end_ms = self._agenda.span(fetch)
        log.warning(
            "repair.refused", market=self._market.value, symbol=instrument.symbol, start_ms=start_ms, end_ms=end_ms
        )
        gap = Gap(self._market, instrument.symbol, start_ms, end_ms, REFUSED)
        try:
            await self._store.call(self._store.store.record_gap, gap, self._now_ms())
        except (KlaggError, OSError) as failure:
            self._note(failure, fetch)

    # Folding and telling

    def _spans(self, spans: Iterable[tuple[int, int, int]]) -> list[Span]:
        instruments = self._known()
        return [
            Span(instrument_id, start_ms, end_ms, instruments[instrument_id].listed_ms, self._held_from(instrument_id))
            for instrument_id, start_ms, end_ms in spans
            if instrument_id in instruments
        ]

    def _refold(self, spans: Sequence[Span], numbers_changed: bool, now_ms: int) -> Refolded:
        with self._store.store.knowing(now_ms) as store:
            closed_upto_ms = store.closed_upto(self._market)
            return refold(store, spans, self._intervals, closed_upto_ms, numbers_changed=numbers_changed)

    async def _tell(self, instrument_ids: Ints, candles: Candles, refolded: Refolded) -> None:
        if self._on_repaired is None:
            return
        nothing = np.zeros(0, np.int64)
        if len(candles):
            await self._on_repaired(instrument_ids, candles, nothing, no_candles(), 0)
        for upto_ms, base_ids, bases in refolded.by_upto():
            await self._on_repaired(nothing, no_candles(), base_ids, bases, upto_ms)

    # What is on record

    async def _read_record(self) -> None:
        """Once: take in the retired symbols, and ask for the minutes that were given up on record and are still not there."""
        if self._record_read:
            return
        now_ms = self._now_ms()
        store = self._store.store
        listed = await self._store.call(store.instruments, self._market)
        gaps = await self._store.call(store.gaps, self._market)
        self._record_read = True
        self._retired = {one.id: one.instrument for one in listed if one.retired_ms is not None}
        ids = {one.instrument.symbol: one.id for one in listed}
        for gap in gaps:
            if gap.reason == REFUSED:
                if gap.symbol in ids:
                    self._patience.is_on_record(ids[gap.symbol])
            elif gap.end_ms > now_ms - GAPS_BACK_MS:
                self.fetch(gap.symbol, gap.start_ms, gap.end_ms)

    async def _settle_gaps(self) -> None:
        """Now and then: close the gaps on record that have been repaired."""
        now_ms = self._now_ms()
        if now_ms - self._gaps_ms >= GAPS_PACE_MS:
            self._gaps_ms = now_ms
            await self._store.call(self._store.store.settle_gaps, self._market, now_ms)

    def _note(self, error: BaseException, fetch: Fetch | None = None) -> None:
        text = " ".join(str(error).split()) or type(error).__name__
        self.stats.last_error = text
        instrument = None if fetch is None else self._known().get(fetch.instrument_id)
        symbol = "" if instrument is None else instrument.symbol
        log.warning("repair.failed", market=self._market.value, symbol=symbol, reason=text)
