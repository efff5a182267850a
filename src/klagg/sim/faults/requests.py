"""REST requests that are refused, limited, banned, not answered, answered late, in part, or with a wrong weight."""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Annotated

import msgspec
from aiohttp import web

from klagg.sim.faults.playing import Playing
from klagg.sim.faults.schedule import Fault, Span, fits


class RequestFault(Fault, frozen=True, kw_only=True):
    """A fault of single requests."""

    paths: tuple[str, ...] = ("*",)
    """Patterns of the path behind the version: klines, aggTrades, exchangeInfo, time, ticker/24hr, …"""


class HttpError(RequestFault, frozen=True, kw_only=True, tag_field="kind", tag="http_error"):
    """A request is answered with an HTTP status and, unless `code` is 0, the exchange's error body."""

    status: Annotated[int, msgspec.Meta(ge=400, le=599)] = 503
    code: int = -1001
    message: str = "Internal error; unable to process your request. Please try again."


class RateLimited(RequestFault, frozen=True, kw_only=True, tag_field="kind", tag="rate_limited"):
    """A request gets 429, with `Retry-After` unless that is 0."""

    retry_after: Span = Span(5_000)


class Banned(RequestFault, frozen=True, kw_only=True, tag_field="kind", tag="banned"):
    """A request gets 418, with `Retry-After` unless that is 0; the message names the end of the ban, as the exchange's does."""

    retry_after: Span = Span(30_000)


class NoAnswer(RequestFault, frozen=True, kw_only=True, tag_field="kind", tag="no_answer"):
    """A request hangs for `hold`, then its connection is cut."""

    hold: Span = Span(60_000)


class SlowAnswer(RequestFault, frozen=True, kw_only=True, tag_field="kind", tag="slow_answer"):
    """An answer comes `by` later."""

    by: Span = Span(3_000)


class CutAnswer(RequestFault, frozen=True, kw_only=True, tag_field="kind", tag="cut_answer"):
    """An answer's body ends in its middle, as whole HTTP."""


class WrongWeight(RequestFault, frozen=True, kw_only=True, tag_field="kind", tag="wrong_weight"):
    """An answer's header has another used weight; `weight` -1 leaves the header out."""

    weight: Annotated[int, msgspec.Meta(ge=-1)] = 0


class RequestFaults:
    """The fate of every request; requests are numbered in the order in which they came."""

    def __init__(self, faults: Sequence[Playing[RequestFault]], passed: Callable[[], int], speed: float) -> None:
        self._faults = faults
        self._passed = passed
        self._speed = speed

    async def instead(self, path: str, number: int, now_ms: int, request: web.Request) -> web.Response | None:
        """What a request gets instead of its answer, after the waiting that its faults make; None for its answer.

        Args:
            path: behind the version.
            number: of the request.
            now_ms: the exchange's time.
            request: its connection may be cut.
        """
        slow = self._striking(SlowAnswer, path, number)
        if isinstance(slow, SlowAnswer):
            await asyncio.sleep(slow.by / 1_000 / self._speed)
        held = self._striking(NoAnswer, path, number)
        if isinstance(held, NoAnswer):
            await asyncio.sleep(held.hold / 1_000 / self._speed)
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=500)
        for kind in (Banned, RateLimited):
            limit = self._striking(kind, path, number)
            if isinstance(limit, Banned | RateLimited):
                return _limited(limit, now_ms)
        failed = self._striking(HttpError, path, number)
        if isinstance(failed, HttpError):
            body = json.dumps({"code": failed.code, "msg": failed.message}) if failed.code else "<html>error</html>"
            kind_of = "application/json" if failed.code else "text/html"
            return web.Response(status=failed.status, text=body, content_type=kind_of)
        return None

    def body(self, path: str, number: int, text: str) -> str:
        """The body that is sent."""
        return text[: len(text) // 2] if self._striking(CutAnswer, path, number) else text

    def weight(self, path: str, number: int, used: int) -> int | None:
        """The used weight that the header tells; None for no header."""
        wrong = self._striking(WrongWeight, path, number)
        if not isinstance(wrong, WrongWeight):
            return used
        return None if wrong.weight < 0 else wrong.weight

    def _striking(self, kind: type[RequestFault], path: str, number: int) -> RequestFault | None:
        for playing in self._faults:
            fault = playing.fault
            if isinstance(fault, kind) and fits(path, fault.paths) and playing.strikes(self._passed(), number):
                return fault
        return None


def _limited(fault: Banned | RateLimited, now_ms: int) -> web.Response:
    banned = isinstance(fault, Banned)
    until_ms = now_ms + fault.retry_after
    message = f"Way too many requests; IP banned until {until_ms}." if banned else "Too many requests."
    response = web.Response(
        status=418 if banned else 429,
        text=json.dumps({"code": -1003, "msg": message}),
        content_type="application/json",
    )
    if fault.retry_after:
        response.headers["Retry-After"] = str(-(-fault.retry_after // 1_000))
    return response
