"""One request: what the exchange's refusals become, and what is repeated."""

import json
from collections.abc import Callable

import pytest
from aiohttp import web

from exchange.venue import Venue
from klagg.clock import Calibrator, ExchangeClock, ScaledClock
from klagg.errors import ClockError, ExchangeError, MalformedMessage, RateLimited, RequestRejected, RestrictedLocation
from klagg.exchange.budget import WeightBudget
from klagg.exchange.endpoints import for_market
from klagg.exchange.rest import RestClient
from klagg.interval import MINUTE
from klagg.model import Market, Status, TradeKind

BASE_MS = 1_800_000_000_000
OPEN_MS = BASE_MS - 600_000
ROW = [OPEN_MS, "1.5", "2", "1", "1.7", "10", OPEN_MS + 59_999, "16", 4, "3", "4", "0"]
SPEED = 400.0


class Rig:
    def __init__(self, venue: Venue, market: Market = Market.USDM, *, known: bool = True) -> None:
        self.clock = ScaledClock(SPEED)
        self.now_ms: Callable[[], int] = lambda: BASE_MS + self.clock.monotonic_ns() // 1_000_000 if known else 0
        self.budget = WeightBudget(2_400, clock=self.clock, now_ms=self.now_ms)
        endpoints = for_market(market, rest_url=f"http://127.0.0.1:{venue.port}")
        self.rest = RestClient(endpoints, clock=self.clock, now_ms=self.now_ms, budget=self.budget)

    async def klines(self):
        return await self.rest.klines(
            "AUSDT", MINUTE, start_ms=OPEN_MS, end_ms=OPEN_MS + 60_000, price_scale=1, qty_scale=0
        )


def answers(*made: web.Response | Callable) -> Callable[[web.Request], web.StreamResponse]:
    """The answers in turn; the last one for ever."""
    left = list(made)

    def give(request: web.Request) -> web.StreamResponse:
        chosen = left.pop(0) if len(left) > 1 else left[0]
        return chosen(request) if callable(chosen) and not isinstance(chosen, web.Response) else chosen

    return give


def good(_request: web.Request) -> web.Response:
    return web.json_response([ROW], headers={"X-MBX-USED-WEIGHT-1M": "77"})


def refused(status: int, code: int, msg: str, **headers: str) -> Callable[[web.Request], web.Response]:
    return lambda _request: web.json_response({"code": code, "msg": msg}, status=status, headers=headers)


def cut_short(_request: web.Request) -> web.Response:
    return web.Response(text=json.dumps([ROW])[:20])


def hung_up(request: web.Request) -> web.Response:
    request.transport.abort()
    return web.Response()


@pytest.fixture
async def rig(venue: Venue):
    made = Rig(venue)
    yield made
    await made.rest.close()


@pytest.mark.parametrize(
    "first",
    [
        lambda _r: web.Response(status=403, text="<html>firewall</html>"),
        lambda _r: web.Response(status=408),
        lambda _r: web.Response(status=503, text="busy"),
        refused(502, -1008, "overloaded"),
        cut_short,
        hung_up,
    ],
)
async def test_what_may_pass_is_tried_again(venue: Venue, rig: Rig, first: Callable) -> None:
    venue.answers["klines"] = answers(first, first, good)
    assert (await rig.klines())["open_ms"].tolist() == [OPEN_MS]
    assert len(venue.calls) == 3
    assert rig.rest.retries >= 1


async def test_what_never_passes_ends_in_one_line(venue: Venue, rig: Rig) -> None:
    venue.answers["klines"] = lambda _r: web.Response(status=503)
    with pytest.raises(ExchangeError, match=r"cannot get an answer .*HTTP 503.* HTTPS_PROXY"):
        await rig.klines()
    venue.answers["klines"] = cut_short
    with pytest.raises(MalformedMessage, match="kline"):
        await rig.klines()


async def test_a_refusal_is_not_repeated(venue: Venue, rig: Rig) -> None:
    venue.answers["klines"] = refused(400, -1121, "Invalid symbol.")
    with pytest.raises(RequestRejected, match=r"Invalid symbol\. \(code -1121, HTTP 400\)") as raised:
        await rig.klines()
    assert (raised.value.http_status, raised.value.code) == (400, -1121)
    assert len(venue.calls) == 1


async def test_a_refused_location_names_the_ways_out(venue: Venue, rig: Rig) -> None:
    venue.answers["klines"] = refused(451, 0, "Service unavailable from a restricted location")
    with pytest.raises(RestrictedLocation, match=r"HTTPS_PROXY.*--rest-url.*klagg demo"):
        await rig.klines()
    assert len(venue.calls) == 1


