"""Trade files as one reader, whatever they are."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from klagg.archive.chunk import Counts, TradeChunk, TradeFile
from klagg.archive.csv_chunks import CsvRows
from klagg.archive.message_chunks import MessageRows
from klagg.archive.names import refuse_microseconds, refuse_other_market
from klagg.archive.recognise import Recognised, recognise
from klagg.errors import FileFormatError, UsageError
from klagg.model import Market


class TradeReader:
    """The trades of one file, in chunks of at most `CHUNK_ROWS`; each iteration reads the file from its beginning.

    The counts are those of the newest iteration, complete at its end. Going through all chunks once before using any
    shows whether the whole file can be read.
    """

    def __init__(self, recognised: Recognised, symbol: str) -> None:
        self.file: TradeFile = recognised.file
        self._recognised = recognised
        self._symbol = symbol
        self._counts = Counts()

    @property
    def rows(self) -> int:
        """Trades handed on so far."""
        return self._counts.rows

    @property
    def not_market(self) -> int:
        """Those among them that are no market trades."""
        return self._counts.not_market

    @property
    def unproven(self) -> int:
        """Those of a kind that klagg does not know, or with an amount missing: their minutes are not proven."""
        return self._counts.unproven

    @property
    def passed_over(self) -> Counter[str]:
        """Messages that are no trades, by type (and trades of `other symbol`s where one was asked for)."""
        return self._counts.passed_over

    @property
    def symbol_names(self) -> list[str]:
        """The symbols seen so far; `slot` of the trades is an index into it."""
        return self._counts.symbol_names

    def __iter__(self) -> Iterator[TradeChunk]:
        """The trades of the file.

        Raises:
            FileFormatError: a broken line, truncated data: file, line number (of the unpacked text) and reason.

        """
        self._counts = Counts()
        layout = self._recognised.layout
        if layout is not None:
            return CsvRows(self.file.path, layout, self._symbol, self._counts).chunks()
        rows = MessageRows(self.file.path, self._symbol, self._counts)
        return rows.array_chunks() if self._recognised.is_array else rows.chunks()


def open_trades(
    path: str | os.PathLike[str],
    *,
    market: Market | None = None,
    symbol: str | None = None,
    insists: bool = True,
) -> TradeReader:
    """The reader of a file of trades: recognised by its content, unpacked where it is gzip, zip or zstd.

    Args:
        path: the file.
        market: the market its trades are to be taken for; refused where the file says that it is of the other.
        symbol: the symbol where the rows do not say it; where they do, others are passed over and counted.
        insists: whether somebody chose the market, see `read_klines`.

    Raises:
        UsageError: no such file; rows without a symbol and none given; another market than the file's.
        FileFormatError: it is empty, binary, truncated, or no file of trades.

    """
    recognised = recognise(Path(path))
    file = recognised.file
    if file.kind == "klines":
        raise FileFormatError(f"{path}: the file holds klines, not trades: klagg backfill reads it")
    if market is not None and isinstance(file.market, Market) and file.market is not market:
        raise UsageError(f"{path}: the trades are of {file.market}, not {market}: give --market {file.market}")
    if market is not None:
        refuse_other_market(Path(path), symbol or (file.symbols[0] if file.symbols else ""), market)
        if market is Market.USDM and not insists and recognised.first_time:
            refuse_microseconds(Path(path), recognised.first_time, market)
    says_symbol = file.kind == "ws" if recognised.layout is None else recognised.layout.says_symbol
    if symbol is None and not says_symbol:
        if not file.symbols:
            raise UsageError(f"{path}: neither the rows nor the file's name say the symbol: give --symbol")
        symbol = file.symbols[0]
    return TradeReader(recognised, symbol or "")
