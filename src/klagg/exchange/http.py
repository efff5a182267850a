"""One HTTP request to the exchange: sent within the weight budget, its answer judged, repeated where that can help.

| answer | becomes |
|---|---|
| none, a timeout, a broken body, 403 (a firewall's page), 408, 5xx, no JSON | repeated, then `ExchangeError` |
| 429, 418 | the budget is told, the request waits and is repeated, then `RateLimited` |
| 451 | `RestrictedLocation` |
| other 4xx | `RequestRejected` with the exchange's code |
"""

import math
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Final, NoReturn, TypeVar

import aiohttp
import msgspec
import structlog

from klagg.clock import Clock
from klagg.errors import (
    ClockError,
    ExchangeError,
    MalformedMessage,
    RateLimited,
    RequestRejected,
    RestrictedLocation,
)
from klagg.exchange.budget import Purpose, WeightBudget
from klagg.exchange.endpoints import SPOT_DATA_ONLY_URL, Endpoints
from klagg.exchange.pacing import Backoff
from klagg.exchange.transport import SOCKETS, Transport
from klagg.model import Market

log = structlog.get_logger()

ATTEMPTS: Final = 5
"""Tries of one request whose failure may pass."""
REFUSALS: Final = 8
"""Tries of one request that is answered 429 or 418 each time, although it waited as it was told."""

T = TypeVar("T")
Params = Mapping[str, str | int]


