"""The offline exchange: one server for one or both markets, and the handles tests pull."""

import asyncio
import json
from collections.abc import Iterable
from typing import Final, Self

import structlog
from aiohttp import web

from klagg.errors import KlaggError
from klagg.model import Market
from klagg.sim.connection import Connection
from klagg.sim.faults.sockets import Handshake
from klagg.sim.front import Front, Refuse, cut_in_time, warm
from klagg.sim.limits import Refusal
from klagg.sim.rest import ApiError, Query
from klagg.sim.settings import ExchangeSettings
from klagg.sim.streams import Route
from klagg.sim.venue import Venue

log = structlog.get_logger()

GEO_TEXT: Final = (
    "Service unavailable from a restricted location according to 'b. Eligibility' in the terms of use. "
    "Please contact customer service if you believe you received this message in error."
)
_REFUSALS: Final = {
    403: "<html><head><title>403 Forbidden</title></head><body><center><h1>403 Forbidden</h1></center></body></html>",
    408: '{"code":-1007,"msg":"Timeout waiting for response from backend server. Send status unknown."}',
    451: json.dumps({"code": 0, "msg": GEO_TEXT}),
    503: '{"code":-1008,"msg":"Server is currently overloaded with other requests. Please try again in a few minutes."}',
}
_ROUTES: Final = {"market": Route.MARKET, "public": Route.PUBLIC, "private": Route.PRIVATE}


