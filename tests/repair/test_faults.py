"""Whatever the exchange does, nothing stays unverified for ever: it ends verified, or on record as what the exchange has not."""

import json

import pytest

from klagg.interval import BY_NAME, MINUTE, MINUTE_MS
from klagg.model import Market, Origin
from klagg.repair.patience import REFUSALS
from repair.rig import T0, Answer, Rig, refusal

SYMBOLS = ("AAAUSDT", "BBBUSDT", "CCCUSDT", "DDDUSDT", "EEEUSDT")
OUTAGE_MS = 5 * MINUTE_MS


@pytest.fixture(params=list(Market))
async def rig(tmp_path, request):
    """Five symbols whose feed was away for five minutes, the last of which has just closed."""
    rig = Rig(tmp_path, SYMBOLS, ["5m", "30m"], request.param)
    rig.clock.jump(30 * MINUTE_MS)
    rig.close_upto(T0 + 30 * MINUTE_MS)
    rig.outage(SYMBOLS, T0 + 25 * MINUTE_MS, T0 + 25 * MINUTE_MS + OUTAGE_MS)
    # The half-hour's other minutes.
    for symbol in SYMBOLS:
        rig.put(symbol, range(T0, T0 + 25 * MINUTE_MS, MINUTE_MS), Origin.TRADES)
    yield rig
    rig.store.close()


def done(rig):
    return lambda: rig.unverified == 0


def for_a_while(rig, seconds, answer, symbol=None):
    """The exchange gives this answer for so long, to one symbol or to all."""
    until_ms = rig.now_ms + seconds * 1_000
    rig.exchange.fault = lambda _path, params, now_ms: (
        answer if now_ms < until_ms and symbol in {None, params["symbol"]} else None
    )


async def test_an_outage_is_repaired_at_once_and_the_longer_candles_follow_from_their_minutes(rig):
    await rig.run(300, done(rig))
    rig.check()
    assert {params["interval"] for _, _, params, _ in rig.exchange.asked} == {"1m"}
    assert rig.repairer.stats.unmatched == 0


@pytest.mark.parametrize(
    "answer",
    [
        Answer(b"<html>", 503),
        Answer(b"<html>", 403),
        Answer(b"[[1,2"),
        Answer(b'{"nothing":1}'),
        refusal(-1008, "Server is currently overloaded.", 503),
    ],
    ids=["503", "firewall", "cut short", "nonsense", "overloaded"],
)
async def test_an_exchange_that_fails_for_minutes(rig, answer):
    for_a_while(rig, 240, answer)
    took = await rig.run(600, done(rig))
    rig.check()
    assert took < 240 + 120
    assert rig.repairer.stats.last_error


@pytest.mark.parametrize("status", [429, 418])
async def test_an_address_that_is_banned_waits_as_long_as_it_is_told_and_not_longer(rig, status):
    for_a_while(rig, 100, refusal(-1003, "Too many requests.", status, **{"retry-after": "100"}))
    took = await rig.run(600, done(rig))
    rig.check()
    assert len(rig.exchange.asked) < 50
    assert took < 100 + 70


async def test_one_slow_symbol_holds_up_no_other(rig):
    slow = Answer(json.dumps([]).encode(), after_s=600)
    rig.exchange.fault = lambda _path, params, now_ms: (
        slow if params["symbol"] == "BBBUSDT" and now_ms < T0 + 31 * MINUTE_MS else None
    )
    others = [number for symbol, number in rig.ids.items() if symbol != "BBBUSDT"]

    def others_done():
        queue = rig.store.unverified(rig.market, before_ms=1 << 62, limit=10_000)
        return not set(others) & set(queue["instrument_id"].tolist())

    assert await rig.run(400, others_done) < 300
    assert rig.unverified > 0
    await rig.run(2_000, done(rig))
    rig.check()


async def test_one_symbol_that_always_fails_holds_up_no_other_and_costs_little(rig):
    rig.exchange.fault = lambda _path, params, _now_ms: (
        Answer(b"<html>", 500) if params["symbol"] == "BBBUSDT" else None
    )
    await rig.run(900)
    queue = rig.store.unverified(rig.market, before_ms=1 << 62, limit=10_000)
    assert set(queue["instrument_id"].tolist()) == {rig.ids["BBBUSDT"]}
    assert rig.exchange.requests("BBBUSDT") < 15 * 20
    rig.exchange.fault = lambda *_: None
    await rig.run(300, done(rig))
    rig.check()


