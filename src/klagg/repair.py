"""The repairer: what is not verified is fetched from the exchange, compared or replaced, and folded on.

The repair queue is the database's own list of unverified candles, so it survives restarts. Urgent candles are fetched as
soon as they have settled; the others are compared at a stated pace, after the closing pushes had their chance. It takes no
claim and moves no `closed_upto`: the store's guard refuses what it must not write.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import structlog

from klagg.clock import Clock
from klagg.errors import ExchangeError, KlaggError, StoreError
from klagg.exchange.budget import Purpose
from klagg.exchange.klines import SETTLE_MS, weight_of
from klagg.exchange.rest import RestClient, count_opens
from klagg.interval import DAY_MS, INTERVALS, MINUTE, MINUTE_MS, Interval, fold_source
from klagg.model import Candles, Flag, Instrument, Ints, Market, Origin, no_candles
from klagg.refold import Refolded, Span, refold, whole
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
LONGER_AGE_MS: Final = 120_000
"""A longer candle is given this long for its minutes to verify it before its own kline is fetched."""
UNMATCHED_AGE_MS: Final = 600_000
"""A kline that the exchange still does not have this long after the close will not come."""
FOLD_RETRY_MS: Final = 10_000
"""Until then it is folded again this often from what is stored."""
RETRY_MS: Final = 30_000
"""A candle that could not be settled is not asked for again sooner."""
REFUSED_RETRY_MS: Final = 600_000
"""Nor is anything of a symbol that the exchange refuses."""
QUEUE_PAGE: Final = 5_000
"""Candles of the queue read at a time; older ones are read when these are done or wait for their next try."""
QUEUE_PAGES: Final = 20
ASKED_BOUND: Final = 100_000
"""Spans asked for by others that wait (some MB); when full, new ones are dropped and counted: the comparison at leisure or
the audit finds them."""
WAITING_BOUND: Final = 1_000_000
"""Candles that wait for their next try; when full all are forgotten, and tried again at once."""
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


@dataclass(frozen=True, slots=True)
class Fetch:
    """One range of klines to ask for: opens in `[start_ms, end_ms)`; `opens` are those of the queue, empty for all."""

    instrument_id: int
    interval: Interval
    start_ms: int
    end_ms: int
    opens: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, eq=False)
class _Settled:
    """What became of one answer in the store."""

    accepted: Candles
    equal: int
    changed: int
    differences: int
    unmatched: int
    refused: int
    refolded: Refolded


def plan_ranges(market: Market, interval: Interval, opens: Iterable[int]) -> list[tuple[int, int]]:
    """The ranges to ask for these opens, cheapest by weight, ascending.

    Windows of 100 rows (on spot 1,000, which cost the same) are joined while that costs no more.
    """
    rows = 100 if market is Market.USDM else 1_000
    ranges: list[tuple[int, int]] = []
    for open_ms in sorted(opens):
        end_ms = interval.next_open(open_ms)
        if ranges and count_opens(interval, ranges[-1][0], end_ms) <= rows:
            ranges[-1] = ranges[-1][0], end_ms
        else:
            ranges.append((open_ms, end_ms))
    joined: list[tuple[int, int]] = []
    weight = 0
    for start_ms, end_ms in ranges:
        alone = weight_of(market, count_opens(interval, start_ms, end_ms))
        if joined:
            together = weight_of(market, count_opens(interval, joined[-1][0], end_ms))
            if together <= weight + alone:
                joined[-1], weight = (joined[-1][0], end_ms), together
                continue
        joined.append((start_ms, end_ms))
        weight = alone
    return joined


@dataclass(eq=False)
class _Waiting:
    """When candles and symbols may be tried again."""

    candles: dict[tuple[int, int, int], int] = field(default_factory=dict)
    instruments: dict[int, int] = field(default_factory=dict)

    def ready(self, key: tuple[int, int, int], now_ms: int) -> bool:
        return self.candles.get(key, 0) <= now_ms and self.instruments.get(key[0], 0) <= now_ms

    def put(self, key: tuple[int, int, int], until_ms: int) -> None:
        if len(self.candles) >= WAITING_BOUND:
            self.candles.clear()
        self.candles[key] = until_ms


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
        self._asked: deque[Fetch] = deque()
        self._waiting = _Waiting()
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
        if len(self._asked) >= ASKED_BOUND:
            self.stats.dropped += 1
        elif fetch not in self._asked:
            self._asked.append(fetch)

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
        done = await self._settle_all(self._take_asked())
        queue = await self._ready(self._now_ms() - SETTLE_MS, urgent=True)
        self.stats.pending = sum(len(opens) for opens in queue.values())
        return done + await self._settle_queue(queue, weight=None)

    async def _leisure_round(self) -> int:
        queue = await self._ready(self._now_ms() - LEISURE_AGE_MS, urgent=False)
        return await self._settle_queue(queue, weight=int(self._rest.budget.limit * LEISURE_SHARE))

    def _take_asked(self) -> list[Fetch]:
        settled_ms = self._now_ms() - SETTLE_MS
        asked = list(self._asked)
        self._asked = deque(fetch for fetch in asked if fetch.end_ms > settled_ms)
        return [fetch for fetch in asked if fetch.end_ms <= settled_ms]

    async def _ready(self, closed_by_ms: int, *, urgent: bool) -> dict[tuple[int, int], list[int]]:
        """The queue's candles that closed by an instant and may be tried now, by instrument and interval code."""
        now_ms = self._now_ms()
        before_ms = closed_by_ms - MINUTE_MS + 1
        instruments = self._instruments()
        for _ in range(QUEUE_PAGES):
            page = await self._store.call(self._read_queue, before_ms, urgent)
            found: dict[tuple[int, int], list[int]] = {}
            for instrument_id, code, open_ms, _origin in page.tolist():
                end_ms = INTERVALS[code].next_open(open_ms)
                longer_waits = not urgent and code != MINUTE.code and end_ms > now_ms - LONGER_AGE_MS
                late_enough = end_ms <= closed_by_ms and not longer_waits
                if (
                    late_enough
                    and instrument_id in instruments
                    and self._waiting.ready((instrument_id, code, open_ms), now_ms)
                ):
                    found.setdefault((instrument_id, code), []).append(open_ms)
            if found or len(page) < QUEUE_PAGE:
                return found
            before_ms = int(page["open_ms"][-1])
        return {}

    def _read_queue(self, before_ms: int, urgent: bool) -> np.ndarray[tuple[int], np.dtype[np.void]]:
        return self._store.store.unverified(self._market, before_ms=before_ms, urgent=urgent, limit=QUEUE_PAGE)

    async def _settle_queue(self, queue: Mapping[tuple[int, int], list[int]], weight: int | None) -> int:
        """Settle candles of the queue: minutes first, then the longer ones that their minutes cannot settle."""
        minutes = {key: opens for key, opens in queue.items() if key[1] == MINUTE.code}
        longer = {key: opens for key, opens in queue.items() if key[1] != MINUTE.code}
        fetches = self._newest_first(self._fetches(minutes))
        if weight is not None:
            weight, fetches = self._within(fetches, weight)
        done = await self._settle_all(fetches)
        if longer:
            wanted = await self._store.call(self._unsettled_longer, longer, self._now_ms())
            self._fold_later(longer, wanted)
            fetches = self._newest_first(self._fetches(wanted))
            if weight is not None:
                _, fetches = self._within(fetches, weight)
            done += await self._settle_all(fetches)
        return done

    def _fold_later(
        self, longer: Mapping[tuple[int, int], list[int]], wanted: Mapping[tuple[int, int], list[int]]
    ) -> None:
        """Longer candles that were folded as far as can be wait for their children, before their own klines are fetched."""
        until_ms = self._now_ms() + FOLD_RETRY_MS
        for (instrument_id, code), opens in longer.items():
            for open_ms in set(opens).difference(wanted.get((instrument_id, code), ())):
                self._waiting.put((instrument_id, code, open_ms), until_ms)

    def _fetches(self, queue: Mapping[tuple[int, int], list[int]]) -> list[Fetch]:
        fetches = []
        for (instrument_id, code), opens in queue.items():
            interval = INTERVALS[code]
            for start_ms, end_ms in plan_ranges(self._market, interval, opens):
                within = frozenset(open_ms for open_ms in opens if start_ms <= open_ms < end_ms)
                fetches.append(Fetch(instrument_id, interval, start_ms, end_ms, within))
        return fetches

    @staticmethod
    def _newest_first(fetches: list[Fetch]) -> list[Fetch]:
        return sorted(fetches, key=lambda fetch: -fetch.end_ms)

    def _within(self, fetches: Iterable[Fetch], weight: int) -> tuple[int, list[Fetch]]:
        """The fetches that the weight allows, and what is left of it."""
        chosen: list[Fetch] = []
        for fetch in fetches:
            weight -= weight_of(self._market, count_opens(fetch.interval, fetch.start_ms, fetch.end_ms))
            if weight < 0:
                return 0, chosen
            chosen.append(fetch)
        return weight, chosen

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
        to_ms, weight = self._asked_range(fetch, now_ms)
        if instrument is None or self._is_late(self._rest.budget.wait_ms(weight, Purpose.REPAIR, now_ms)):
            if instrument is not None and not fetch.opens:
                self._keep(fetch)
            return 0
        self.stats.requests += 1
        try:
            rows = await self._rest.klines(
                instrument.symbol,
                fetch.interval,
                start_ms=fetch.start_ms,
                end_ms=to_ms,
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
        settled = await self._store.call(self._bring, fetch, rows[rows["flags"] & Flag.VERIFIED != 0], now_ms)
        self._count(fetch, settled, now_ms)
        await self._tell(
            np.full(len(settled.accepted), fetch.instrument_id, np.int64), settled.accepted, settled.refolded
        )
        return settled.equal + settled.changed + settled.unmatched

    def _asked_range(self, fetch: Fetch, now_ms: int) -> tuple[int, int]:
        """The end to ask for, and the weight: a row more where it costs nothing, the evidence that earlier ones will not come."""
        weight = weight_of(self._market, max(count_opens(fetch.interval, fetch.start_ms, fetch.end_ms), 1))
        further_ms = fetch.interval.next_open(fetch.end_ms)
        settled = further_ms <= now_ms - SETTLE_MS
        if settled and weight_of(self._market, count_opens(fetch.interval, fetch.start_ms, further_ms)) == weight:
            return further_ms, weight
        return fetch.end_ms, weight

    def _bring(self, fetch: Fetch, rows: Candles, now_ms: int) -> _Settled:
        """In the store's thread, one transaction: write an answer, mark what it lacks, fold the parents."""
        store = self._store.store
        inside = (rows["open_ms"] >= fetch.start_ms) & (rows["open_ms"] < fetch.end_ms)
        if fetch.opens:
            inside &= np.isin(rows["open_ms"], list(fetch.opens))
        wanted = rows[inside]
        with store.transaction():
            held = store.read(fetch.instrument_id, fetch.interval, fetch.start_ms, fetch.end_ms)
            result = store.write(np.full(len(wanted), fetch.instrument_id, np.int64), wanted)
            lacking = self._lacking(fetch, rows, held, now_ms)
            if len(lacking):
                store.write(np.full(len(lacking), fetch.instrument_id, np.int64), lacking)
            touched = [*wanted["open_ms"][result.accepted].tolist(), *lacking["open_ms"].tolist()]
            refolded = self._refold(
                self._spans(
                    [(fetch.instrument_id, min(touched), fetch.interval.next_open(max(touched)))] if touched else []
                ),
                numbers_changed=bool(result.changed.any()) or len(wanted) > len(held),
            )
        evident = held["open_ms"][(held["origin"] >= Origin.FLAT) & (held["origin"] <= Origin.TRADES)]
        changed = result.accepted & (result.changed | ~np.isin(wanted["open_ms"], held["open_ms"]))
        return _Settled(
            accepted=wanted[result.accepted],
            equal=int((result.accepted & ~changed).sum()),
            changed=int(changed.sum()),
            differences=int(np.isin(wanted["open_ms"][result.changed], evident).sum()),
            unmatched=len(lacking),
            refused=int((result.revisions < 0).sum()),
            refolded=refolded,
        )

    def _lacking(self, fetch: Fetch, rows: Candles, held: Candles, now_ms: int) -> Candles:
        """Our candles for which the exchange has none: it answered with later rows, or had its time."""
        newest_ms = int(rows["open_ms"].max()) if len(rows) else -1
        old_ms = now_ms - UNMATCHED_AGE_MS
        ends_ms = np.array([fetch.interval.next_open(open_ms) for open_ms in held["open_ms"].tolist()], np.int64)
        final = (held["open_ms"] < newest_ms) | (ends_ms <= old_ms)
        unsettled = (held["flags"] & Flag.VERIFIED == 0) & (held["origin"] != Origin.UNMATCHED)
        lacking: Candles = held[final & unsettled & ~np.isin(held["open_ms"], rows["open_ms"])].copy()
        if fetch.opens:
            lacking = lacking[np.isin(lacking["open_ms"], list(fetch.opens))]
        lacking["origin"] = Origin.UNMATCHED
        return lacking

    def _count(self, fetch: Fetch, settled: _Settled, now_ms: int) -> None:
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

    # Longer candles

    def _unsettled_longer(
        self, queue: Mapping[tuple[int, int], list[int]], now_ms: int
    ) -> dict[tuple[int, int], list[int]]:
        """In the store's thread: fold longer candles from what is there now; those whose own kline must be fetched."""
        store = self._store.store
        wanted: dict[tuple[int, int], list[int]] = {}
        with store.transaction():
            closed_upto_ms = store.closed_upto(self._market)
            # Shorter ones first: they are what the next longer ones are folded from.
            for (instrument_id, code), opens in sorted(queue.items(), key=lambda item: item[0][1]):
                interval = INTERVALS[code]
                source = fold_source(interval, self._intervals)
                for open_ms in opens:
                    end_ms = interval.next_open(open_ms)
                    folded = whole(store, Span(instrument_id, open_ms, end_ms), interval, source, closed_upto_ms)
                    if len(folded):
                        store.write(np.full(len(folded), instrument_id, np.int64), folded)
                    row = store.read(instrument_id, interval, open_ms, open_ms + 1)
                    if len(row) == 0 or row["flags"][0] & Flag.VERIFIED or row["origin"][0] == Origin.UNMATCHED:
                        continue
                    if end_ms <= now_ms - (UNMATCHED_AGE_MS if len(folded) else LONGER_AGE_MS):
                        wanted.setdefault((instrument_id, code), []).append(open_ms)
        return wanted

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
