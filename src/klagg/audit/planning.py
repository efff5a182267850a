"""Which candles to compare: what a series is expected to hold, cut into pieces, and random older ones. Pure but for reads."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from klagg.exchange.klines import weight_of
from klagg.exchange.rest import count_opens
from klagg.interval import INTERVALS, MINUTE, Interval
from klagg.model import Candles, Market

PIECE_ROWS: Final = 5_000
"""Rows of one piece at most: 20 of weight on USDT-M, and under a MiB in memory."""
SAMPLE_ROWS: Final = {Market.USDM: 100, Market.SPOT: 1_000}
"""Rows that the cheapest request brings: a sample is a window of so many neighbours."""
AGE_MS: Final = 120_000
"""Younger candles are left to the comparison and the repair that run beside."""
_ALL_MS: Final = 1 << 62


class Shelf(Protocol):
    """What planning needs of a store."""

    def read_raw(
        self,
        instrument_id: int,
        interval: Interval,
        start_ms: int,
        end_ms: int,
        limit: int | None = None,
        *,
        descending: bool = False,
    ) -> Candles:
        """Closed candles of a series, whatever they hold."""

    def open_candle(self, instrument_id: int, interval: Interval) -> Candles:
        """The open snapshot of a series: one candle or none."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """What a series is expected to hold: every candle that opens in `[start_ms, end_ms)`."""

    instrument_id: int
    interval: Interval
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Piece:
    """One thing to compare: the candles of a series that open in `[start_ms, end_ms)`.

    Not `whole`: only from the first to the last candle held there, since a random window may lie where nothing was fetched.
    """

    instrument_id: int
    interval: Interval
    start_ms: int
    end_ms: int
    whole: bool = True

    def weight(self, market: Market) -> int:
        """What the exchange's candles for it cost."""
        return weight_of(market, max(count_opens(self.interval, self.start_ms, self.end_ms), 1))


def covered(
    store: Shelf,
    instrument_id: int,
    kept: Iterable[Interval],
    *,
    closed_upto_ms: int | None,
    is_live: bool,
    bound_ms: int,
) -> list[Coverage]:
    """What each series of an instrument is expected to hold, minutes first.

    From its first candle to what is closed, if it runs live, else to the end of its newest candle, or to where its minutes end.
    Only what ended by `bound_ms`. Intervals that are not kept are expected to hold what they hold.
    """
    ends: dict[Interval, tuple[int, int]] = {}
    for interval in INTERVALS:
        first = store.read_raw(instrument_id, interval, -_ALL_MS, _ALL_MS, 1)
        if len(first):
            last = store.read_raw(instrument_id, interval, -_ALL_MS, _ALL_MS, 1, descending=True)
            ends[interval] = int(first["open_ms"][0]), int(last["open_ms"][0])
    if not ends:
        return []
    upto_ms = max(
        interval.next_open(interval.open_at(min(last_ms, bound_ms))) for interval, (_, last_ms) in ends.items()
    )
    if len(store.open_candle(instrument_id, MINUTE)) and closed_upto_ms is not None and is_live:
        upto_ms = closed_upto_ms
    wanted = {*kept, MINUTE}
    found = []
    for interval, (first_ms, last_ms) in ends.items():
        end_ms = interval.open_at(upto_ms) if interval in wanted else 0
        end_ms = max(end_ms, interval.next_open(interval.open_at(min(last_ms, bound_ms))))
        end_ms = min(end_ms, interval.open_at(bound_ms))
        if first_ms < end_ms:
            found.append(Coverage(instrument_id, interval, first_ms, end_ms))
    return found


def pieces(coverage: Coverage, start_ms: int, end_ms: int) -> Iterator[Piece]:
    """The candles of a series that end in `(start_ms, end_ms]`, cut into pieces, newest first."""
    interval = coverage.interval
    first_ms = interval.open_at(start_ms) if start_ms > -_ALL_MS else coverage.start_ms
    if start_ms > -_ALL_MS and interval is MINUTE and first_ms < start_ms:
        first_ms = interval.next_open(first_ms)
    first_ms = max(first_ms, coverage.start_ms)
    last_ms = min(interval.open_at(min(end_ms, coverage.end_ms)), coverage.end_ms)
    step_ms = interval.step_ms * PIECE_ROWS
    while first_ms < last_ms:
        cut_ms = max(first_ms, last_ms - step_ms) if step_ms else first_ms
        yield Piece(coverage.instrument_id, interval, cut_ms, last_ms)
        last_ms = cut_ms


def samples(
    market: Market, coverages: Sequence[Coverage], before_ms: int, minutes: int, chance: random.Random
) -> list[Piece]:
    """About so many random minutes that end by `before_ms`, in windows of the cheapest request, and longer candles beside them.

    A symbol is drawn by how many minutes it holds. With each window comes one of a longer interval of the same symbol.
    """
    rows = SAMPLE_ROWS[market]
    by_instrument: Mapping[int, list[Coverage]] = _grouped(coverages)
    older = [one for one in coverages if one.interval is MINUTE and one.start_ms < before_ms]
    if not older or minutes <= 0:
        return []
    sizes = [min(one.end_ms, before_ms) - one.start_ms for one in older]
    drawn: list[Piece] = []
    for _ in range(-(-minutes // rows)):
        minute = chance.choices(older, sizes)[0]
        drawn += _window(minute, before_ms, rows, chance)
        longer = [one for one in by_instrument[minute.instrument_id] if one.interval is not MINUTE]
        if longer:
            drawn += _window(chance.choice(longer), before_ms, rows, chance)
    return drawn


def _grouped(coverages: Iterable[Coverage]) -> dict[int, list[Coverage]]:
    found: dict[int, list[Coverage]] = {}
    for one in coverages:
        found.setdefault(one.instrument_id, []).append(one)
    return found


def _window(coverage: Coverage, before_ms: int, rows: int, chance: random.Random) -> Iterator[Piece]:
    """A random window of at most `rows` candles."""
    interval = coverage.interval
    end_ms = min(coverage.end_ms, interval.open_at(before_ms))
    if end_ms <= coverage.start_ms:
        return
    start_ms = interval.open_at(chance.randrange(coverage.start_ms, end_ms))
    upto_ms = min(start_ms + interval.step_ms * rows, end_ms) if interval.step_ms else end_ms
    start_ms = max(coverage.start_ms, min(start_ms, upto_ms - interval.step_ms * rows))
    yield Piece(coverage.instrument_id, interval, start_ms, upto_ms, whole=False)
