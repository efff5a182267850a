"""What export needs of a store, and the candles of a series out of it in pieces."""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol

from klagg.errors import NoCandles, UsageError
from klagg.export.columns import Piece, Series, iso
from klagg.interval import Interval
from klagg.model import Flag, Market, Origin

if TYPE_CHECKING:
    from klagg.store import States, StoredInstrument

Unmatched = Literal["keep", "drop"]

CHUNK_ROWS: Final = 65_536
"""Candles in memory at once (some 20 MB), and at most so many in a row group of Parquet or a batch of Arrow: a month of minutes
is one of them."""


class CandleSource(Protocol):
    """What export needs of a store."""

    def instruments(self, market: Market | None = None) -> "Sequence[StoredInstrument]":
        """The instruments of a market."""

    def intervals(self, market: Market) -> Sequence[Interval]:
        """The intervals a market keeps."""

    def read_states(
        self,
        instrument_id: int,
        interval: Interval,
        start_ms: int,
        end_ms: int,
        limit: int | None = None,
        *,
        as_of_ms: int | None = None,
    ) -> "States":
        """Closed candles that open in `[start_ms, end_ms)`, ascending, as they are or as they were known at an instant."""

    def digest(
        self, instrument_id: int, interval: Interval, start_ms: int, end_ms: int, *, as_of_ms: int | None = None
    ) -> tuple[int | float, ...]:
        """Numbers that are other ones where any of these candles is another."""

    def span(self, instrument_id: int, interval: Interval, start_ms: int, end_ms: int) -> tuple[int, int] | None:
        """The opens of the first and the last closed candle of a range."""


@dataclass(slots=True)
class Tally:
    """What was written: candles, those of them that are not verified, and unmatched ones that were left out."""

    rows: int = 0
    unverified: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Source:
    """One series of a store, as it is or as it was known at an instant."""

    store: CandleSource
    instrument_id: int
    series: Series
    as_of_ms: int | None = None
    unmatched: Unmatched = "keep"

    def pieces(self, start_ms: int, end_ms: int, tally: Tally) -> Iterator[Piece]:
        """The candles of a range in pieces of at most `CHUNK_ROWS`, each of one state of the database."""
        while True:
            found = self.store.read_states(
                self.instrument_id, self.series.interval, start_ms, end_ms, CHUNK_ROWS, as_of_ms=self.as_of_ms
            )
            piece = Piece(found.candles, found.revisions, found.known_ms)
            is_full = len(piece) == CHUNK_ROWS
            if is_full:
                start_ms = int(piece.candles["open_ms"][-1]) + 1
            if self.unmatched == "drop":
                kept = piece.candles["origin"] != Origin.UNMATCHED
                if not bool(kept.all()):
                    tally.dropped += len(piece) - int(kept.sum())
                    piece = piece.picked(kept)
            tally.rows += len(piece)
            tally.unverified += int(((piece.candles["flags"] & Flag.VERIFIED) == 0).sum())
            if len(piece):
                yield piece
            if not is_full:
                return

    def nothing(self, start_ms: int, end_ms: int, dropped: int) -> NoCandles:
        """Why nothing was found, for people."""
        series = self.series
        what = f"no {series.interval} candles of {series.symbol} ({series.market})"
        when = f"from {iso(start_ms)} to {iso(end_ms)}"
        if dropped:
            return NoCandles(f"{what} {when} but {dropped} that are unmatched")
        if self.as_of_ms is not None and self._is_any(start_ms, end_ms):
            return NoCandles(f"{what} {when} were known at {iso(self.as_of_ms)}: there are some since")
        if self._is_any(0, 1 << 62):
            return NoCandles(f"{what} {when}: there are others, choose another --start and --end")
        kept = " ".join(interval.name for interval in self.store.intervals(series.market)) or "none"
        return NoCandles(f"{what} in the database at all: the market keeps the intervals {kept}")

    def _is_any(self, start_ms: int, end_ms: int) -> bool:
        return self.store.span(self.instrument_id, self.series.interval, start_ms, end_ms) is not None


def stored_instrument(store: CandleSource, market: Market, symbol: str) -> "StoredInstrument":
    """The instrument of a symbol.

    Raises:
        UsageError: the database does not hold it; names those that are near.

    """
    known = {stored.instrument.symbol: stored for stored in store.instruments(market)}
    if symbol in known:
        return known[symbol]
    if not known:
        raise UsageError(f"unknown symbol {symbol!r}: the database holds no symbol of market {market}")
    near = difflib.get_close_matches(symbol.upper(), known, n=3) or sorted(known)[:3]
    raise UsageError(
        f"unknown symbol {symbol!r}: the database holds {len(known)} symbols of market {market}, such as {', '.join(near)}"
    )
