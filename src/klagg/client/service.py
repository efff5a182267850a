"""A reader over a running service, by its native API."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from klagg.client.asked import Asked, expanded
from klagg.client.events import BarrierEvent, event_of
from klagg.client.facts import Gap, MarketStatus, Missing, Status, Symbol
from klagg.client.feed import FeedSource
from klagg.client.frame import Candles, known_missing
from klagg.client.http import Refused, Service
from klagg.client.pages import of_arrow, of_json
from klagg.client.reader import Reader
from klagg.client.stream import StreamedFeed
from klagg.config import parse_market
from klagg.errors import NumberError
from klagg.export.arrow import arrow_schema
from klagg.interval import DAY_MS
from klagg.model import Market

SERIES_ROWS: Final = 10_000
"""Candles of one series in one answer: the service's bound."""
SYMBOLS: Final = 200
"""Symbols named in one request: what an address may hold is bounded on the way."""
MOST_GAPS: Final = 1_000
"""Gaps of one answer: the service's bound."""
ROWS: Final = {"arrow": 250_000, "json": 50_000}
"""Candles of one answer, by its form: the service's bounds."""


@dataclass(slots=True)
class _Read:
    """What the answers so far told."""

    tables: list[pa.Table]
    missing: list[Missing]
    durable_ms: int = 0
    verified_ms: int = 0


