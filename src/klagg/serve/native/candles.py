"""Candles of several series in one answer: what is asked for, what is there, what of it is verified, and what is missing."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

import numpy as np

from klagg.interval import DAY_MS, MONTH_STEP, month_index, month_open_ms
from klagg.model import Candles, Flag, Ints, Market
from klagg.serve.native.asking import Named
from klagg.serve.native.problem import Problem
from klagg.serve.native.source import How, Known, Lookup, OfMarket
from klagg.serve.native.table import SeriesName, Table
from klagg.serve.running import RunningCandles
from klagg.serve.source import Frame, Listing, Live, TooMuch

T = TypeVar("T")

USUAL_LIMIT: Final = 500
MOST_LIMIT: Final = 10_000
"""Candles of one series in one answer."""
MOST_ROWS: Final = 50_000
"""Candles of one answer in JSON: some 20 MB."""
MOST_COLUMNS: Final = 250_000
"""Candles of one answer in columns: some 30 MB."""
AT_ONCE: Final = 32
"""Series read between two other reads."""
FEW: Final = 16
"""Parts that are put together on the loop: less work than handing it to a thread."""
MOST_SPANS: Final = 1_000
"""Missing spans that one answer names; all are counted."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request for candles, read and checked. `start_ms` None: the newest; `at_ms`: the candle that contains the instant."""

    market: Market
    symbols: Sequence[Listing]
    intervals: Sequence[Named]
    how: How
    start_ms: int | None = None
    end_ms: int | None = None
    limit: int | None = None
    at_ms: int | None = None
    with_open: bool = False
    most_rows: int = MOST_ROWS


