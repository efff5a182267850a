"""The routes of `/v1` that read what is stored: candles, one candle's history, symbols, gaps, barriers."""

import asyncio
from typing import Annotated, Any, Final, Literal

import msgspec
from litestar import MediaType, Request, Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import ResponseSpec
from litestar.params import QueryParameter

from klagg.serve.native import columns, schema
from klagg.serve.native.answers import Room
from klagg.serve.native.asking import (
    interval_of,
    intervals_of,
    market_of,
    one_symbol,
    symbols_of,
    time_of,
    zone_of,
)
from klagg.serve.native.candles import (
    MOST_COLUMNS,
    MOST_LIMIT,
    MOST_ROWS,
    Ask,
    CandleReader,
    Found,
)
from klagg.serve.native.problem import Problem
from klagg.serve.native.source import How, Lookup
from klagg.serve.native.table import SeriesName, Table, objects
from klagg.serve.running import RunningCandles
from klagg.serve.source import Frame, Live

MOST_RECORDS: Final = 1_000
"""Gaps or barriers of one answer."""

MarketText = Annotated[str | None, QueryParameter(description="usdm or spot; the only one served, else usdm.")]
TimeText = str | None
_TIME: Final = "milliseconds, ISO 8601, -7d, today or now"


def errors(*statuses: int) -> dict[int, ResponseSpec]:
    """The errors of a route, for its description."""
    words = {
        400: "The request is wrong.",
        404: "There is no such thing.",
        413: "More than an answer holds.",
        429: "Too many requests.",
        503: "Not now: starting, or busy.",
    }
    return {
        status: ResponseSpec(schema.ErrorBody, description=words[status], generate_examples=False)
        for status in (*statuses, 400, 429, 503)
    }


def answers(shape: Any, text: str, *more: int) -> dict[int, ResponseSpec]:  # noqa: ANN401 - a type
    """The answer and the errors of a route, for its description."""
    return {200: ResponseSpec(shape, description=text, generate_examples=False), **errors(*more)}


def json_response(value: object) -> Response[bytes]:
    """A small answer."""
    return Response(msgspec.json.encode(value), media_type=MediaType.JSON)


