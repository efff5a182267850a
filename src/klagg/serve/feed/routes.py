"""The routes of the feed: a page of events, and the feed as server-sent events."""

from typing import TYPE_CHECKING, Annotated, Any, Final

from litestar import MediaType, Request, Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import QueryParameter
from litestar.response import Stream
from msgspec import Struct

from klagg.serve.feed.asked import asked
from klagg.serve.feed.feed import Feed
from klagg.serve.feed.source import Log
from klagg.serve.feed.sse import SseReader
from klagg.serve.native.answers import Room
from klagg.serve.native.problem import Problem
from klagg.serve.native.routes import answers
from klagg.serve.source import Live

if TYPE_CHECKING:
    from klagg.serve.gate import Gate

MOST_EVENTS: Final = 2_000
"""Events of one page."""

SinceText = Annotated[
    str | None, QueryParameter(description="The last sequence number seen: events after it. 0 is all that is kept.")
]
SymbolsText = Annotated[str | None, QueryParameter(description="Names with commas between, or globs; default all.")]
IntervalsText = Annotated[str | None, QueryParameter(description="Intervals with commas between; default all.")]
KindsText = Annotated[
    str | None,
    QueryParameter(
        description="candle_closed, candle_revised, candle_verified, barrier_durable, barrier_verified, symbol_added, "
        "symbol_retired, gap, or the groups candle, barrier, symbol; default all."
    ),
]
MarketText = Annotated[str | None, QueryParameter(description="usdm or spot; default all that are served.")]
CandlesText = Annotated[str | None, QueryParameter(description="true: candle events carry their candle.")]


class Cut(Struct):
    """Events that were asked for and are not there: after `from_seq`, up to `to_seq`."""

    from_seq: int
    to_seq: int


class Events(Struct):
    """A page of events; go on with `since=next_seq`."""

    oldest_seq: int
    newest_seq: int
    next_seq: int
    cut: Cut | None
    events: list[dict[str, Any]]


class FeedRoutes:
    """`/v1/events` and `/v1/feed`."""

    def __init__(self, live: Live, log: Log, feed: Feed, room: Room) -> None:
        self._live = live
        self._log = log
        self._feed = feed
        self._room = room
        self.gate: Gate | None = None
        """Set when the address is put together: it counts the connections."""

    def handlers(self) -> list[HTTPRouteHandler]:
        """The routes."""
        return [self._events(), self._sse()]

    def _events(self) -> HTTPRouteHandler:
        @get(
            "/v1/events",
            tags=["feed"],
            summary="A page of events",
            description=(
                "What became durable, in order: candles closed, revised, verified; barriers; symbols; gaps. An event is there exactly "
                "if its change is. `cut` tells what was asked for and is no longer kept."
            ),
            responses=answers(Events, "The events after `since`, oldest first.", 404, 413),
        )
        async def events(
            since: SinceText = "0",
            limit: Annotated[
                int, QueryParameter(ge=1, le=MOST_EVENTS, description="Events looked at, wanted or not.")
            ] = 500,
            market: MarketText = None,
            symbols: SymbolsText = None,
            intervals: IntervalsText = None,
            kinds: KindsText = None,
            candles: CandlesText = None,
        ) -> Response[Any]:
            query = {"since": since, "market": market, "symbols": symbols, "intervals": intervals, "kinds": kinds}
            wanted = asked(self._live, query | {"candles": candles})
            after = wanted.since or 0
            async with self._room:
                page = await self._log.page(after, limit, wanted.wanted.market, full=wanted.full)
                cut = "null"
                next_seq = page.upto_seq
                if after > page.newest_seq:
                    cut, next_seq = f'{{"from_seq":{after},"to_seq":{page.newest_seq}}}', page.newest_seq
                elif page.lost is not None:
                    cut = f'{{"from_seq":{after},"to_seq":{page.lost[1]}}}'
                entries = [page.entries[place] for place in wanted.wanted.chosen(page)]
                texts = b",".join(entry.full if wanted.full else entry.plain for entry in entries)
                body = b'{"oldest_seq":%d,"newest_seq":%d,"next_seq":%d,"cut":%s,"events":[%s]}' % (
                    page.oldest_seq,
                    page.newest_seq,
                    next_seq,
                    cut.encode(),
                    texts,
                )
                return self._room.send(body, MediaType.JSON)

        return events

    def _sse(self) -> HTTPRouteHandler:
        @get(
            "/v1/feed",
            tags=["feed"],
            summary="The feed",
            description=(
                "Every event after `since` and from then on, each at least once, as server-sent events, or as messages where the request "
                "is a WebSocket's. First comes `hello`, every five seconds `beat` with the number up to which all has been sent. "
                "A reader that is too slow gets `cut` with the number to go on from. With `open=true` running candles come twice a second "
                "where they changed, without a number."
            ),
            media_type="text/event-stream",
            responses=answers(None, "Events until one of both sides ends it.", 404, 413),
        )
        async def feed(
            request: Request[Any, Any, Any],
            since: SinceText = None,
            market: MarketText = None,
            symbols: SymbolsText = None,
            intervals: IntervalsText = None,
            kinds: KindsText = None,
            candles: CandlesText = None,
            open_: Annotated[
                str | None, QueryParameter(name="open", description="true: running candles are pushed too.")
            ] = None,
        ) -> Response[Any]:
            query = {"since": since, "market": market, "symbols": symbols, "intervals": intervals, "kinds": kinds}
            wanted = asked(
                self._live, query | {"candles": candles, "open": open_}, request.headers.get("last-event-id")
            )
            if self.gate is None or not self.gate.has_room:
                raise Problem("too_many_connections", "Too many connections.", 503)
            reader = SseReader(self._feed, self.gate, wanted)
            headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
            return Stream(reader.stream(), media_type="text/event-stream", headers=headers)

        return feed
