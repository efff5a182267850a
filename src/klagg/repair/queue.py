"""What waits for repair: the database's unverified candles, and the spans that others ask for."""

from collections.abc import Callable, Collection
from typing import Final

import numpy as np

from klagg.exchange.klines import PAGES, SETTLE_MS
from klagg.interval import INTERVALS, MINUTE, MINUTE_MS
from klagg.model import Ints, Market
from klagg.repair.patience import Key
from klagg.repair.plan import Fetch
from klagg.store.thread import StoreThread

LONGER_AGE_MS: Final = 120_000
"""A longer candle is given this long for its minutes to verify it before its own kline is fetched."""
PAGE: Final = 5_000
"""Candles of the queue read at a time, so that a commit never waits long for a read."""
PAGES_AT_ONCE: Final = 20
"""Pages read for one plan: as many minutes of a whole market as the cheapest requests hold. Older candles come when these have
been asked for."""
PAGES_BACK: Final = 4
"""Pages read for one plan where nothing may be tried yet; the next plan reads on from there, so that no heap of waiting
candles, however high, hides what lies behind it."""
ASKED_BOUND: Final = 100_000
"""Spans asked for by others that wait (some MB); when full, new ones are dropped and counted: the comparison at leisure or
the audit finds them."""

Page = np.ndarray[tuple[int], np.dtype[np.void]]
"""An array of `store.UNVERIFIED`."""


class Asked:
    """Spans that others ask for, until they have settled."""

    def __init__(self) -> None:
        self.dropped = 0
        self._due: dict[Fetch, int] = {}

    def keep(self, fetch: Fetch, not_before_ms: int = 0) -> None:
        """Have a span fetched once it has settled, and not before an instant."""
        if len(self._due) >= ASKED_BOUND and fetch not in self._due:
            self.dropped += 1
        else:
            self._due[fetch] = max(fetch.end_ms + SETTLE_MS, not_before_ms)

    def take(self, now_ms: int) -> list[Fetch]:
        """The spans that may be asked for now; they are no longer kept."""
        due = [fetch for fetch, due_ms in self._due.items() if due_ms <= now_ms]
        for fetch in due:
            del self._due[fetch]
        return due


class Queue:
    """The database's unverified candles of one kind, urgent or not, newest first."""

    def __init__(self, store: StoreThread, market: Market, *, urgent: bool, age_ms: int) -> None:
        self._store = store
        self._market = market
        self._urgent = urgent
        self._age_ms = age_ms
        self._behind_ms: int | None = None
        """Where the next plan reads on, once it comes upon candles that wait."""

    async def ready(
        self, now_ms: int, known: Collection[int], is_ready: Callable[[Key], bool], *, hold: bool
    ) -> dict[tuple[int, int], list[int]]:
        """The candles of known symbols that may be tried now, by instrument and interval code.

        `hold`: minutes wait for one of the same symbol that settles within seconds and costs no more together with them.
        """
        found: dict[tuple[int, int], list[int]] = {}
        allowed = np.fromiter(known, np.int64)
        before_ms, barren = now_ms, 0
        held_from: dict[int, int] = {}
        for number in range(PAGES_AT_ONCE):
            page, last = await self._page(before_ms)
            if number == 0 and hold:
                held_from = self._held_from(page, now_ms)
            fruitful = False
            for key in page[self._ripe(page, now_ms, allowed)].tolist():
                instrument_id, code, open_ms = key[:3]
                if code == MINUTE.code and open_ms >= held_from.get(instrument_id, now_ms):
                    continue
                if is_ready(key[:3]):
                    found.setdefault((instrument_id, code), []).append(open_ms)
                    fruitful = True
            if last:
                self._behind_ms = None
                break
            before_ms = int(page["open_ms"][-1]) + 1
            if not fruitful:
                if barren == 0 and self._behind_ms is not None:
                    before_ms = min(before_ms, self._behind_ms)
                barren += 1
                self._behind_ms = before_ms
                if barren >= PAGES_BACK:
                    break
        return {key: sorted(set(opens)) for key, opens in found.items()}

    async def _page(self, before_ms: int) -> tuple[Page, bool]:
        """The newest candles that open before an instant, and whether there are no others.

        Never only candles of one instant (unless there are no others): the next page begins with the last instant again.
        """
        limit = PAGE
        while True:
            page: Page = await self._store.call(self._read, before_ms, limit)
            if len(page) < limit:
                return page, True
            if page["open_ms"][0] != page["open_ms"][-1]:
                return page, False
            limit *= 2

    def _read(self, before_ms: int, limit: int) -> Page:
        store = self._store.store
        return store.unverified(self._market, before_ms=before_ms, urgent=self._urgent, limit=limit)

    def _ripe(self, page: Page, now_ms: int, allowed: Ints) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Which candles of a page are of known symbols and old enough."""
        longer_ms = self._age_ms if self._urgent else max(self._age_ms, LONGER_AGE_MS)
        ages = np.where(page["interval"] == MINUTE.code, self._age_ms, longer_ms)
        ripe: np.ndarray[tuple[int], np.dtype[np.bool_]] = np.isin(page["instrument_id"], allowed)
        ripe &= _ends_ms(page) + ages <= now_ms
        return ripe

    @staticmethod
    def _held_from(page: Page, now_ms: int) -> dict[int, int]:
        """By symbol the open from which on its minutes wait for one that has closed and not settled."""
        unsettled = page[page["interval"] == MINUTE.code]
        ends_ms = unsettled["open_ms"] + MINUTE_MS
        unsettled = unsettled[(ends_ms <= now_ms) & (ends_ms > now_ms - SETTLE_MS)]
        reach_ms = (min(rows for pages in PAGES.values() for rows, _ in pages) - 1) * MINUTE_MS
        return dict(zip(unsettled["instrument_id"].tolist(), (unsettled["open_ms"] - reach_ms).tolist(), strict=True))


def _ends_ms(page: Page) -> Ints:
    ends_ms: Ints = page["open_ms"].astype(np.int64)
    for code in np.unique(page["interval"]).tolist():
        interval = INTERVALS[code]
        chosen = page["interval"] == code
        if interval.step_ms:
            ends_ms[chosen] += interval.step_ms
        else:
            ends_ms[chosen] = [interval.next_open(open_ms) for open_ms in ends_ms[chosen].tolist()]
    return ends_ms
