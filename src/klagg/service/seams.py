"""The service's look at its own seams: whatever order its parts came in, a series is a run of minutes without holes.

A start's filling, a backfill, the past of a late listing and a pause that is over each bring their piece of a series. Between two
stored minutes of one life nothing may lack, nor between a listing and the first minute while its past is still to come: what lacks
is made without evidence, so that it stands in the repair's queue.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import structlog

from klagg.clock import Clock
from klagg.errors import StoreUnavailable
from klagg.interval import DAY_MS, HOUR_MS, MINUTE, MINUTE_MS, Interval
from klagg.model import Market, no_candles
from klagg.repair import Repairer
from klagg.service.aside import NAMED, put_aside
from klagg.service.listings import Listings
from klagg.service.past import Past
from klagg.service.pauses import write_filled
from klagg.service.recent import Recent
from klagg.store import SqliteStore
from klagg.store.thread import StoreThread

log = structlog.get_logger()

LOOK_S: Final = 5.0
"""How often it is seen whether there is anything new to look at."""
PACE_S: Final = 60.0
"""Every series' recent minutes are counted at least so often: some microseconds each."""
RECENT_MS: Final = 3 * HOUR_MS
SERIES_AT_ONCE: Final = 100
"""Series counted in one turn of the store thread."""
PIECE_MS: Final = 16 * DAY_MS
"""The whole history is counted at leisure, so much of a series at a time."""
PIECES: Final = 4
"""Pieces of history counted at each look."""
ASK_AGAIN_MS: Final = 600_000
"""A longer candle that lacks at the beginning of a series is asked for at most so often."""
_FAR_MS: Final = 1 << 62


class Seams:
    """Looks for holes until cancelled; the first look goes back to before the absence that this start has made up for.

    `began_ms`: the market's first minute. Symbols listed before it have their candles from there.
    """

    def __init__(
        self,
        market: Market,
        *,
        listings: Listings,
        past: Past,
        store: StoreThread,
        repairer: Repairer,
        intervals: Sequence[Interval],
        clock: Clock,
        recent: Recent,
        now_ms: Callable[[], int],
        absent_ms: int,
        began_ms: int,
    ) -> None:
        self.looked = 0
        """How often every series' recent minutes have been counted."""
        self.filled = 0
        """Minutes that were found missing."""
        self._market = market
        self._listings = listings
        self._past = past
        self._store = store
        self._clock = clock
        self._recent = recent
        self._began_ms = began_ms
        self._back_ms = absent_ms + RECENT_MS
        self._repairer = repairer
        self._intervals = tuple(intervals)
        self._now_ms = now_ms
        self._place: tuple[int, int] = (0, 0)
        self._asked_ms: dict[int, int] = {}

    async def run(self) -> None:
        """Look now and then, and whenever a past has come or is to come."""
        looked_ns, seen = None, -1
        while True:
            now_ns = self._clock.monotonic_ns()
            is_due = looked_ns is None or now_ns - looked_ns >= PACE_S * 1e9
            if is_due or self._past.fetched != seen or self._listings.newcomers:
                seen, looked_ns = self._past.fetched, now_ns
                await self.look()
            for _ in range(PIECES):
                await self._at_leisure()
            await self._clock.sleep(LOOK_S)

    async def look(self) -> None:
        """Count every series' recent minutes; a series that cannot be looked at is put aside."""
        numbers = list(self._listings.by_id())
        for at in range(0, len(numbers), SERIES_AT_ONCE):
            await self._mend(numbers[at : at + SERIES_AT_ONCE], -self._back_ms, _FAR_MS)
        if self._past.ready:
            self.looked += 1
            self._back_ms = RECENT_MS

    async def _at_leisure(self) -> None:
        """Count the next piece of the history of one series, all of them in turn."""
        number, start_ms = self._place
        known = sorted(self._listings.by_id())
        if number not in known:
            number, start_ms = next((one for one in known if one > number), known[0] if known else 0), 0
        if not known:
            return
        if start_ms == 0:
            await self._begin(number)
        await self._mend([number], start_ms, start_ms + PIECE_MS)
        last_ms = await self._first_after(number, start_ms + PIECE_MS)
        later = [one for one in known if one > number]
        self._place = (number, last_ms) if last_ms else ((later or known)[0], 0)

    async def _begin(self, number: int) -> None:
        """Have the longer candles fetched that the first minute is in: no minutes that are stored tile them."""
        now_ms, instrument = self._now_ms(), self._listings.by_id()[number]
        if number in self._listings.newcomers or now_ms - self._asked_ms.get(number, -ASK_AGAIN_MS) < ASK_AGAIN_MS:
            return
        try:
            span = await self._store.call(lacking_first, self._store.store, self._market, number, self._intervals)
        except StoreUnavailable as error:
            self._recent.note("seam.failed", str(error))
            return
        if span is not None:
            self._asked_ms[number] = now_ms
            self._repairer.fetch(instrument.symbol, *span)

    async def _first_after(self, number: int, from_ms: int) -> int:
        try:
            minutes = await self._store.call(self._store.store.read, number, MINUTE, from_ms, _FAR_MS, 1)
        except StoreUnavailable:
            return from_ms
        return int(minutes["open_ms"][0]) if len(minutes) else 0

    async def _mend(self, numbers: Sequence[int], start_ms: int, end_ms: int) -> None:
        known = self._listings.by_id()
        heads = {
            number: known[number].listed_ms
            for number in numbers
            if number in self._listings.newcomers and known[number].listed_ms >= self._began_ms
        }
        try:
            found = await self._store.call(self._fill, numbers, heads, start_ms, end_ms, self._now_ms())
        except StoreUnavailable as error:
            self._recent.note("seam.failed", str(error))
            return
        except Exception as error:  # noqa: BLE001 - put on record, with its traceback
            put_aside(self._recent, self._market, [known[number].symbol for number in numbers], error)
            return
        if found:
            self.filled += sum(found.values())
            self._recent.counts["seam.filled"] += sum(found.values())
            log.warning(
                "seam.filled",
                market=self._market.value,
                symbols=sorted(known[number].symbol for number in found)[:NAMED],
                count=len(found),
                minutes=sum(found.values()),
            )

    def _fill(
        self, numbers: Sequence[int], heads: dict[int, int], start_ms: int, end_ms: int, now_ms: int
    ) -> dict[int, int]:
        """In the store's thread: make what lacks of these series in `[start_ms, end_ms)`; how many minutes of each were made.

        A negative `start_ms` is before what is closed.
        """
        store = self._store.store
        closed_ms = store.closed_upto(self._market) or 0
        start_ms = closed_ms + start_ms if start_ms < 0 else start_ms
        found = {}
        # Like a history that comes later these minutes are no news: no event tells of them before they are the exchange's.
        with store.transaction(), store.knowing(now_ms, publish_new=False):
            for number in numbers:
                made = fill_head(store, number, heads[number], closed_ms) if heads.get(number) else 0
                made += fill_holes(store, number, start_ms, min(end_ms, closed_ms))
                if made:
                    found[number] = made
        return found