class NativeRoutes:
    """`/v1` over what is stored."""

    def __init__(self, live: Live, lookup: Lookup, running: RunningCandles, room: Room) -> None:
        self._live = live
        self._lookup = lookup
        self._room = room
        self.reader = CandleReader(live, lookup, running)

    async def candles(self, ask: Ask, form: str) -> Response[Any]:
        """The answer to a request for candles, in a form."""
        async with self._room:
            found = await self.reader.find(ask)
            meta = _meta(found)
            if form == "json":
                body = await asyncio.to_thread(_as_json, found.table, meta)
                return self._room.send(body, MediaType.JSON)
            write = columns.as_arrow if form == columns.ARROW else columns.as_parquet
            try:
                body = await asyncio.to_thread(write, found.table, meta)
            except columns.DoesNotFit:
                raise Problem(
                    "does_not_fit", "A number does not fit decimal128(38, 18): ask for JSON.", 400, "format"
                ) from None
            return self._room.send(body, form)

    def handlers(self) -> list[HTTPRouteHandler]:
        """The routes."""
        return [self._candles(), self._candle(), self._symbols(), self._gaps(), self._barriers()]

    def _candles(self) -> HTTPRouteHandler:
        @get(
            "/v1/candles",
            tags=["candles"],
            summary="Candles of some or all symbols",
            description=(
                "Candles of several symbols and intervals, each with its origin, whether it is verified, its revision and since when "
                "it is known. Any interval of whole minutes, hours, days or weeks is folded from what is stored. `meta` tells how "
                "many are verified and what is missing of what was asked for. With `Accept` or `format` the same as Arrow or Parquet."
            ),
            responses=answers(schema.Candles, "Candles, and what there is to know of them.", 404, 413),
        )
        async def candles(  # noqa: PLR0913, PLR0917 - a parameter of the query each
            request: Request[Any, Any, Any],
            symbols: Annotated[
                str | None, QueryParameter(description="Names with commas between, globs, or * for all.")
            ] = None,
            symbol: Annotated[str | None, QueryParameter(description="The same as symbols.")] = None,
            intervals: Annotated[
                str | None, QueryParameter(description="1m,5m,1h,1d,1w,1M or any other, such as 2m,45m. Default 1m.")
            ] = None,
            interval: Annotated[str | None, QueryParameter(description="The same as intervals.")] = None,
            market: MarketText = None,
            start: Annotated[TimeText, QueryParameter(description=f"From when on candles open: {_TIME}.")] = None,
            end: Annotated[TimeText, QueryParameter(description="Before when they open; default: now.")] = None,
            limit: Annotated[
                int | None,
                QueryParameter(
                    ge=1,
                    le=MOST_LIMIT,
                    description="Candles of each series, the running one included; default 500, the newest unless start is given.",
                ),
            ] = None,
            at: Annotated[
                TimeText, QueryParameter(description="Instead: the one candle that contains this instant.")
            ] = None,
            as_of: Annotated[TimeText, QueryParameter(description="Only what was known then, as it was known.")] = None,
            tz: Annotated[str | None, QueryParameter(description="Where days are cut, as an offset: +08:00.")] = None,
            verified: Annotated[
                Literal["any", "only"], QueryParameter(description="only: without what is not verified.")
            ] = "any",
            open_: Annotated[
                Literal["include", "exclude"],
                QueryParameter(name="open", description="Whether running candles come too."),
            ] = "exclude",
            unmatched: Annotated[
                Literal["keep", "drop"],
                QueryParameter(description="What becomes of candles that the exchange does not have."),
            ] = "keep",
            format_: Annotated[
                Literal["json", "arrow", "parquet"] | None,
                QueryParameter(name="format", description="Instead of the Accept header."),
            ] = None,
        ) -> Response[Any]:
            form = _form(format_, request.headers.get("accept", ""))
            chosen = market_of(self._live, market)
            now_ms = self._live.now_ms(chosen)
            ask = Ask(
                chosen,
                symbols_of(self._live.listings(chosen), symbols or symbol, chosen),
                intervals_of(intervals or interval, zone_of(tz)),
                How(time_of(as_of, now_ms, "as_of"), verified == "only", unmatched == "keep"),
                time_of(start, now_ms, "start"),
                time_of(end, now_ms, "end"),
                limit,
                time_of(at, now_ms, "at"),
                open_ == "include",
                MOST_ROWS if form == "json" else MOST_COLUMNS,
            )
            return await self.candles(ask, form)

        return candles

    def _candle(self) -> HTTPRouteHandler:
        @get(
            "/v1/candle",
            tags=["candles"],
            summary="One candle and its history",
            description="A closed candle of a kept interval, and every state it had, with since when each was known.",
            responses=answers(schema.CandleHistory, "The candle and its states, the first one first.", 404),
        )
        async def candle(
            symbol: Annotated[str, QueryParameter(description="The symbol.")],
            open_time: Annotated[str, QueryParameter(description=f"When it opens: {_TIME}.")],
            interval: Annotated[str, QueryParameter(description="A kept interval.")] = "1m",
            market: MarketText = None,
        ) -> Response[Any]:
            chosen = market_of(self._live, market)
            one = one_symbol(self._live.listings(chosen), symbol, chosen)
            frame = Frame(interval_of(interval))
            open_ms = time_of(open_time, self._live.now_ms(chosen), "open_time")
            if frame.interval not in self._live.kept(chosen):
                kept = " ".join(str(one) for one in self._live.kept(chosen))
                raise Problem("not_kept", f"Only kept intervals have a history: {kept}.", 404, "interval")
            through = await self._lookup.through(one, frame.interval, frame.open_at(open_ms or 0))
            if len(through.known.candles) == 0:
                raise Problem("no_candle", "There is no closed candle that contains this time.", 404, "open_time")
            names = SeriesName(one.instrument.symbol, frame.interval.name, frame)
            rows = objects(Table.of(chosen, [(names, through.known)]))
            times = [str(verified_ms or "null") for verified_ms in through.verified_ms.tolist()]
            states = [f'{row[:-1]},"verified_ms":{time}}}' for row, time in zip(rows, times, strict=True)]
            return Response(f'{rows[-1][:-1]},"history":[{",".join(states)}]}}'.encode(), media_type=MediaType.JSON)

        return candle

    def _symbols(self) -> HTTPRouteHandler:
        @get(
            "/v1/symbols",
            tags=["market"],
            summary="The symbols of a market",
            description="The symbols that candles are kept of, now or as the exchange listed them at a past instant.",
            responses=answers(schema.Symbols, "The symbols.", 404),
        )
        async def symbols(
            market: MarketText = None,
            at: Annotated[TimeText, QueryParameter(description=f"A past time instead: {_TIME}.")] = None,
        ) -> Response[Any]:
            chosen = market_of(self._live, market)
            now_ms = self._live.now_ms(chosen)
            at_ms = time_of(at, now_ms, "at")
            listings = self._live.listings(chosen)
            if at_ms is None:
                listed = [(one.instrument, one.retired_ms) for one in listings.values()]
            else:
                then = await self._lookup.listed_at(chosen, at_ms)
                listed = [(one.instrument, one.retired_ms) for one in then]
            rows = [
                schema.SymbolRow(
                    i.symbol,
                    "retired" if retired_ms is not None else i.status.value,
                    i.native_status,
                    i.base,
                    i.quote,
                    i.price_scale,
                    i.qty_scale,
                    i.listed_ms,
                    retired_ms,
                )
                for i, retired_ms in listed
            ]
            answer = schema.Symbols(chosen.value, now_ms if at_ms is None else at_ms, rows)
            return self._room.send(msgspec.json.encode(answer), MediaType.JSON)

        return symbols

    def _gaps(self) -> HTTPRouteHandler:
        @get(
            "/v1/gaps",
            tags=["market"],
            summary="Minutes that could not be kept",
            description="Gaps on record, newest first: open, final (the exchange has none), or repaired since.",
            responses=answers(schema.Gaps, "The gaps.", 404),
        )
        async def gaps(
            market: MarketText = None,
            which: Annotated[
                Literal["open", "final", "repaired", "all"], QueryParameter(name="state", description="Which.")
            ] = "open",
            limit: Annotated[int, QueryParameter(ge=1, le=MOST_RECORDS, description="At most so many.")] = 100,
        ) -> Response[Any]:
            chosen = market_of(self._live, market)
            found = await self._lookup.gaps(chosen, None if which == "all" else which, limit)
            return json_response({"market": chosen.value, "gaps": found})

        return gaps

    def _barriers(self) -> HTTPRouteHandler:
        @get(
            "/v1/barriers",
            tags=["market"],
            summary="How far a market is durable and verified",
            description=(
                "The newest barriers of the event log, newest first. barrier_durable: every candle that ends by boundary_ms is closed "
                "and durable. barrier_verified: the candles that end at it are verified or final, but for `unverified`."
            ),
            responses=answers(schema.Barriers, "The barriers.", 404),
        )
        async def barriers(
            market: MarketText = None,
            limit: Annotated[int, QueryParameter(ge=1, le=MOST_RECORDS, description="At most so many.")] = 100,
        ) -> Response[Any]:
            chosen = market_of(self._live, market)
            found = await self._lookup.barriers(chosen, limit)
            return json_response({"market": chosen.value, "barriers": found})

        return barriers


def _form(asked: str | None, accept: str) -> str:
    if asked is not None:
        return {"json": "json", "arrow": columns.ARROW, "parquet": columns.PARQUET}[asked]
    accepted = accept.lower()
    return next((form for form in (columns.ARROW, columns.PARQUET) if form in accepted), "json")


def _meta(found: Found) -> bytes:
    spans = [schema.MissingSpan(one.symbol, one.interval, one.start_ms, one.end_ms) for one in found.missing]
    return msgspec.json.encode(
        schema.CandlesMeta(
            found.table.market.value,
            found.now_ms,
            found.durable_ms,
            found.verified_ms,
            len(found.table.candles),
            found.verified,
            found.unverified,
            found.missing_candles,
            spans,
            found.truncated,
            found.next_ms,
        )
    )


def _as_json(table: Table, meta: bytes) -> bytes:
    return b'{"meta":%s,"candles":[%s]}' % (meta, ",".join(objects(table)).encode())
