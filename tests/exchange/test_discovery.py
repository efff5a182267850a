"""Discovery: the streams say that something changed, the symbol list says what."""

import asyncio
import json
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klagg.clock import ManualClock
from klagg.errors import ExchangeError
from klagg.exchange.discovery import Changed, Discovery, Event, Listed, Paused, Retired
from klagg.exchange.endpoints import for_market
from klagg.exchange.symbols import parse_exchange_info, renames
from klagg.exchange.transport import Transport
from klagg.fixed import MAX_SCALE
from klagg.model import Instrument, Market, Status

BASE_MS = 1_800_000_000_000


def listed(symbol: str, status: Status = Status.TRADING, **changes: object) -> Instrument:
    return Instrument(Market.USDM, symbol, status, 2, 1, **changes)  # type: ignore[arg-type]


class Source:
    """A symbol list that a test decides."""

    def __init__(self, *instruments: Instrument) -> None:
        self.now = list(instruments)
        self.asked = 0
        self.fails: list[ExchangeError] = []

    async def instruments(self) -> list[Instrument]:
        self.asked += 1
        if self.fails:
            raise self.fails.pop()
        return list(self.now)


class Rig:
    def __init__(self, source: Source, market: Market = Market.USDM, absent: tuple[str, ...] = ()) -> None:
        self.source = source
        self.clock = ManualClock()
        self.discovery = Discovery(
            for_market(market, ws_url="ws://127.0.0.1:9"),
            source,
            clock=self.clock,
            now_ms=lambda: BASE_MS + self.clock.monotonic_ns() // 1_000_000,
            known=source.now,
            absent=absent,
            transport=Transport(chance=lambda: random.Random(1)),
        )
        self.events: list[Event] = []

    async def run(self) -> None:
        """The list's side alone: no socket is opened."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.discovery._refresh())
            async for event in self.discovery.events():
                self.events.append(event)

    def tickers(self, *rows: tuple[str, str], st: int = 1, at_ms: int = BASE_MS) -> None:
        data = [{"e": "24hrMiniTicker", "E": at_ms, "s": symbol, "c": close, "st": st} for symbol, close in rows]
        self.discovery.message(json.dumps({"stream": "!miniTicker@arr", "data": data}).encode(), at_ms)

    def contract(self, symbol: str, status: str, st: int = 1) -> None:
        data = {"e": "contractInfo", "E": BASE_MS, "s": symbol, "cs": status, "st": st}
        frame = {"stream": "!contractInfo", "data": data}
        self.discovery.message(json.dumps(frame, separators=(",", ":")).encode(), BASE_MS)


@pytest.fixture
async def rig():
    made = Rig(Source(listed("OLD"), listed("NEXT", Status.PENDING), listed("GONE", Status.RETIRED)))
    task = asyncio.create_task(made.run())
    await made.clock.advance(10)
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_an_unknown_symbol_is_looked_up_and_comes_with_its_last_price(rig: Rig) -> None:
    rig.source.now.append(listed("NEW"))
    rig.tickers(("OLD", "1.0"), ("NEW", "12.50"))
    await rig.clock.advance(10)
    assert rig.events == [Listed(listed("NEW"), (125, 1))]
    rig.tickers(("NEW", "12.60"))
    await rig.clock.advance(20_000)
    assert rig.source.asked == 1


async def test_an_unknown_symbol_that_the_list_has_not_is_not_asked_about_all_the_time(rig: Rig) -> None:
    for _ in range(100):
        rig.tickers(("GHOST", "1"))
        await rig.clock.advance(1_000)
    assert 1 <= rig.source.asked <= 3
    assert rig.events == []


async def test_coin_margined_rows_are_nobodys(rig: Rig) -> None:
    rig.tickers(("BTCUSD_PERP", "85000.1"), st=2)
    rig.contract("BTCUSD_PERP", "TRADING", st=2)
    await rig.clock.advance(10_000)
    assert rig.source.asked == 0
    assert "BTCUSD_PERP" not in rig.discovery.last_price


async def test_a_listing_that_is_known_is_looked_up_when_it_is_due(rig: Rig) -> None:
    due = listed("NEXT", Status.PENDING, listed_ms=BASE_MS + 400_000)
    rig.source.now[1] = due
    rig.contract("NEXT", "PENDING_TRADING")
    await rig.clock.advance(320_000)
    assert rig.events == []
    rig.source.now[1] = replace(due, status=Status.TRADING)
    await rig.clock.advance(82_000)
    assert rig.events == [Listed(replace(due, status=Status.TRADING), None)]


async def test_a_pending_or_retired_symbol_that_trades_is_looked_up(rig: Rig) -> None:
    rig.source.now[1] = listed("NEXT")
    rig.tickers(("NEXT", "3"), ("GONE", "5"))
    await rig.clock.advance(10_000)
    assert rig.events == [Listed(listed("NEXT"), (3, 0))]
    rig.source.now[2] = listed("GONE")
    rig.tickers(("GONE", "5"))
    await rig.clock.advance(10_000)
    assert len(rig.events) == 1, "its last price alone is no news"
    rig.tickers(("GONE", "6"))
    await rig.clock.advance(10_000)
    assert rig.events[1:] == [Listed(listed("GONE"), (6, 0))]


async def test_changes_and_departures(rig: Rig) -> None:
    finer = replace(listed("OLD"), price_scale=3)
    rig.source.now[0] = finer
    rig.contract("OLD", "TRADING")
    await rig.clock.advance(6_000)
    assert rig.events == [Changed(finer, listed("OLD"))]
    rig.source.now[0] = replace(finer, status=Status.RETIRED)
    rig.contract("OLD", "SETTLING")
    await rig.clock.advance(6_000)
    assert rig.events[1:] == [Retired("OLD", replace(finer, status=Status.RETIRED))]
    rig.source.now[0] = finer
    rig.contract("OLD", "TRADING")
    await rig.clock.advance(6_000)
    assert rig.events[2:] == [Listed(finer, None)], "another life"
    del rig.source.now[0]
    rig.contract("OLD", "CLOSE")
    await rig.clock.advance(12_000)
    assert rig.events[3:] == [], "one list without it is no evidence"
    await rig.clock.advance(12_000)
    assert rig.events[3:] == [Retired("OLD", finer)]


async def test_a_symbol_that_one_list_lacks_has_not_left(rig: Rig) -> None:
    for _ in range(3):
        old = rig.source.now.pop(0)
        rig.contract("OLD", "TRADING")
        await rig.clock.advance(8_000)
        rig.source.now.insert(0, old)
        await rig.clock.advance(60_000)
    assert rig.events == []


async def test_a_symbol_absent_at_the_start_is_looked_for_soon() -> None:
    source = Source(listed("A", Status.HALTED), listed("B", Status.HALTED), listed("C"), listed("D"))
    made = Rig(source, absent=("A", "B"))
    source.now = [listed("B"), listed("C"), listed("D")]
    task = asyncio.create_task(made.run())
    await made.clock.advance(30_000)
    assert made.events == [Listed(listed("B"), None), Retired("A", listed("A", Status.HALTED))]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("word", ["HALT", "BREAK"])
async def test_what_does_not_trade_pauses_at_once_and_goes_on_when_it_trades(word: str) -> None:
    trades = Instrument(Market.SPOT, "A", Status.TRADING, 2, 1, native_status="TRADING")
    paused = replace(trades, status=Status.HALTED, native_status=word)
    dead = replace(paused, symbol="DEAD")
    made = Rig(Source(trades, dead), Market.SPOT)
    task = asyncio.create_task(made.run())
    made.source.now[0] = paused
    await made.clock.advance(310_000)
    assert made.events == [Paused(paused)]
    made.source.now[0] = trades
    made.tickers(("A", "1"), ("DEAD", "1"))
    made.tickers(("A", "2"), ("DEAD", "1"))
    await made.clock.advance(10_000)
    assert made.events[1:] == [Listed(trades, (2, 0))]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_status_that_nobody_knows_is_what_the_trades_say() -> None:
    trades = listed("A", native_status="TRADING")
    odd = replace(trades, status=Status.HALTED, native_status="NEVER_HEARD")
    made = Rig(Source(trades, listed("B", native_status="TRADING")))
    task = asyncio.create_task(made.run())
    made.tickers(("A", "1"))
    made.tickers(("A", "2"))
    made.source.now[0] = odd
    made.contract("A", "NEVER_HEARD")
    await made.clock.advance(10_000)
    assert made.events == [Changed(replace(odd, status=Status.TRADING), trades)], "it has just traded"
    await made.clock.advance(610_000)
    assert made.events[1:] == [Paused(odd)], "nothing speaks for it any more"
    made.tickers(("A", "3"), at_ms=BASE_MS + 620_000)
    await made.clock.advance(10_000)
    assert made.events[2:] == [Listed(replace(odd, status=Status.TRADING), (3, 0))]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_symbol_absent_from_the_mini_ticker_has_not_changed(rig: Rig) -> None:
    for _ in range(30):
        rig.tickers(("OTHER", "1"))
        await rig.clock.advance(60_000)
    assert rig.events == []


async def test_half_a_market_does_not_retire_at_once() -> None:
    made = Rig(Source(*(listed(f"S{n}") for n in range(10))))
    task = asyncio.create_task(made.run())
    await made.clock.advance(10)
    made.source.now = made.source.now[:3]
    made.contract("S9", "CLOSE")
    await made.clock.advance(10_000)
    assert (made.source.asked, made.events) == (1, [])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_list_that_cannot_be_had_is_asked_for_again(rig: Rig) -> None:
    rig.source.fails = [ExchangeError("down"), ExchangeError("down")]
    rig.source.now.append(listed("NEW"))
    rig.tickers(("NEW", "1"))
    await rig.clock.advance(60_000)
    assert [event.instrument.symbol for event in rig.events if isinstance(event, Listed)] == ["NEW"]


async def test_when_a_symbol_was_last_seen_to_trade(rig: Rig) -> None:
    rig.tickers(("OLD", "1.0"))
    assert rig.discovery.traded_ms("OLD") == 0
    rig.tickers(("OLD", "1.1"))
    assert rig.discovery.traded_ms("OLD") == BASE_MS


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b'{"stream":"x","data":[{"s":1}]}',
        b'[{"s":"A","c":"x"}]',
        b'[{"s":"A","c":"1","E":"x"}]',
        b'{"data":[7]}',
        b"\xff",
    ],
)
async def test_what_cannot_be_read_is_counted(rig: Rig, payload: bytes) -> None:
    rig.discovery.message(payload, BASE_MS)
    assert rig.discovery.malformed == 1


async def test_a_ticker_row_that_cannot_be_read_costs_the_others_nothing(rig: Rig) -> None:
    rig.discovery.message(b'[{"s":7,"c":"1"},{"s":"OLD","c":"2","E":9e99},{"s":"OLD","c":"3"},null]', BASE_MS)
    assert rig.discovery.last_price["OLD"].mantissa == 3
    assert rig.discovery.malformed == 3


# The symbol list


def info(*symbols: dict[str, object]) -> bytes:
    return json.dumps({"symbols": [{"filters": [], "status": "TRADING", **row} for row in symbols]}).encode()


def grid(tick: str, step: str) -> dict[str, object]:
    return {
        "pricePrecision": 7,
        "quantityPrecision": 7,
        "filters": [
            {"filterType": "PRICE_FILTER", "tickSize": tick},
            {"filterType": "LOT_SIZE", "stepSize": step},
            {"filterType": "SOMETHING_NEW", "x": [1]},
        ],
    }


def test_scales_are_those_of_the_grids() -> None:
    body = info({"symbol": "A", **grid("0.10", "0.001")}, {"symbol": "B", **grid("0.0001000", "1")})
    scales = [(one.price_scale, one.qty_scale) for one in parse_exchange_info(body, Market.USDM).instruments]
    assert scales == [(1, 3), (4, 0)]


@pytest.mark.parametrize(
    ("market", "native", "status"),
    [
        (Market.USDM, "PENDING_TRADING", Status.PENDING),
        (Market.USDM, "PRE_SETTLE", Status.TRADING),
        (Market.USDM, "SETTLING", Status.RETIRED),
        (Market.USDM, "CLOSE", Status.RETIRED),
        (Market.USDM, "NEVER_HEARD", Status.HALTED),
        (Market.SPOT, "BREAK", Status.HALTED),
        (Market.SPOT, "HALT", Status.HALTED),
        (Market.SPOT, "CANCEL_ONLY", Status.TRADING),
    ],
)
def test_statuses_mean_what_they_mean_for_candles(market: Market, native: str, status: Status) -> None:
    answer = parse_exchange_info(info({"symbol": "币安人生USDT", "status": native, "contractType": ""}), market)
    assert [(one.symbol, one.status, one.native_status) for one in answer.instruments] == [
        ("币安人生USDT", status, native)
    ]
    assert answer.unknown_statuses == ({native} if native == "NEVER_HEARD" else set())


def test_a_row_that_cannot_be_read_is_left_out_alone() -> None:
    body = info({"symbol": 5}, {"symbol": "A"}, {"symbol": "BTCUSD_PERP", "st": 2}, {"symbol": "B", **grid("x", "1")})
    answer = parse_exchange_info(body, Market.USDM)
    assert [one.symbol for one in answer.instruments] == ["A", "B"], (
        "what is odd beside its name does not hide a symbol"
    )
    assert answer.left_out == {"unreadable": 1, "coin_margined": 1}


@pytest.mark.parametrize(
    "name", ["", " ", "btcusdt", "BTC USDT", "A/B", "A" * 65, "..", "A\x00", "BTCUSDT@TRADE", "A,B", "A*"]
)
def test_a_name_that_no_command_could_ask_for_is_left_out(name: str) -> None:
    answer = parse_exchange_info(info({"symbol": name}, {"symbol": "A"}), Market.SPOT)
    assert [one.symbol for one in answer.instruments] == ["A"]
    assert answer.left_out == {"odd_name": 1}


@pytest.mark.parametrize("status", ["BREAK", "TRADING", "NEVER_HEARD"])
def test_a_symbol_that_is_listed_twice_is_one_and_trades_if_either_does(status: str) -> None:
    body = info({"symbol": "A", "status": status}, {"symbol": "A"}, {"symbol": "A", "status": status})
    answer = parse_exchange_info(body, Market.SPOT)
    assert [(one.symbol, one.status) for one in answer.instruments] == [("A", Status.TRADING)]
    assert answer.left_out == {"repeated": 2}


_ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_FIELDS = ("status", "baseAsset", "onboardDate", "deliveryDate", "pricePrecision", "filters", "st", "contractType")


@pytest.mark.parametrize("market", list(Market))
@settings(max_examples=200, deadline=None)
@given(rows=st.lists(st.dictionaries(st.sampled_from(_FIELDS), _ANYTHING)), limits=_ANYTHING)
def test_rows_that_nobody_foresaw_are_symbols_all_the_same(market: Market, rows: list[dict], limits: object) -> None:
    body = {"symbols": [{"symbol": f"S{n}", **row} for n, row in enumerate(rows)], "rateLimits": limits}
    answer = parse_exchange_info(json.dumps(body).encode(), market)
    assert len(answer.instruments) + answer.left_out.get("coin_margined", 0) == len(rows)
    for one in answer.instruments:
        assert (0 <= one.price_scale <= MAX_SCALE, 0 <= one.listed_ms < 1 << 53) == (True, True)
        json.dumps(one.extra)


def contract(symbol: str, listed_ms: int, **extra: object) -> Instrument:
    return replace(
        listed(symbol), listed_ms=listed_ms, extra={"contract_type": "PERPETUAL", "margin_asset": "USDT", **extra}
    )


@pytest.mark.parametrize(
    ("before", "now", "found"),
    [
        ([contract("OLD", 500)], [contract("NEW", 500)], {"OLD": "NEW"}),
        ([contract("OLD", 500), contract("B", 600)], [contract("NEW", 500), contract("B", 600)], {"OLD": "NEW"}),
        ([contract("OLD", 500)], [contract("OLD", 500), contract("NEW", 500)], {}),  # both are there: no rename
        ([contract("OLD", 500)], [contract("NEW", 900)], {}),  # a listing like any other, at the same instant
        ([contract("OLD", 2_000)], [contract("NEW", 2_000)], {}),  # listed after the last look: it may be new
        ([contract("OLD", 500)], [contract("NEW", 500, margin_asset="USDC")], {}),  # another contract
        ([contract("A", 500), contract("B", 500)], [contract("NEW", 500)], {}),  # which of the two?
        ([contract("OLD", 500)], [contract("C", 500), contract("D", 500)], {}),
        ([contract("OLD", 0)], [contract("NEW", 0)], {}),  # spot: no listing times, no evidence
    ],
)
def test_a_rename_is_one_only_where_the_lists_prove_it(before: list, now: list, found: dict) -> None:
    by_name = [{one.symbol: one for one in instruments} for instruments in (before, now)]
    assert renames(*by_name, before_ms=1_000) == found


async def test_a_retirement_names_the_successor(rig: Rig) -> None:
    rig.source.now[0] = contract("OLD", 500)
    rig.contract("OLD", "TRADING")
    await rig.clock.advance(20_000)
    rig.source.now[0] = contract("FRESH", 500)
    rig.contract("FRESH", "TRADING")
    await rig.clock.advance(20_000)
    assert rig.events[-2:] == [
        Listed(contract("FRESH", 500), None),
        Retired("OLD", contract("OLD", 500), "FRESH"),
    ]