@pytest.mark.parametrize("status", [418, 429])
async def test_nothing_is_sent_before_a_ban_has_ended(venue: Venue, rig: Rig, status: int) -> None:
    venue.answers["klines"] = answers(refused(status, -1003, "Too many requests", **{"Retry-After": "40"}), good)
    venue.answers["time"] = lambda _r: web.json_response({"serverTime": 1})
    asked_ns = rig.clock.monotonic_ns()
    assert len(await rig.klines()) == 1
    assert rig.clock.monotonic_ns() - asked_ns >= 40e9
    assert len(venue.calls) == 2


async def test_a_ban_that_never_ends_is_an_error(venue: Venue, rig: Rig) -> None:
    venue.answers["klines"] = refused(429, -1003, "Too many requests", **{"Retry-After": "1"})
    with pytest.raises(RateLimited, match="too many requests"):
        await rig.klines()


async def test_the_weight_that_the_exchange_counts_is_taken_over(venue: Venue, rig: Rig) -> None:
    venue.answers["klines"] = good
    await rig.klines()
    assert rig.budget.used(rig.now_ms()) == 77


async def test_a_start_waits_a_short_ban_out_and_a_long_one_not(venue: Venue) -> None:
    rig = Rig(venue, known=False)
    try:
        exchange_clock = ExchangeClock(rig.clock)
        calibrator = Calibrator(rig.clock, exchange_clock, rig.rest.server_time)
        told = lambda _r: web.json_response({"serverTime": BASE_MS})  # noqa: E731
        venue.answers["time"] = answers(refused(429, -1003, "Too many", **{"Retry-After": "30"}), told)
        asked_ns = rig.clock.monotonic_ns()
        await calibrator.start()
        assert rig.clock.monotonic_ns() - asked_ns >= 30e9
        assert len(venue.calls) == 6, "one that was refused, and a burst after the ban"
        venue.answers["time"] = refused(418, -1003, "Way too many", **{"Retry-After": "720"})
        with pytest.raises(ClockError, match="wait 720 s"):
            await Calibrator(rig.clock, ExchangeClock(rig.clock), rig.rest.server_time).start()
        assert len(venue.calls) == 7
    finally:
        await rig.rest.close()


async def test_the_symbol_list_brings_the_limit_and_an_unknown_status_is_said_once(
    venue: Venue, rig: Rig, capsys
) -> None:
    def info(*statuses: str) -> Callable[[web.Request], web.Response]:
        limits = [{"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 1_200}]
        symbols = [{"symbol": f"S{n}", "status": status, "filters": []} for n, status in enumerate(statuses)]
        return lambda _r: web.json_response({"rateLimits": limits, "symbols": symbols})

    venue.answers["exchangeInfo"] = info("TRADING", "UNHEARD_OF")
    listed = await rig.rest.instruments()
    assert [instrument.status for instrument in listed] == [Status.TRADING, Status.HALTED]
    assert rig.budget.limit == 1_200
    assert "UNHEARD_OF" in capsys.readouterr().out
    await rig.rest.instruments()
    assert "UNHEARD_OF" not in capsys.readouterr().out


async def test_aggregate_trades_are_asked_for_by_id_and_read(venue: Venue, rig: Rig) -> None:
    row = {"a": 7, "p": "1.50", "q": "2", "nq": "2", "f": 20, "l": 22, "T": BASE_MS, "m": True}
    venue.answers["aggTrades"] = lambda _r: web.json_response([row, {**row, "a": 8, "p": "0.0"}])
    trades = await rig.rest.agg_trades("AUSDT", from_id=7)
    assert venue.calls[-1][1] == {"symbol": "AUSDT", "fromId": "7", "limit": "1000"}
    assert trades["agg_id"].tolist() == [7, 8]
    assert trades["kind"].tolist() == [TradeKind.MARKET, TradeKind.UNPROVEN]
    assert (trades[0]["price"], trades[0]["price_scale"], trades[0]["last_id"]) == (15, 1, 22)


@pytest.mark.parametrize("body", ["[[1]]", '[{"a":1.5}]', "{}", '[{"a":1,"p":1.5,"q":"1","f":1,"l":1,"T":1,"m":true}]'])
async def test_garbage_for_aggregate_trades_is_malformed(venue: Venue, rig: Rig, body: str) -> None:
    venue.answers["aggTrades"] = lambda _r: web.Response(text=body)
    with pytest.raises(MalformedMessage, match="aggregate trades"):
        await rig.rest.agg_trades("AUSDT")


async def test_requests_go_by_the_proxy_of_the_environment(venue: Venue, monkeypatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{venue.port}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    rig = Rig(venue)
    rig.rest = RestClient(
        for_market(Market.USDM, rest_url="http://exchange.invalid"),
        clock=rig.clock,
        now_ms=rig.now_ms,
        budget=rig.budget,
    )
    venue.answers["klines"] = good
    try:
        assert len(await rig.klines()) == 1
    finally:
        await rig.rest.close()
