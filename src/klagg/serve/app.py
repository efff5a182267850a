"""The application: routes by module, one function that puts them together, and what stands before all of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
import structlog
from litestar import Litestar, MediaType, Request, Response, get
from litestar.enums import ScopeType
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, Receive, Scope, Send

from klagg.errors import KlaggError
from klagg.model import Market
from klagg.serve.gate import Gate
from klagg.serve.limits import Bucket, Weights
from klagg.serve.native.description import description
from klagg.serve.native.problem import Problem, code_of, is_native, problem_body
from klagg.serve.query import Query, Refused
from klagg.serve.rest import MarketRest
from klagg.serve.source import Live

log = structlog.get_logger()

PREFIXES: Final = {Market.SPOT: "/api/v3/", Market.USDM: "/fapi/v1/"}
MAX_BODY: Final = 64 * 1024
"""Bytes of a request's body."""
MAX_TARGET: Final = 16 * 1024
"""Bytes of a request's path and query."""
REQUESTS_PER_S: Final = 500
"""Requests of one address, over what weights allow; twice as many may come at once. Past it a request gets 429."""
MAX_ADDRESSES: Final = 10_000
"""Addresses whose rate is kept; when full the counting begins anew."""
SECURITY_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'self'; frame-ancestors 'none'; base-uri 'none'"),
)
NAMES: Final = {"which": "state", "open_": "open", "format_": "format", "from_": "from", "text": "query"}
"""Parameters whose names in the code are others, since those are taken."""
UNVERIFIED_HEADER: Final = "X-Klagg-Unverified"


def market_routes(market: Market, rest: MarketRest, weights: Weights, live: Live) -> list[HTTPRouteHandler]:
    """The exchange's REST paths of one market."""

    def route(path: str, *more: str) -> HTTPRouteHandler:
        @get([PREFIXES[market] + path, *more], include_in_schema=False, name=f"{market.value} {path}")
        async def handler(request: Request[Any, Any, Any]) -> Response[bytes]:
            return await _answer(market, path, request, rest, weights, live)

        return handler

    # The second version of the futures' price is the first with another weight.
    newer = {"ticker/price": ["/fapi/v2/ticker/price"]} if market is Market.USDM else {}
    return [route(path, *newer.get(path, ())) for path in rest.paths]