@dataclass(frozen=True, slots=True)
class Missing:
    """A span of a series in which candles that were asked for are not in the answer."""

    symbol: str
    interval: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The answer: candles, how many are verified, closed and not, and what is missing."""

    table: Table
    now_ms: int
    durable_ms: int
    verified_ms: int
    verified: int
    unverified: int
    missing: Sequence[Missing]
    missing_candles: int
    truncated: bool
    next_ms: int | None


@dataclass(slots=True, eq=False)
class _Part:
    """One series on its way: what was found of `[start_ms, end_ms)`, whether there is more than the limit, and what runs."""

    one: Listing
    named: Named
    known: Known
    start_ms: int
    end_ms: int
    more: bool
    running: Known | None = None


class CandleReader:
    """Answers requests for candles: what grows with the answer is done in threads, some series at a time."""

    def __init__(self, live: Live, lookup: Lookup, running: RunningCandles) -> None:
        self._live = live
        self._lookup = lookup
        self._running = running

    async def find(self, ask: Ask) -> Found:
        """The answer.

        Raises:
            Problem: it would be too much.

        """
        durable_ms = self._live.durable_ms(ask.market)
        limit = self._limit(ask, durable_ms)
        try:
            parts = await self._parts(ask, durable_ms, limit)
        except TooMuch:
            raise Problem(
                "too_much",
                "These candles would be folded from too many shorter ones: ask for fewer, or for a shorter span.",
                413,
                "limit",
            ) from None
        pages = ask.start_ms is not None and ask.at_ms is None
        if ask.with_open and ask.how.as_of_ms is None and not ask.how.only_verified:
            await self._find_running(ask, parts, durable_ms, _cut_ms(parts, limit) if pages else None)
        next_ms, missing, missing_candles = await _beside(len(parts), partial(_settled, parts, limit, pages=pages))
        table, verified, closed = await _beside(len(parts), partial(_table, ask.market, parts))
        return Found(
            table,
            self._live.now_ms(ask.market),
            durable_ms,
            await self._lookup.verified_ms(ask.market),
            verified,
            closed - verified,
            missing,
            missing_candles,
            any(part.more for part in parts) or next_ms is not None,
            next_ms,
        )

    @staticmethod
    def _limit(ask: Ask, durable_ms: int) -> int:
        """The candles of one series, so that the answer stays within its bounds."""
        series = len(ask.symbols) * len(ask.intervals)
        if series > ask.most_rows:
            raise Problem(
                "too_much", f"{series} series are more than an answer holds ({ask.most_rows}).", 413, "symbols"
            )
        if ask.at_ms is not None:
            return 1
        usual = max(1, min(USUAL_LIMIT, ask.most_rows // max(series, 1)))
        limit = usual if ask.limit is None else ask.limit
        rows = 0
        for named in ask.intervals:
            most = limit
            if ask.start_ms is not None:
                end_ms = durable_ms if ask.end_ms is None else min(ask.end_ms, durable_ms)
                step_ms = named.frame.interval.step_ms or 28 * DAY_MS
                most = min(limit, max(0, (end_ms - ask.start_ms) // step_ms + 1))
            rows += most * len(ask.symbols)
        if rows > ask.most_rows:
            raise Problem(
                "too_much",
                f"{rows} candles are more than an answer holds ({ask.most_rows}): ask for fewer.",
                413,
                "limit",
            )
        return limit

    async def _parts(self, ask: Ask, durable_ms: int, limit: int) -> list[_Part]:
        """The closed candles of every series."""
        parts: list[_Part] = []
        kept = self._live.kept(ask.market)
        newest = ask.start_ms is None and ask.at_ms is None
        for named in ask.intervals:
            frame = named.frame
            start_ms, end_ms = _range(ask, frame, durable_ms)
            if ask.at_ms is not None and len(ask.symbols) > 1 and not frame.shift_ms and frame.interval in kept:
                found = await self._lookup.whole_market(ask.market, frame.interval, start_ms, ask.how)
                parts += await _beside(len(ask.symbols), partial(_of_market, ask, named, found, start_ms, end_ms))
                continue
            for first in range(0, len(ask.symbols), AT_ONCE):
                chosen = ask.symbols[first : first + AT_ONCE]
                # One more than is given tells whether there are more.
                known = await self._lookup.known(chosen, frame, start_ms, end_ms, limit + 1, ask.how, newest=newest)
                for one, candles in zip(chosen, known, strict=True):
                    parts.append(_part(one, named, candles, start_ms, end_ms, limit, newest=newest))
        return parts

    async def _find_running(self, ask: Ask, parts: Sequence[_Part], durable_ms: int, cut_ms: int | None) -> None:
        """Find the running candle of each series, where it opens in what is asked for and before the answer is cut."""
        symbols = [one.instrument.symbol for one in ask.symbols]
        running = dict(zip(symbols, self._live.running(ask.market, symbols), strict=True))
        now_ms = self._live.now_ms(ask.market)
        for part in parts:
            frame = part.named.frame
            open_ms = frame.open_at(durable_ms)
            wanted = frame.open_at(ask.at_ms) == open_ms if ask.at_ms is not None else _within(ask, open_ms)
            if not wanted or (cut_ms is not None and open_ms >= cut_ms):
                continue
            found = await self._running.of(part.one, frame, running[part.one.instrument.symbol])
            if len(found):
                candle: Candles = found.copy()
                candle["flags"] = 0
                part.running = Known(candle, np.zeros(1, np.int64), np.full(1, now_ms, np.int64))


async def _beside(size: int, work: Callable[[], T]) -> T:
    """What takes as long as its size, in a thread where that is felt."""
    return await asyncio.to_thread(work) if size > FEW else work()


def _range(ask: Ask, frame: Frame, durable_ms: int) -> tuple[int, int]:
    """The opens that are asked for, as far as their candles have closed."""
    if ask.at_ms is not None:
        open_ms = frame.open_at(ask.at_ms)
        return open_ms, open_ms + 1 if frame.next_open(open_ms) <= durable_ms else open_ms
    end_ms = frame.open_at(durable_ms) if durable_ms else 0
    return ask.start_ms or 0, end_ms if ask.end_ms is None else min(end_ms, ask.end_ms)


def _part(one: Listing, named: Named, known: Known, start_ms: int, end_ms: int, limit: int, *, newest: bool) -> _Part:
    """What was read of one series, and of what range that is."""
    more = len(known.candles) > limit
    if more:
        known = _chosen(known, slice(1, None) if newest else slice(0, limit))
    if newest:
        start_ms = named.frame.open_at(end_ms - 1) if end_ms > 0 else 0
        if len(known.candles):
            start_ms = int(known.candles["open_ms"][0])
    elif more:
        end_ms = named.frame.next_open(int(known.candles["open_ms"][-1]))
    return _Part(one, named, known, start_ms, end_ms, more)


def _of_market(ask: Ask, named: Named, found: OfMarket, start_ms: int, end_ms: int) -> list[_Part]:
    """One candle of each symbol, or none."""
    places = {number: place for place, number in enumerate(found.instrument_ids.tolist())} if end_ms > start_ms else {}
    none = _chosen(found.known, slice(0, 0))
    parts = []
    for one in ask.symbols:
        place = places.get(one.id)
        known = none if place is None else _chosen(found.known, slice(place, place + 1))
        parts.append(_Part(one, named, known, start_ms, end_ms, more=False))
    return parts


def _settled(parts: Sequence[_Part], limit: int, *, pages: bool) -> tuple[int | None, list[Missing], int]:
    """Where the next page begins, and what is missing of this one; the running candles put behind the closed ones."""
    next_ms = _cut(parts, limit) if pages else None
    if not pages:
        for part in parts:
            _make_room(part, limit)
    told = _missing(parts)
    for part in parts:
        if part.running is not None:
            part.known = _followed(part.known, part.running)
    return next_ms, *told


def _table(market: Market, parts: Sequence[_Part]) -> tuple[Table, int, int]:
    """The table, and how many of its candles are verified and closed."""
    names = [(SeriesName(part.one.instrument.symbol, part.named.name, part.named.frame), part.known) for part in parts]
    table = Table.of(market, names)
    flags = table.candles["flags"]
    return table, *(int(np.count_nonzero(flags & flag.value)) for flag in (Flag.VERIFIED, Flag.CLOSED))  # type: ignore[return-value]


def _within(ask: Ask, open_ms: int) -> bool:
    return (ask.start_ms is None or open_ms >= ask.start_ms) and (ask.end_ms is None or open_ms < ask.end_ms)


def _chosen(known: Known, rows: slice | np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Known:
    return Known(known.candles[rows], known.revisions[rows], known.known_ms[rows])


def _followed(known: Known, last: Known) -> Known:
    return Known(
        np.concatenate([known.candles, last.candles]),
        np.append(known.revisions, last.revisions),
        np.append(known.known_ms, last.known_ms),
    )


def _make_room(part: _Part, limit: int) -> None:
    """Leave out the oldest closed candle where the running one would be one more than the limit."""
    if part.running is None or len(part.known.candles) < limit:
        return
    part.known = _chosen(part.known, slice(1, None))
    part.more = True
    part.start_ms = int(part.known.candles["open_ms"][0]) if limit > 1 else part.end_ms


def _cut_ms(parts: Sequence[_Part], limit: int) -> int | None:
    """Where the answer must end so that no series has more than the limit, its running candle included."""
    return min(
        (part.end_ms for part in parts if part.more or (part.running is not None and len(part.known.candles) >= limit)),
        default=None,
    )


def _cut(parts: Sequence[_Part], limit: int) -> int | None:
    """Where the next page begins, where one series has more: every part is cut there, so that no candle is given twice."""
    next_ms = _cut_ms(parts, limit)
    if next_ms is None:
        return None
    for part in parts:
        part.known = _chosen(part.known, part.known.candles["open_ms"] < next_ms)
        part.end_ms = min(part.end_ms, next_ms)
        if part.running is not None and part.running.candles["open_ms"][0] >= next_ms:
            part.running = None
    return next_ms


def _missing(parts: Sequence[_Part]) -> tuple[list[Missing], int]:
    """The spans of the symbols' lives that were asked for and are not there."""
    spans: list[Missing] = []
    count = 0
    for part in parts:
        frame = part.named.frame
        start_ms = max(part.start_ms, frame.open_at(part.one.instrument.listed_ms))
        end_ms = part.end_ms
        if part.one.retired_ms is not None:
            end_ms = min(end_ms, frame.open_at(part.one.retired_ms))
        for first_ms, last_ms, candles in holes(frame, part.known.candles["open_ms"], start_ms, end_ms):
            count += candles
            if len(spans) < MOST_SPANS:
                spans.append(Missing(part.one.instrument.symbol, part.named.name, first_ms, last_ms))
    return spans, count


