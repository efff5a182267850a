"""The routes of `/v1` for those who watch: a market at a glance, its newest minutes, the service's state."""

from typing import Annotated, Any, Final, Protocol

import msgspec
from litestar import MediaType, Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import QueryParameter
from msgspec import Struct

from klagg.model import Market
from klagg.serve.native.answers import Room
from klagg.serve.native.asking import market_of
from klagg.serve.native.problem import Problem
from klagg.serve.native.routes import MarketText, answers, json_response
from klagg.serve.native.source import Lookup
from klagg.serve.source import Live

MOST_MINUTES: Final = 180


class Desk(Protocol):
    """What is shown to those who watch."""

    async def overview(self, market: Market) -> bytes:
        """The body of `/v1/overview`."""
        ...

    async def minutes(self, market: Market, count: int) -> bytes:
        """The body of `/v1/minutes`."""
        ...

    def ops(self, market: Market) -> dict[str, Any]:
        """The body of `/v1/ops`."""
        ...

    def status(self) -> dict[str, Any]:
        """The body of `/v1/status`, each market's `verified_ms` left open."""
        ...


class OverviewRow(Struct):
    """A symbol at a glance; null where its last day is not there whole."""

    symbol: str
    status: str
    last: str | None
    change_24h_pct: float | None
    quote_volume_24h: str | None
    spark: list[float]
    pending: int
    origin: str | None
    last_minute_ms: int | None


class OverviewAnswer(Struct):
    """A market at a glance."""

    market: str
    now_ms: int
    symbols: list[OverviewRow]


class MinuteRow(Struct):
    """How the candles of a minute stand; some of the symbols are named."""

    open_time_ms: int
    symbols: int
    verified: int
    pending: int
    gap: int
    pending_symbols: list[str]
    gap_symbols: list[str]


class MinutesAnswer(Struct):
    """The newest minutes, oldest first."""

    market: str
    now_ms: int
    minutes: list[MinuteRow]


class OpsAnswer(Struct):
    """The last ten minutes; null where nothing was measured."""

    market: str
    step_ms: int
    series: dict[str, Any]


class StatusAnswer(Struct):
    """The service's state."""

    version: str
    now_ms: int
    ready: bool
    missing: list[str]
    markets: list[dict[str, Any]]
    notes: list[dict[str, Any]]


class DeskRoutes:
    """`/v1/overview`, `/v1/minutes`, `/v1/status`, `/v1/ops`."""

    def __init__(self, live: Live, lookup: Lookup, desk: Desk, room: Room) -> None:
        self._live = live
        self._lookup = lookup
        self._desk = desk
        self._room = room

    def handlers(self) -> list[HTTPRouteHandler]:
        """The routes."""
        return [self._overview(), self._minutes(), self._status(), self._ops()]

    def _overview(self) -> HTTPRouteHandler:
        @get(
            "/v1/overview",
            tags=["service"],
            summary="A market at a glance",
            description="A row for each symbol, made at most once a second: price, its day, its last hour, what waits for verification.",
            responses=answers(OverviewAnswer, "The symbols.", 404),
        )
        async def overview(market: MarketText = None) -> Response[Any]:
            return self._room.send(await self._desk.overview(market_of(self._live, market)), MediaType.JSON)

        return overview

    def _minutes(self) -> HTTPRouteHandler:
        @get(
            "/v1/minutes",
            tags=["service"],
            summary="How the newest minutes stand",
            description="Of each minute how many symbols have their candle, how many are verified, pending, or missing.",
            responses=answers(MinutesAnswer, "The minutes, oldest first.", 404),
        )
        async def minutes(
            market: MarketText = None,
            minutes: Annotated[int, QueryParameter(ge=1, le=MOST_MINUTES, description="How many.")] = 60,
        ) -> Response[Any]:
            return self._room.send(await self._desk.minutes(market_of(self._live, market), minutes), MediaType.JSON)

        return minutes

    def _status(self) -> HTTPRouteHandler:
        @get(
            "/v1/status",
            tags=["service"],
            summary="The service's state",
            description="Whether it is ready, and of each market how far it is and how it fares; null where nobody here runs it.",
            responses=answers(StatusAnswer, "The state."),
        )
        async def status() -> Response[bytes]:
            found = self._desk.status()
            for market in found["markets"]:
                market["verified_ms"] = await self._lookup.verified_ms(Market(market["market"])) or None
            return json_response(found)

        return status

    def _ops(self) -> HTTPRouteHandler:
        @get(
            "/v1/ops",
            tags=["service"],
            summary="The last ten minutes of the service",
            description="Series with a number a step, the newest last: clock offset, tick lag, trades, age of each connection's data, "
            "request weight, time of a write, candles that wait for verification. Empty where nothing runs.",
            responses=answers(OpsAnswer, "The series.", 404),
        )
        async def ops(market: MarketText = None) -> Response[bytes]:
            served = self._live.markets
            chosen = market or (served[0].value if len(served) == 1 else Market.USDM.value)
            # A market that is still starting has them too.
            for one in served:
                if one.value == chosen.strip().lower():
                    return Response(msgspec.json.encode(self._desk.ops(one)), media_type=MediaType.JSON)
            known = chosen.strip().lower() in {one.value for one in Market}
            code, status = ("market_not_served", 404) if known else ("unknown_market", 400)
            raise Problem(code, "This market is not served here.", status, "market")

        return ops