async def _answer(
    market: Market, path: str, request: Request[Any, Any, Any], rest: MarketRest, weights: Weights, live: Live
) -> Response[bytes]:
    headers: dict[str, str] = {}
    try:
        micro = market is Market.SPOT and request.headers.get("x-mbx-time-unit", "").upper() == "MICROSECOND"
        query, problem = Query.read(request.scope["query_string"], 1_000 if micro else 1)
        used, too_much = weights.charge(address_of(request.scope), rest.weight(path, query), live.now_ms(market))
        headers["X-MBX-USED-WEIGHT-1M"] = str(used)
        if market is Market.SPOT:
            headers["X-MBX-USED-WEIGHT"] = str(used)
        if too_much:
            headers["Retry-After"] = str(60 - live.now_ms(market) // 1_000 % 60)
            refused = Refused(-1003, "Too many requests; please use the WebSocket streams for live updates.", 429)
            return Response(refused.body, media_type=MediaType.JSON, status_code=refused.status, headers=headers)
        if problem is not None:
            return Response(problem.body, media_type=MediaType.JSON, status_code=problem.status, headers=headers)
        answer = await rest.answer(path, query)
    except Refused as refused:
        return Response(refused.body, media_type=MediaType.JSON, status_code=refused.status, headers=headers)
    if answer.unverified is not None:
        headers[UNVERIFIED_HEADER] = str(answer.unverified)
    return Response(answer.body, media_type=MediaType.JSON, headers=headers)


def health_routes(live: Live) -> list[HTTPRouteHandler]:
    """`/healthz`: it answers. `/readyz`: everything is as it must be, or what is not."""

    @get("/healthz", include_in_schema=False, media_type=MediaType.TEXT)
    async def health() -> str:
        return "ok\n"

    @get("/readyz", include_in_schema=False, media_type=MediaType.TEXT)
    async def ready() -> Response[str]:
        missing = live.missing()
        text = "ready\n" if not missing else "".join(f"{line}\n" for line in missing)
        return Response(text, status_code=503 if missing else 200, media_type=MediaType.TEXT)

    return [health, ready]


def metrics_route(render: Callable[[], bytes]) -> HTTPRouteHandler:
    """`/metrics` in the Prometheus text format."""

    @get("/metrics", include_in_schema=False)
    async def metrics() -> Response[bytes]:
        return Response(render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return metrics


def build_app(routes: Sequence[HTTPRouteHandler], gate: Gate) -> ASGIApp:
    """The application of these routes behind the gate."""
    app = Litestar(
        list(routes),
        openapi_config=description(),
        logging_config=None,
        debug=False,
        request_max_body_size=MAX_BODY,
        exception_handlers={
            HTTPException: _http_error,
            Problem: _problem,
            KlaggError: _unavailable,
            Exception: _failed,
        },
    )
    return Guarded(app, gate)


class Guarded:
    """What stands before every route: who may ask, how often, and the headers of every answer."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app = app
        self._gate = gate
        self._rates: dict[str, Bucket] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != ScopeType.HTTP:
            return

        async def secured(message: Any) -> None:  # noqa: ANN401 - an ASGI message
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *SECURITY_HEADERS]
            await send(message)

        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, secured)
            return
        body = refusal.body
        if is_native(scope["path"]):
            body = problem_body(code_of(refusal.status), refusal.message)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        if refusal.status == 401:
            headers.append((b"www-authenticate", b'Basic realm="klagg"'))
        await secured({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    def _refusal(self, scope: Scope) -> Refused | None:
        if not self._rate(address_of(scope)).take(self._gate.now_s()):
            return Refused(-1003, "Too many requests.", 429)
        if len(scope["raw_path"]) + len(scope["query_string"]) > MAX_TARGET:
            return Refused(-1101, "The address asked for is too long.", 414)
        denied = self._gate.access.denied(scope["path"], headers_of(scope))
        return None if denied is None else Refused(-2015, denied.message, denied.status)

    def _rate(self, address: str) -> Bucket:
        bucket = self._rates.get(address)
        if bucket is None:
            if len(self._rates) >= MAX_ADDRESSES:
                self._rates.clear()
            bucket = self._rates[address] = Bucket(REQUESTS_PER_S, 2 * REQUESTS_PER_S)
        return bucket


def address_of(scope: Mapping[str, Any]) -> str:
    """The client's address."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def headers_of(scope: Mapping[str, Any]) -> dict[str, str]:
    """The headers, names in lower case."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def _error(path: str, status: int, code: int, message: str, parameter: str | None = None) -> Response[bytes]:
    body = msgspec.json.encode({"code": code, "msg": message})
    if is_native(path):
        body = problem_body(code_of(status), message, parameter)
    return Response(body, media_type=MediaType.JSON, status_code=status)


def _http_error(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """What the framework refuses: no such path, no such method, too large, a parameter of another type."""
    messages = {404: "There is nothing at this path.", 405: "This path is only read.", 413: "The request is too large."}
    message, parameter = messages.get(error.status_code, "The request cannot be read."), None
    if error.status_code == 400 and isinstance(error.extra, list) and error.extra:
        name = str(error.extra[0].get("key", ""))
        parameter = NAMES.get(name, name) or None
        message = str(error.extra[0].get("message", message)) if parameter else message
    response = _error(request.scope["path"], error.status_code, -1000, message, parameter)
    response.headers.update(error.headers or {})
    return response


def _problem(_: Request[Any, Any, Any], problem: Problem) -> Response[bytes]:
    """What the native API refuses."""
    return Response(problem.body, media_type=MediaType.JSON, status_code=problem.status)


def _unavailable(request: Request[Any, Any, Any], error: KlaggError) -> Response[bytes]:
    """The database or another part did not do its work now: its words are for the log, not for clients."""
    path = request.scope["path"]
    log.error("serve.request_failed", path=path, reason=str(error))
    return _error(path, 503, -1001, "Internal error; unable to process your request. Please try again.")


def _failed(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """A mistake of klagg's."""
    path = request.scope["path"]
    log.error("serve.request_failed", path=path, reason=f"{type(error).__name__}: {error}")
    return _error(path, 500, -1000, "An unknown error occurred while processing the request.")
