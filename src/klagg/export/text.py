"""Candles as csv and jsonl: decimals as plain strings, times as UTC ms; whole columns at a time, as Arrow strings."""

from collections.abc import Iterator, Sequence
from typing import IO, Any, Final, Literal

import pyarrow as pa
import pyarrow.compute as pc

from klagg.export.columns import DECIMALS, NAMES, ORIGINS, SOURCES, Piece, Series, decimals, integers
from klagg.export.decimals import as_text

_ORIGINS: Final = pa.array(ORIGINS, pa.string())
_SOURCES: Final = pa.array(SOURCES, pa.string())


def write_text(
    file: IO[bytes],
    pieces: Iterator[Piece],
    series: Series,
    columns: Sequence[str],
    format_name: Literal["csv", "jsonl"],
) -> None:
    """Write csv (with a header) or jsonl."""
    if format_name == "csv":
        file.write((",".join(columns) + "\n").encode())
    for piece in pieces:
        cells: list[Any] = []
        for position, column in enumerate(columns):
            if format_name == "jsonl":
                # Names and numbers need no escapes: symbols have no quotes, backslashes or control characters.
                quote = '"' if column in DECIMALS or column in NAMES else ""
                cells += [f'{"{" if position == 0 else ","}"{column}":{quote}', _cells(piece, series, column), quote]
            else:
                cells += [_cells(piece, series, column), "," if position < len(columns) - 1 else ""]
        lines = pc.binary_join_element_wise(*cells, "\n" if format_name == "csv" else "}\n", "")
        # One after the other in memory the lines are the text of the file.
        offsets, data = lines.buffers()[1:]
        start, *_, end = memoryview(offsets).cast("i")[lines.offset : lines.offset + len(lines) + 1]
        file.write(memoryview(data)[start:end])
    file.flush()


def _cells(piece: Piece, series: Series, column: str) -> pa.Array | str:
    """One column as Arrow strings, or one string for all rows."""
    if column in DECIMALS:
        return as_text(decimals(piece.candles, column))
    if column == "origin":
        return _ORIGINS.take(pa.array(piece.candles["origin"]))
    if column == "source":
        return _SOURCES.take(pa.array(piece.candles["source"]))
    if column in NAMES:
        return series.name(column)
    return pc.cast(pa.array(integers(piece, series, column)), pa.string())