class _Transient(ExchangeError):
    """A failure that may pass; `cause` says in few words what it was."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)


class _ErrorBody(msgspec.Struct):
    code: int = 0
    msg: str = ""


_ERROR: Final = msgspec.json.Decoder(_ErrorBody)


class Http:
    """Requests to one market's REST address."""

    def __init__(
        self,
        endpoints: Endpoints,
        *,
        clock: Clock,
        now_ms: Callable[[], int],
        budget: WeightBudget,
        transport: Transport = SOCKETS,
        attempts: int = ATTEMPTS,
    ) -> None:
        self._endpoints = endpoints
        self._clock = clock
        self._now_ms = now_ms
        self._budget = budget
        self._open_session = transport.open_session
        self._session: aiohttp.ClientSession | None = None
        self._attempts = attempts
        self._rng = transport.chance()
        self.retries = 0
        """Requests repeated since the start, for whatever reason."""

    async def close(self) -> None:
        """Close the sockets."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def get(
        self, path: str, params: Params, parse: Callable[[bytes, int], T], *, weight: int, purpose: Purpose
    ) -> T:
        """What `parse(body, asked_ms)` makes of the answer; `asked_ms` is the exchange's time just before it was asked.

        A `MalformedMessage` that `parse` raises counts as a failure that may pass (a body cut short).

        Raises:
            RestrictedLocation: HTTP 451.
            RequestRejected: the exchange refused this request.
            RateLimited: refused again and again for its weight.
            ExchangeError: not reached, or no usable answer, within the bounded attempts.
        """
        backoff = Backoff(self._rng)
        refusals = 0
        while True:
            await self._budget.acquire(weight, purpose)
            try:
                asked_ms = self._now_ms()
                return parse(await self._settled(path, params, weight), asked_ms)
            except RateLimited as error:
                refusals += 1
                log.warning("rest.rate_limited", path=path, wait_ms=int(error.wait_s * 1e3), refusals=refusals)
                if refusals >= REFUSALS:
                    raise
            except (_Transient, MalformedMessage) as error:
                if backoff.failures + 1 >= self._attempts:
                    self._give_up(error)
                delay_s = backoff.next_s(floor_s=0.1)
                log.info(
                    "rest.retry", path=path, reason=str(error), attempt=backoff.failures, delay_ms=int(delay_s * 1e3)
                )
                await self._clock.sleep(delay_s)
            self.retries += 1

    async def get_once(self, path: str, *, weight: int) -> bytes:
        """One try, at once: neither the budget's turn nor the exchange's time is waited for (the clock needs this first).

        Raises:
            ExchangeError: any of those of `get`; `RateLimited` without a request while a ban lasts.
        """
        await self._budget.look()
        if self._budget.banned_s > 0:
            raise self._rate_limited()
        now_ms = self._known_now_ms({})
        if now_ms is None:
            self._budget.take_unclocked(weight)
        else:
            self._budget.take(weight, now_ms)
        try:
            return await self._settled(path, {}, weight)
        except _Transient as error:
            self._give_up(error)

    async def _settled(self, path: str, params: Params, weight: int) -> bytes:
        try:
            return await self._ask(path, params)
        finally:
            self._budget.settle(weight)

    async def _ask(self, path: str, params: Params) -> bytes:
        if self._session is None:
            self._session = self._open_session()
        try:
            async with self._session.get(self._endpoints.rest_url + path, params=params) as response:
                status, headers = response.status, response.headers
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _Transient(_cause(error)) from error
        self._budget.observe(headers, status, body, self._known_now_ms(headers))
        if status in {418, 429}:
            await self._budget.publish()
        if status != 200:
            raise self._error(path, status, body)
        return body

    def _error(self, path: str, status: int, body: bytes) -> ExchangeError:
        """What an answer other than 200 means."""
        code, message = _error_of(body)
        if status in {418, 429}:
            return self._rate_limited()
        if status == 451:
            return RestrictedLocation(
                f"{self._endpoints.rest_url} does not serve this location (HTTP 451): {self._ways_out()}"
            )
        if status in {403, 408} or status >= 500 or status < 400:
            return _Transient(f"HTTP {status}" + (f": {message}" if message else ""))
        unlike_it = f"HTTP {status}, not as the exchange refuses: check --rest-url"
        detail = f"{message} (code {code}, HTTP {status})" if code is not None else unlike_it
        return RequestRejected(
            f"{self._endpoints.rest_url}{path} refused the request: {detail}", http_status=status, code=code
        )

    def _rate_limited(self) -> RateLimited:
        wait_s = self._budget.banned_s
        return RateLimited(
            f"{self._endpoints.rest_url} has had too many requests from this address (HTTP 429 or 418): "
            f"wait {math.ceil(wait_s)} s, or use fewer programs at once",
            wait_s=wait_s,
        )

    def _give_up(self, error: ExchangeError) -> NoReturn:
        if isinstance(error, MalformedMessage):
            raise MalformedMessage(
                f"{self._endpoints.rest_url}: {error}: is it the exchange's? check --rest-url"
            ) from error
        raise ExchangeError(
            f"cannot get an answer from {self._endpoints.rest_url} ({error}): check the network, {self._ways_out()}"
        ) from error

    def _ways_out(self) -> str:
        spot = self._endpoints.market is Market.SPOT
        other = f"use --rest-url {SPOT_DATA_ONLY_URL}" if spot else "name another address with --rest-url"
        return f"set HTTPS_PROXY, {other}, or try `klagg demo`"

    def _known_now_ms(self, headers: Mapping[str, str]) -> int | None:
        """The exchange's time; before the first calibration what the answer's Date header says, if anything."""
        try:
            now_ms = self._now_ms()
        except ClockError:
            now_ms = 0
        if now_ms > 0:
            return now_ms
        try:
            return int(parsedate_to_datetime(headers["Date"]).timestamp()) * 1_000
        except (KeyError, ValueError):
            return None


def _cause(error: Exception) -> str:
    """In one line what stopped a request."""
    text = " ".join(str(error).split())
    if isinstance(error, TimeoutError):
        return text or "timed out"
    return text[:200] or type(error).__name__


def _error_of(body: bytes) -> tuple[int | None, str]:
    """The exchange's code and message; a firewall's page has neither."""
    try:
        error = _ERROR.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None, ""
    return error.code, " ".join(error.msg.split())[:200]