class ServiceReader(Reader):
    """Asks a running service."""

    def __init__(self, url: str, market: str | None, token: str | None, timeout_s: float) -> None:
        self._service = Service(url, token, timeout_s)
        try:
            named = None if market is None else parse_market(market).value
            # Which market is meant where none is named is the service's to say.
            self._market = Market(self._service.json("/v1/barriers", {"market": named, "limit": 1})["market"])
        except BaseException:
            self._service.close()
            raise

    @property
    def market(self) -> Market:
        """The market that is read."""
        return self._market

    def close(self) -> None:
        """Close the connection."""
        self._service.close()

    def _ask(self, path: str, **query: object) -> Any:  # noqa: ANN401 - whatever the service tells
        return self._service.json(path, {"market": self._market.value, **query})

    # Candles

    def _candles(self, question: Asked) -> Candles:
        names = expanded(question.symbols, self._market, lambda: [one.symbol for one in self.symbols()])
        form = "json" if question.numbers == "string" else "arrow"
        try:
            read = self._read(question, names, form)
        except Refused as refused:
            if refused.code != "does_not_fit":
                raise
            if question.numbers == "decimal":
                raise NumberError(f"{refused}; here: numbers as string or float64") from None
            read = self._read(question, names, "json")
        schema = arrow_schema(numbers=question.numbers)
        table = pa.concat_tables([schema.empty_table(), *read.tables])
        places = {symbol: place for place, symbol in enumerate(names)}
        frames = {named.name: place for place, named in enumerate(question.intervals)}
        # Answers come page by page, each of several series.
        order = np.lexsort((_places(table, "symbol", places), _places(table, "interval", frames)))
        table = table.take(pa.array(order)).combine_chunks()
        missing = sorted(read.missing, key=lambda one: (frames[one.interval], places[one.symbol], one.start_ms))
        return Candles(
            table, read.durable_ms, read.verified_ms, known_missing(missing, table, has_start=question.has_start)
        )

    def _read(self, question: Asked, names: Sequence[str], form: str) -> _Read:
        read = _Read([], [])
        per_series = min(question.limit or SERIES_ROWS, max(ROWS[form] // len(question.intervals), 1))
        expected = sum(
            _expected(question, named.frame.interval.step_ms or 28 * DAY_MS, per_series) for named in question.intervals
        )
        at_once = max(min(ROWS[form] // max(expected, 1), SYMBOLS), 1)
        for first in range(0, len(names), at_once):
            self._read_group(question, names[first : first + at_once], form, per_series, read)
        return read

    def _read_group(self, question: Asked, names: Sequence[str], form: str, per_series: int, read: _Read) -> None:
        """All pages of some symbols."""
        start_ms: int | None = None if question.limit is not None else question.start_ms
        while True:
            query = {
                "market": self._market.value,
                "symbols": ",".join(names),
                "intervals": ",".join(named.name for named in question.intervals),
                "tz": question.zone,
                "as_of": question.as_of_ms,
                "verified": question.verified,
                "unmatched": question.unmatched,
                "format": form,
            }
            if question.at_ms is not None:
                query["at"] = question.at_ms
            else:
                query |= {"start": start_ms, "end": question.end_ms, "limit": per_series}
            try:
                body, _ = self._service.get("/v1/candles", query)
            except Refused as refused:
                if refused.code != "too_much" or per_series == 1 or question.limit is not None:
                    raise
                per_series = per_series // 4 or 1
                continue
            table, meta = (of_json if form == "json" else of_arrow)(body, question.numbers)
            read.tables.append(table)
            read.missing += [Missing(**span) for span in meta["missing"]]
            read.durable_ms, read.verified_ms = meta["durable_ms"], meta["verified_ms"]
            if meta["next"] is None:
                return
            start_ms = meta["next"]

    # Facts

    def _symbols(self, at_ms: int | None) -> list[Symbol]:
        told = self._ask("/v1/symbols", at=at_ms)
        names = (
            "symbol",
            "status",
            "native_status",
            "base",
            "quote",
            "price_scale",
            "qty_scale",
            "listed_ms",
            "retired_ms",
        )
        return [Symbol(told["market"], **{name: row[name] for name in names}) for row in told["symbols"]]

    def status(self) -> Status:
        """How the markets stand."""
        told = self._service.json("/v1/status", {})
        return Status(
            told["version"],
            tuple(
                MarketStatus(
                    one["market"],
                    one["symbols"],
                    one["durable_ms"] or 0,
                    one["verified_ms"] or 0,
                    self._gaps_of(one, "open"),
                    self._gaps_of(one, "final"),
                )
                for one in told["markets"]
            ),
        )

    def _gaps_of(self, told: Mapping[str, Any], state: str) -> int:
        """How many gaps are on record, up to `MOST_GAPS`: a service that only serves does not tell."""
        count = told[f"gaps_{state}"]
        if count is None:
            query = {"market": told["market"], "state": state, "limit": MOST_GAPS}
            count = len(self._service.json("/v1/gaps", query)["gaps"])
        return int(count)

    def gaps(self, state: str = "open", limit: int = 100) -> list[Gap]:
        """The newest gaps on record, newest first."""
        told = self._ask("/v1/gaps", state=state, limit=limit)
        return [Gap(told["market"], **row) for row in told["gaps"]]

    def barriers(self, limit: int = 100) -> list[BarrierEvent]:
        """The newest barriers, newest first."""
        told = self._ask("/v1/barriers", limit=limit)
        events = [event_of({"market": told["market"], **row}) for row in told["barriers"]]
        return [event for event in events if isinstance(event, BarrierEvent)]

    def _newest_seq(self) -> int:
        return int(self._ask("/v1/events", limit=1)["newest_seq"])

    def _feed_source(self) -> FeedSource:
        return StreamedFeed(self._service, self._market)


def _expected(question: Asked, step_ms: int, per_series: int) -> int:
    """As many candles of a series as one answer may have."""
    if question.at_ms is not None:
        return 1
    return min(per_series, (question.end_ms - question.start_ms) // step_ms + 1)


def _places(table: pa.Table, column: str, places: Mapping[str, int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The place of each row's name."""
    codes = table[column].combine_chunks().dictionary_encode()
    if isinstance(codes, pa.ChunkedArray):
        codes = codes.combine_chunks()
    by_code = np.array([places.get(name, len(places)) for name in codes.dictionary.to_pylist()], np.int64)
    if len(by_code) == 0:
        return np.zeros(0, np.int64)
    found: np.ndarray[tuple[int], np.dtype[np.int64]] = by_code[codes.indices.to_numpy()]
    return found