def holes(frame: Frame, opens: Ints, start_ms: int, end_ms: int) -> list[tuple[int, int, int]]:
    """The spans (start, end, candles) of the opens in `[start_ms, end_ms)` that are not among `opens` (ascending, on the frame)."""
    first = _position(frame, start_ms) + (frame.open_at(start_ms) < start_ms)
    last = _position(frame, end_ms - 1)
    if first > last:
        return []
    within = opens[(opens >= start_ms) & (opens < end_ms)]
    places = np.concatenate([[first - 1], _positions(frame, within), [last + 1]])
    return [
        (_open_of(frame, place + 1), _open_of(frame, after), after - place - 1)
        for place, after in zip(places[:-1].tolist(), places[1:].tolist(), strict=True)
        if after - place > 1
    ]


def _position(frame: Frame, t_ms: int) -> int:
    """The number of the candle that contains an instant, counted so that neighbours are neighbours."""
    step_ms = frame.interval.step_ms
    if step_ms == MONTH_STEP:
        return month_index(t_ms + frame.shift_ms)
    return (t_ms + frame.shift_ms - frame.interval.anchor_ms) // step_ms


def _positions(frame: Frame, opens: Ints) -> Ints:
    if frame.interval.step_ms == MONTH_STEP:
        return np.array([_position(frame, open_ms) for open_ms in opens.tolist()], np.int64)
    places: Ints = (opens + frame.shift_ms - frame.interval.anchor_ms) // frame.interval.step_ms
    return places


def _open_of(frame: Frame, position: int) -> int:
    if frame.interval.step_ms == MONTH_STEP:
        return month_open_ms(position) - frame.shift_ms
    return position * frame.interval.step_ms + frame.interval.anchor_ms - frame.shift_ms
