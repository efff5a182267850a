"""Which days of which symbols a backfill asks for, and in which order."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from klagg.interval import BY_NAME, DAY_MS, MINUTE
from klagg.model import Instrument


@dataclass(frozen=True, slots=True)
class Day:
    """One UTC day (or the part of it that is asked for) of one instrument."""

    instrument_id: int
    start_ms: int
    end_ms: int


def days(instruments: Mapping[int, Instrument], start_ms: int, end_ms: int) -> Iterator[Day]:
    """The days of `[start_ms, end_ms)`, the newest first and all instruments within each; none before a listing."""
    for day_ms in reversed(list(BY_NAME["1d"].opens(start_ms - start_ms % DAY_MS, end_ms))):
        for instrument_id, instrument in instruments.items():
            first_ms = max(day_ms, start_ms, MINUTE.open_at(instrument.listed_ms))
            if first_ms < min(day_ms + DAY_MS, end_ms):
                yield Day(instrument_id, first_ms, min(day_ms + DAY_MS, end_ms))
