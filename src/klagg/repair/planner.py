"""What is to be asked for now: made anew every few seconds from the database's queue and from what others ask for."""

from collections.abc import Collection, Sequence
from typing import Final

from klagg.exchange.budget import WeightBudget
from klagg.exchange.klines import SETTLE_MS
from klagg.interval import MINUTE, Interval
from klagg.model import Market
from klagg.repair import plan, settling
from klagg.repair.agenda import Agenda
from klagg.repair.patience import FAILED_FIRST_MS, FOLD_RETRY_MS, Key, Patience
from klagg.repair.plan import Fetch, Wanted, Why
from klagg.repair.queue import Asked, Queue
from klagg.store.thread import StoreThread

LEISURE_PACE_MS: Final = 60_000
"""How often the others are compared."""
LEISURE_AGE_MS: Final = 45_000
"""A candle this old after its close has had its chance of a closing push."""
LEISURE_SHARE: Final = 0.25
"""How much of the exchange's weight per minute the comparison at leisure may take."""
ABSENT_AT_ONCE: Final = 1_000
"""Candles called `unmatched` that are looked at again in one plan; the others come with the next."""
LONGER_AT_ONCE: Final = 1_000
"""Longer candles of one plan that are folded from what is stored, before their own klines are asked for: below half a second
of the store's time."""


class Planner:
    """Fills an agenda: what is urgent or asked for, and at a stated pace what is compared at leisure; newest first."""

    def __init__(
        self,
        market: Market,
        store: StoreThread,
        budget: WeightBudget,
        intervals: Sequence[Interval],
        agenda: Agenda,
        patience: Patience,
    ) -> None:
        self.asked = Asked()
        self.planned_ms = 0
        self.pending = 0
        """Urgent candles of the last plan, and those that were on their way."""
        self._market = market
        self._store = store
        self._budget = budget
        self._intervals = tuple(intervals)
        self._agenda = agenda
        self._patience = patience
        self._urgent = Queue(store, market, urgent=True, age_ms=SETTLE_MS)
        self._leisure = Queue(store, market, urgent=False, age_ms=LEISURE_AGE_MS)
        self._leisure_ms = 0

    async def plan(self, known: Collection[int], now_ms: int, *, starting: bool) -> None:
        """Put on the agenda what may be asked for now of known symbols; at a start only what is urgent, and without waiting for more."""
        self.planned_ms = now_ms
        left = self._agenda.take_back()
        awake = set(known).difference(self._patience.resting(now_ms))
        for fetch in left:
            if fetch.why is Why.ASKED:
                self.asked.keep(fetch)
        planned = []
        for fetch in self.asked.take(now_ms):
            if fetch.instrument_id in awake:
                planned.append(fetch)
            elif fetch.instrument_id in known:
                self.asked.keep(fetch, now_ms + FAILED_FIRST_MS)
        urgent = await self._urgent.ready(now_ms, awake, self._is_ready, hold=not starting)
        self.pending = sum(len(opens) for opens in urgent.values()) + self._agenda.flying
        planned += await self._fetches(urgent, Why.URGENT)
        if not starting:
            if now_ms - self._leisure_ms >= LEISURE_PACE_MS:
                self._leisure_ms = now_ms
                leisurely = await self._leisure.ready(now_ms, awake, self._is_ready, hold=False)
                fetches = await self._fetches(leisurely, Why.LEISURE)
                fetches += plan.fetches(self._market, await self._absent(now_ms, awake), Why.LEISURE)
                weight = int(self._budget.limit * LEISURE_SHARE)
                planned += plan.affordable(self._market, fetches, weight)
            else:
                planned += [fetch for fetch in left if fetch.why is Why.LEISURE]
        self._agenda.put(planned)

    async def _absent(self, now_ms: int, awake: Collection[int]) -> Wanted:
        """The `unmatched` candles that are to be looked at again by now."""
        due = await self._store.call(self._store.store.absent_due, self._market, now_ms, ABSENT_AT_ONCE)
        wanted: dict[tuple[int, int], list[int]] = {}
        for row in due:
            key = int(row["instrument_id"]), int(row["interval"]), int(row["open_ms"])
            if key[0] in awake and self._is_ready(key):
                wanted.setdefault(key[:2], []).append(key[2])
                self._patience.is_absent([key])
        return wanted

    def _is_ready(self, key: Key) -> bool:
        return self._patience.is_ready(key, self.planned_ms) and not self._agenda.is_flying(key)

    async def _fetches(self, ready: Wanted, why: Why) -> list[Fetch]:
        """What settles these candles, newest first: minutes, and the longer ones that their minutes cannot settle."""
        minutes = {key: opens for key, opens in ready.items() if key[1] == MINUTE.code}
        longer = [
            (open_ms, instrument_id, code)
            for (instrument_id, code), opens in ready.items()
            if code != MINUTE.code
            for open_ms in opens
        ]
        # Those whose minutes are asked for now follow from these; the newest of the others are looked at.
        looked: dict[tuple[int, int], list[int]] = {}
        followers = [key for key in longer if (key[1], MINUTE.code) in minutes]
        others = sorted((key for key in longer if (key[1], MINUTE.code) not in minutes), reverse=True)[:LONGER_AT_ONCE]
        for open_ms, instrument_id, code in others:
            looked.setdefault((instrument_id, code), []).append(open_ms)
        wanted: Wanted = {}
        if looked:
            wanted = await self._store.call(
                settling.unsettled_longer,
                self._store.store,
                self._market,
                self._intervals,
                looked,
                self.planned_ms,
            )
        waiting = [
            (instrument_id, code, open_ms)
            for open_ms, instrument_id, code in (*followers, *others)
            if open_ms not in wanted.get((instrument_id, code), ())
        ]
        self._patience.put_off(waiting, self.planned_ms + FOLD_RETRY_MS, self.planned_ms)
        return plan.fetches(self._market, {**minutes, **wanted}, why)
