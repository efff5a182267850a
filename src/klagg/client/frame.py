"""Candles as a result: columns, in whatever frame the caller works with, and what there is to know of them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from klagg.client.facts import Missing
from klagg.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl


def known_missing(missing: Iterable[Missing], table: pa.Table, *, has_start: bool) -> list[Missing]:
    """Missing spans (by series, ascending) as they are told: neighbours as one.

    Those before the first candle of a series are left out unless the question says where it begins.
    """
    first: dict[tuple[str, str], int] = {}
    if not has_start:
        keys = table.group_by(["symbol", "interval"]).aggregate([("open_time", "min")])
        opens = keys["open_time_min"].cast(pa.int64()).to_pylist()
        first = dict(
            zip(zip(keys["symbol"].to_pylist(), keys["interval"].to_pylist(), strict=True), opens, strict=True)
        )
    told: list[Missing] = []
    for one in missing:
        if not has_start and one.start_ms < first.get((one.symbol, one.interval), 1 << 62):
            continue
        last = told[-1] if told else None
        if last and (last.symbol, last.interval, last.end_ms) == (one.symbol, one.interval, one.start_ms):
            told[-1] = replace(last, end_ms=one.end_ms)
        else:
            told.append(one)
    return told


@dataclass(frozen=True, slots=True, eq=False)
class Candles:
    """Closed candles, by interval, then symbol, then open time.

    Whatever takes Arrow takes this as it is: `polars.DataFrame(candles)`, `duckdb.sql("FROM hours")` with `hours = candles.arrow()`.
    `durable_ms` is the boundary up to which candles were durable when they were read, `verified_ms` that up to which they were
    verified. `missing` names what was asked for, ended by then, and is not there.
    """

    table: pa.Table
    durable_ms: int
    verified_ms: int
    missing: Sequence[Missing]

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def verified(self) -> int:
        """How many of them are verified."""
        return int(pc.sum(self.table["verified"]).as_py() or 0)

    @property
    def unverified(self) -> int:
        """How many of them are not."""
        return len(self) - self.verified

    def arrow(self) -> pa.Table:
        """The columns as they are: an Arrow table."""
        return self.table

    def pandas(self) -> "pd.DataFrame":
        """A data frame of pandas, if it is installed.

        Raises:
            UsageError: it is not.

        """
        try:
            frame: pd.DataFrame = self.table.to_pandas()
        except ModuleNotFoundError as error:
            raise UsageError(f"{error.name} is not installed: pip install {error.name}") from None
        return frame

    def polars(self) -> "pl.DataFrame":
        """A data frame of polars, if it is installed.

        Raises:
            UsageError: it is not.

        """
        try:
            import polars as pl
        except ModuleNotFoundError:
            raise UsageError("polars is not installed: pip install 'klagg[frames]'") from None
        frame = pl.from_arrow(self.table)
        assert isinstance(frame, pl.DataFrame)
        return frame

    def rows(self) -> Iterator[dict[str, Any]]:
        """One candle after the other, by the names of the columns."""
        for batch in self.table.to_batches(max_chunksize=10_000):
            yield from batch.to_pylist()

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Arrow's protocol between libraries."""
        return self.table.__arrow_c_stream__(requested_schema)
