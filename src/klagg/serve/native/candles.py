"""Candles of several series in one answer: what is asked for, what is there, what of it is verified, and what is missing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from klagg.interval import DAY_MS, MONTH_STEP, month_index, month_open_ms
from klagg.model import Candles, Flag, Ints, Market
from klagg.serve.native.asking import Named
from klagg.serve.native.problem import Problem
from klagg.serve.native.source import How, Known, Lookup
from klagg.serve.native.table import SeriesName, Table
from klagg.serve.running import RunningCandles
from klagg.serve.source import Frame, Listing, Live, TooMuch

USUAL_LIMIT: Final = 500
MOST_LIMIT: Final = 10_000
"""Candles of one series in one answer."""
MOST_ROWS: Final = 50_000
"""Candles of one answer in JSON: some 20 MB."""
MOST_COLUMNS: Final = 250_000
"""Candles of one answer in columns: some 30 MB."""
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
    """One series on its way: what was found of `[start_ms, end_ms)`, and whether there is more than the limit."""

    one: Listing
    named: Named
    known: Known
    start_ms: int
    end_ms: int
    more: bool


class CandleReader:
    """Answers requests for candles."""

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
            if ask.at_ms is None:
                parts = [
                    await self._part(ask, one, named, durable_ms, limit)
                    for named in ask.intervals
                    for one in ask.symbols
                ]
            else:
                parts = [part for named in ask.intervals for part in await self._at(ask, named, durable_ms, ask.at_ms)]
        except TooMuch:
            raise Problem(
                "too_much",
                "These candles would be folded from too many shorter ones: ask for fewer, or for a shorter span.",
                413,
                "limit",
            ) from None
        next_ms = _cut(parts) if ask.start_ms is not None and ask.at_ms is None else None
        truncated = any(part.more for part in parts)
        missing, missing_candles = _missing(parts)
        if ask.with_open and ask.how.as_of_ms is None and not ask.how.only_verified and next_ms is None:
            await self._put_running(ask, parts, durable_ms)
        names = [
            (SeriesName(part.one.instrument.symbol, part.named.name, part.named.frame), part.known) for part in parts
        ]
        table = Table.of(ask.market, names)
        flags = table.candles["flags"]
        verified = int(np.count_nonzero(flags & Flag.VERIFIED.value))
        closed = int(np.count_nonzero(flags & Flag.CLOSED.value))
        return Found(
            table,
            self._live.now_ms(ask.market),
            durable_ms,
            await self._lookup.verified_ms(ask.market),
            verified,
            closed - verified,
            missing,
            missing_candles,
            truncated,
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

    async def _part(self, ask: Ask, one: Listing, named: Named, durable_ms: int, limit: int) -> _Part:
        """The closed candles of one series."""
        frame = named.frame
        end_ms = frame.open_at(durable_ms) if durable_ms else 0
        end_ms = end_ms if ask.end_ms is None else min(end_ms, ask.end_ms)
        newest = ask.start_ms is None
        start_ms = 0 if ask.start_ms is None else ask.start_ms
        # One more than is given tells whether there are more.
        known = await self._lookup.known(one, frame, start_ms, end_ms, limit + 1, ask.how, newest=newest)
        more = len(known.candles) > limit
        if more:
            known = _chosen(known, slice(1, None) if newest else slice(0, limit))
        opens = known.candles["open_ms"]
        if newest:
            start_ms = int(opens[0]) if len(opens) else frame.open_at(end_ms - 1) if end_ms > 0 else 0
        elif more:
            end_ms = frame.next_open(int(opens[-1]))
        return _Part(one, named, known, start_ms, end_ms, more)

    async def _at(self, ask: Ask, named: Named, durable_ms: int, at_ms: int) -> list[_Part]:
        """The candle of each symbol that contains an instant, as far as it has closed."""
        frame = named.frame
        open_ms = frame.open_at(at_ms)
        end_ms = open_ms + 1 if frame.next_open(open_ms) <= durable_ms else open_ms
        if frame.shift_ms or frame.interval not in self._live.kept(ask.market) or len(ask.symbols) == 1:
            return [
                _Part(
                    one,
                    named,
                    await self._lookup.known(one, frame, open_ms, end_ms, 1, ask.how, newest=False),
                    open_ms,
                    end_ms,
                    more=False,
                )
                for one in ask.symbols
            ]
        found = await self._lookup.whole_market(ask.market, frame.interval, open_ms, ask.how)
        places = {number: place for place, number in enumerate(found.instrument_ids.tolist())}
        parts = []
        for one in ask.symbols:
            place = places.get(one.id) if end_ms > open_ms else None
            known = _chosen(found.known, slice(0, 0) if place is None else slice(place, place + 1))
            parts.append(_Part(one, named, known, open_ms, end_ms, more=False))
        return parts

    async def _put_running(self, ask: Ask, parts: Sequence[_Part], durable_ms: int) -> None:
        """Put the running candle behind the closed ones of each series."""
        symbols = [one.instrument.symbol for one in ask.symbols]
        running = dict(zip(symbols, self._live.running(ask.market, symbols), strict=True))
        now_ms = self._live.now_ms(ask.market)
        for part in parts:
            frame = part.named.frame
            open_ms = frame.open_at(durable_ms)
            wanted = frame.open_at(ask.at_ms) == open_ms if ask.at_ms is not None else _within(ask, open_ms)
            if not wanted:
                continue
            found = await self._running.of(part.one, frame, running[part.one.instrument.symbol])
            if len(found):
                candle: Candles = found.copy()
                candle["flags"] = 0
                part.known = Known(
                    np.concatenate([part.known.candles, candle]),
                    np.append(part.known.revisions, 0),
                    np.append(part.known.known_ms, now_ms),
                )


def _within(ask: Ask, open_ms: int) -> bool:
    return (ask.start_ms is None or open_ms >= ask.start_ms) and (ask.end_ms is None or open_ms < ask.end_ms)


def _chosen(known: Known, rows: slice | np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Known:
    return Known(known.candles[rows], known.revisions[rows], known.known_ms[rows])


def _cut(parts: Sequence[_Part]) -> int | None:
    """Where the next page begins, where one series has more: every part is cut there, so that no candle is given twice."""
    cut = [part.end_ms for part in parts if part.more]
    if not cut:
        return None
    next_ms = min(cut)
    for part in parts:
        part.known = _chosen(part.known, part.known.candles["open_ms"] < next_ms)
        part.end_ms = min(part.end_ms, next_ms)
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
