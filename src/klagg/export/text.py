"""Candles as csv and jsonl: decimals as plain strings, times as UTC ms."""

from collections.abc import Iterator
from typing import IO

from klagg import fixed
from klagg.export.columns import TEXTS, ExportFormat, Series, integers, is_decimal, mantissas, texts
from klagg.model import Candles, Ints


def write_text(
    file: IO[bytes], pieces: Iterator[tuple[Candles, Ints]], series: Series, format_name: ExportFormat
) -> None:
    """Write csv (with a header) or jsonl."""
    as_csv = format_name == "csv"
    if as_csv:
        file.write((",".join(series.columns) + "\n").encode())
    for candles, revisions in pieces:
        cells: list[list[str]] = []
        for column in series.columns:
            if is_decimal(column):
                values = list(map(fixed.to_text, *mantissas(candles, column)))
            elif column in TEXTS:
                values = texts(candles, series, column)
            else:
                values = list(map(str, integers(candles, revisions, series.interval, column)))
            if not as_csv:
                # Names and numbers need no escapes: symbols have no quotes, backslashes or control characters.
                quote = '"' if is_decimal(column) or column in TEXTS else ""
                values = [f'"{column}":{quote}{value}{quote}' for value in values]
            cells.append(values)
        rows = map(",".join, zip(*cells, strict=True))
        lines = (f"{row}\n" for row in rows) if as_csv else (f"{{{row}}}\n" for row in rows)
        file.write("".join(lines).encode())
    file.flush()