async def test_a_new_listing_that_is_refused_for_its_first_hour(rig):
    for_a_while(rig, 3_600, refusal(-1122, "Invalid symbol status."), "CCCUSDT")
    await rig.run(5_000, done(rig))
    rig.check()
    assert rig.exchange.requests("CCCUSDT") < 20
    assert rig.store.gaps(rig.market) == []


async def test_rows_that_are_missing_in_the_middle_and_appear_later(rig):
    rig.exchange.lacks["AAAUSDT"] = {T0 + 27 * MINUTE_MS}
    await rig.run(100)
    assert rig.unverified > 0
    rig.exchange.lacks.clear()
    await rig.run(300, done(rig))
    rig.check()
    assert rig.repairer.stats.unmatched == 0


async def test_rows_that_never_come_are_unmatched_on_record_and_not_asked_for_again(rig):
    lacking = {T0 + 27 * MINUTE_MS, T0 + 28 * MINUTE_MS}
    rig.exchange.lacks["AAAUSDT"] = lacking
    await rig.run(1_500, done(rig))
    rig.check()
    number = rig.ids["AAAUSDT"]
    rows = rig.store.read(number, MINUTE, T0 + 25 * MINUTE_MS, T0 + 30 * MINUTE_MS)
    assert {int(o) for o in rows["open_ms"][rows["origin"] == Origin.UNMATCHED]} == lacking
    records = rig.store.gap_records(rig.market, 10)
    assert [(r.gap.symbol, r.gap.start_ms, r.gap.end_ms, r.state.value) for r in records] == [
        ("AAAUSDT", min(lacking), max(lacking) + MINUTE_MS, "final")
    ]
    asked = len(rig.exchange.asked)
    await rig.run(200)
    rig.repairer = rig.new_repairer()
    await rig.run(200)
    assert len(rig.exchange.asked) == asked


async def test_an_exchange_that_has_nothing_of_the_whole_time(rig):
    lacks = range(T0 + 25 * MINUTE_MS, T0 + 40 * MINUTE_MS, MINUTE_MS)
    rig.exchange.lacks["DDDUSDT"] = set(lacks)
    await rig.run(600)
    assert rig.unverified > 0, "no answer has had a row after them yet"
    await rig.run(5_000, done(rig))
    rig.check()
    number = rig.ids["DDDUSDT"]
    for interval in (MINUTE, BY_NAME["5m"]):
        rows = rig.store.read(number, interval, lacks.start, T0 + 30 * MINUTE_MS)
        assert set(rows["origin"].tolist()) == {Origin.UNMATCHED}
    asked = len(rig.exchange.asked)
    rig.repairer = rig.new_repairer()
    await rig.run(200)
    assert len(rig.exchange.asked) == asked


async def test_a_symbol_that_is_refused_for_good_goes_on_record_and_is_asked_for_once_a_day(rig):
    rig.exchange.fault = lambda _path, params, _now_ms: (
        refusal(-1121, "Invalid symbol.") if params["symbol"] == "BBBUSDT" else None
    )
    for _ in range(200):
        await rig.fill()
        rig.clock.jump(60_000)
    # Over the first hours it is asked for every ten minutes.
    assert rig.exchange.requests("BBBUSDT") == REFUSALS
    (gap,) = rig.store.gaps(rig.market)
    assert (gap.symbol, gap.start_ms, gap.end_ms) == ("BBBUSDT", T0 + 25 * MINUTE_MS, T0 + 30 * MINUTE_MS)
    assert "refuses" in gap.reason
    rig.repairer = rig.new_repairer()
    asked = rig.exchange.requests("BBBUSDT")
    await rig.run(60)
    for _ in range(72):
        await rig.fill()
        rig.clock.jump(3_600_000)
    assert rig.exchange.requests("BBBUSDT") - asked <= 4
    rig.exchange.fault = lambda *_: None
    rig.clock.jump(86_400_000)
    await rig.run(400, done(rig))
    rig.check()
    await rig.run(30)
    assert rig.store.gaps(rig.market) == []


async def test_longer_candles_that_were_proven_wrongly_are_found_by_comparison(rig):
    """A hole of hours, or a restart in the middle: marks that the engine could not take back."""
    rig.put("EEEUSDT", [T0], Origin.TRADES, BY_NAME["30m"], close=55)
    rig.put("EEEUSDT", [T0, T0 + 5 * MINUTE_MS], Origin.TRADES, BY_NAME["5m"], close=55)
    await rig.run(400, done(rig))
    rig.check()
    assert rig.repairer.stats.differences > 0