class OfflineExchange:
    """Binance's market data on a loopback port: `/fapi`, `/market`, `/public` for usdm, `/api`, `/ws`, `/stream` for spot.

    Takes the settings of one market, or of both. Methods that act on a market act on the first unless told another.
    """

    def __init__(self, *settings: ExchangeSettings) -> None:
        self._fronts = {each.market: Front(each) for each in settings or (ExchangeSettings(),)}
        self._first = next(iter(self._fronts))
        self._runner: web.AppRunner | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._host = ""
        self._port = 0

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen, and let the market run from its start instant.

        Raises:
            KlaggError: the address cannot be listened on.
        """
        app = web.Application()
        app.router.add_route("GET", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            await self._runner.cleanup()
            self._runner = None
            raise KlaggError(
                f"exchange: cannot listen on {host}:{port} ({error.strerror or error}); "
                "stop what is using it, or choose another port (0 picks a free one)"
            ) from error
        self._host, self._port = host, self._runner.addresses[0][1]
        for front in self._fronts.values():
            front.feed.prepare()
        for front in self._fronts.values():
            front.venue.begin()
            self._tasks += [
                asyncio.create_task(front.feed.run()),
                asyncio.create_task(warm(front)),
                asyncio.create_task(cut_in_time(front)),
            ]
        for task in self._tasks:
            task.add_done_callback(_report)

    async def stop(self) -> None:
        """Cut every connection and stop listening; a mistake that ended the feed is raised here."""
        for task in self._tasks:
            task.cancel()
        ends = await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        for market in self._fronts:
            self.cut_connections(market)
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def rest_url(self) -> str:
        """The base of REST addresses."""
        return f"http://{self._host}:{self._port}"

    @property
    def ws_url(self) -> str:
        """The base of WebSocket addresses."""
        return f"ws://{self._host}:{self._port}"

    def venue(self, market: Market | None = None) -> Venue:
        """One of its markets."""
        return self._front(market).venue

    def now_ms(self, market: Market | None = None) -> int:
        """The market's time."""
        return self._front(market).venue.now_ms()

    def klines(
        self, symbol: str, interval: str, start_ms: int, end_ms: int, market: Market | None = None
    ) -> list[list[int | str]]:
        """The truth: kline rows that open in `[start_ms, end_ms)`, as REST would give them now, without its limit."""
        return self._front(market).venue.klines(symbol, interval, start_ms, end_ms)

    def connection_count(self, market: Market | None = None) -> int:
        """How many WebSocket connections are open."""
        return len(self._front(market).connections)

    def used_weight(self, market: Market | None = None) -> int:
        """The request weight counted in the minute of the last request."""
        return self._front(market).window.used

    def cut_connections(self, market: Market | None = None) -> int:
        """End all connections without a close frame; how many there were."""
        connections = list(self._front(market).connections)
        for connection in connections:
            connection.cut()
        return len(connections)

    def played(self, market: Market | None = None) -> dict[str, int]:
        """How often each kind of fault has struck."""
        return self._front(market).venue.faults.played()

    def drop_trades(self, symbol: str, ids: Iterable[int], market: Market | None = None) -> None:
        """Leave aggregates out of the stream; REST still has them."""
        self._front(market).venue.dropped.setdefault(symbol, set()).update(ids)

    def delay_trades(self, symbol: str, ids: Iterable[int], by_ms: int, market: Market | None = None) -> None:
        """Let the stream have aggregates this much later than it would."""
        self._front(market).venue.delayed.setdefault(symbol, {}).update(dict.fromkeys(ids, by_ms))

    def repeat_trades(self, symbol: str, ids: Iterable[int], market: Market | None = None) -> None:
        """Let the stream have aggregates twice."""
        self._front(market).venue.repeated.setdefault(symbol, set()).update(ids)

    def refuse(self, status: int, count: int = 1, path: str = "", market: Market | None = None) -> None:
        """Refuse the next `count` requests (handshakes too) whose path contains `path` with an HTTP status."""
        self._front(market).refusals.append(Refuse(status, count, path))

    def set_offset(self, offset_ms: int, market: Market | None = None) -> None:
        """Put the market's clock this far from where it would be."""
        self._front(market).venue.set_offset(offset_ms)

    def list_symbol(self, symbol: str, market: Market | None = None) -> None:
        """Let a new symbol trade from now on."""
        front = self._front(market)
        front.feed.announce(front.venue.list_symbol(symbol))

    def delist_symbol(self, symbol: str, market: Market | None = None) -> None:
        """Let a symbol's trading end now."""
        front = self._front(market)
        front.feed.announce(front.venue.delist_symbol(symbol))

    def _front(self, market: Market | None) -> Front:
        return self._fronts[self._first if market is None else market]

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        parts = [part for part in request.path.split("/") if part]
        if parts[:2] in (["api", "v3"], ["fapi", "v1"]):
            market = Market.SPOT if parts[0] == "api" else Market.USDM
            if market in self._fronts:
                return await self._answer_rest(self._fronts[market], "/".join(parts[2:]), request)
        elif parts and (parts[0] in _ROUTES or parts[0] in ("ws", "stream")):
            legacy = Route.SPOT if Market.SPOT in self._fronts else Route.LEGACY
            route = _ROUTES.get(parts[0], legacy)
            rest = parts[1:] if parts[0] in _ROUTES else parts
            if route.market in self._fronts and rest and rest[0] in ("ws", "stream"):
                return await self._answer_socket(self._fronts[route.market], route, rest, request)
        return web.Response(
            status=404, text="<html><body><h1>404 Not Found</h1></body></html>", content_type="text/html"
        )

    def _refused(self, front: Front, request: web.Request) -> web.Response | None:
        """What the request gets instead of an answer because somebody arranged it, if anything."""
        status = 451 if front.venue.settings.geo_blocked else 0
        for refusal in front.refusals:
            if not status and refusal.path in request.path:
                status = refusal.status
                refusal.left -= 1
        front.refusals = [refusal for refusal in front.refusals if refusal.left > 0]
        if not status:
            return None
        if status in (418, 429):
            retry_at_ms = front.venue.now_ms() + 1_000
            text = f"Way too many requests; IP banned until {retry_at_ms}." if status == 418 else "Too many requests."
            return self._limited(front, Refusal(status, text, retry_at_ms))
        body = _REFUSALS.get(status, "<html><body>error</body></html>")
        return web.Response(
            status=status, text=body, content_type="application/json" if body[0] == "{" else "text/html"
        )

    def _limited(self, front: Front, refusal: Refusal) -> web.Response:
        response = _error(refusal.status, -1003, refusal.message)
        if front.venue.settings.retry_after:
            wait_ms = max(0, refusal.retry_at_ms - front.venue.now_ms())
            response.headers["Retry-After"] = str(-(-wait_ms // 1_000))
        return response

    async def _answer_rest(self, front: Front, path: str, request: web.Request) -> web.Response:
        refused = self._refused(front, request)
        if refused is not None:
            return refused
        front.requested += 1
        faults, number = front.venue.faults.requests, front.requested
        instead = await faults.instead(path, number, front.venue.now_ms(), request)
        if instead is not None:
            return instead
        spot = front.venue.settings.is_spot
        micro = spot and request.headers.get("X-MBX-TIME-UNIT", "").upper() == "MICROSECOND"
        query = Query(path, request.query, 1_000 if micro else 1)
        over = front.window.charge(front.rest.weight(query), front.venue.now_ms())
        if over is not None:
            response = self._limited(front, over)
        elif len(request.query) != len(set(request.query)):
            response = _error(400, -1101, "Duplicate values for a parameter detected.")
        else:
            try:
                body = await front.rest.answer(query)
            except ApiError as error:
                response = _error(error.status, error.code, error.message)
            else:
                if body is None:
                    return web.Response(status=404, text="<html><body>404</body></html>", content_type="text/html")
                response = web.Response(text=faults.body(path, number, body), content_type="application/json")
                response.enable_compression()
        used = faults.weight(path, number, front.window.used)
        if used is not None:
            response.headers["X-MBX-USED-WEIGHT-1M"] = str(used)
            if spot:
                response.headers["X-MBX-USED-WEIGHT"] = str(used)
        return response

    async def _answer_socket(
        self, front: Front, route: Route, parts: list[str], request: web.Request
    ) -> web.StreamResponse:
        refused = self._refused(front, request)
        if refused is not None:
            return refused
        if front.connects is not None and not front.connects.take(front.venue.now_ms()):
            return self._limited(front, Refusal(429, "Too many connection attempts.", front.venue.now_ms() + 300_000))
        front.connected += 1
        number, faults = front.connected, front.venue.faults
        spoilt = faults.sockets.handshake(number, faults.passed())
        if spoilt is not None:
            return await _spoil(spoilt, request, front.venue.settings.speed)
        combined = parts[0] == "stream"
        given = request.query.get("streams", "").split("/") if combined else parts[1:]
        micro = route is Route.SPOT and request.query.get("timeUnit", "").upper() == "MICROSECOND"
        unit = 1_000 if micro else 1
        connection = Connection(front.venue, route, request, number=number, combined=combined, unit=unit)
        front.connections.add(connection)
        try:
            return await connection.serve([name for name in given if name])
        finally:
            front.connections.discard(connection)


def _error(status: int, code: int, message: str) -> web.Response:
    body = json.dumps({"code": code, "msg": message}, ensure_ascii=False, separators=(",", ":"))
    return web.Response(status=status, text=body, content_type="application/json")


async def _spoil(handshake: Handshake, request: web.Request, speed: float) -> web.Response:
    """Let a connection fail while it is made."""
    if handshake.how == "refuse":
        return web.Response(status=handshake.status, text="<html><body>error</body></html>", content_type="text/html")
    if handshake.how == "hang":
        await asyncio.sleep(handshake.hold / 1_000 / speed)
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


def _report(task: asyncio.Task[None]) -> None:
    """Say at once when a task of the exchange has failed; `stop` raises what it failed with."""
    if not task.cancelled() and task.exception() is not None:
        log.error("sim.task_failed", error=repr(task.exception()))