def fill_holes(store: SqliteStore, instrument_id: int, start_ms: int, end_ms: int) -> int:
    """Make the minutes that lack between stored ones of the present life: how many there were."""
    lives = store.lives(instrument_id)
    if len(lives) > 1:
        start_ms = max(start_ms, MINUTE.open_at(lives[-1].listed_ms))
    count, first_ms, last_ms = store.count_minutes(instrument_id, start_ms, end_ms)
    if count == 0:
        return 0
    born_ms = MINUTE.open_at(lives[-1].listed_ms) if len(lives) > 1 else 0
    before = store.read(instrument_id, MINUTE, born_ms, first_ms, 1, descending=True)
    begun_ms = int(before["open_ms"][0]) if len(before) else first_ms
    if begun_ms + MINUTE_MS >= first_ms and count * MINUTE_MS == last_ms + MINUTE_MS - first_ms:
        return 0
    made = 0
    opens = np.concatenate([[begun_ms], store.read(instrument_id, MINUTE, first_ms, last_ms + MINUTE_MS)["open_ms"]])
    for at in np.flatnonzero(np.diff(opens) > MINUTE_MS):
        hole_ms, until_ms = int(opens[at]) + MINUTE_MS, int(opens[at + 1])
        last = store.read(instrument_id, MINUTE, hole_ms - MINUTE_MS, hole_ms)
        made += write_filled(store, instrument_id, last, hole_ms, until_ms)
    return made


def lacking_first(
    store: SqliteStore, market: Market, instrument_id: int, intervals: Sequence[Interval]
) -> tuple[int, int] | None:
    """The minutes from the first one of the present life to the end of the longest closed candle around it that is not stored."""
    lives = store.lives(instrument_id)
    closed_ms = store.closed_upto(market) or 0
    first = store.read(instrument_id, MINUTE, MINUTE.open_at(lives[-1].listed_ms), _FAR_MS, 1)
    if len(first) == 0:
        return None
    first_ms = int(first["open_ms"][0])
    ends = [
        interval.next_open(open_ms)
        for interval in intervals
        if (open_ms := interval.open_at(first_ms)) < first_ms
        and interval.next_open(open_ms) <= closed_ms
        and len(store.read(instrument_id, interval, open_ms, open_ms + 1)) == 0
    ]
    return (first_ms, max(ends)) if ends else None


def fill_head(store: SqliteStore, instrument_id: int, listed_ms: int, closed_ms: int) -> int:
    """Make the minutes between a listing and the first one stored, where that is within a day: how many there were."""
    born_ms = MINUTE.open_at(max(listed_ms, store.lives(instrument_id)[-1].listed_ms))
    first = store.read(instrument_id, MINUTE, born_ms, closed_ms, 1)
    if len(first) == 0 or not born_ms < int(first["open_ms"][0]) <= born_ms + DAY_MS:
        return 0
    before = no_candles(1)
    for name in ("price_scale", "qty_scale"):
        before[name] = first[name]
    before["close"] = first["open"]
    return write_filled(store, instrument_id, before, born_ms, int(first["open_ms"][0]))
