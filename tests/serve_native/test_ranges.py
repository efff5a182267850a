"""Every range that the native API, the chart's feed and the event log are asked for, at its edges: from is included, until is not."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from klagg.interval import MINUTE_MS
from serve_native.rig import START_MS, Owner, Rig, served

MINUTES = 12
EDGES = [(place, offset) for place in (0, 4, MINUTES - 1, MINUTES) for offset in (-1_000, 0, 1_000)]


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Owner, Rig]]:
    owner = Owner(tmp_path / "klagg.db", ("BTCUSDT", "ETHUSDT"))
    owner.close(MINUTES)
    async with served(owner.path) as rig:
        yield owner, rig
    owner.store.close()


def opens(upto: int) -> list[int]:
    return [START_MS + n * MINUTE_MS for n in range(upto)]


@pytest.mark.parametrize("runs", [False, True])
async def test_candles_from_start_until_before_end(pair: tuple[Owner, Rig], runs: bool) -> None:
    _, rig = pair
    there = opens(MINUTES + runs)
    for place, offset in EDGES:
        for later in (0, 1, 3):
            start_ms = START_MS + place * MINUTE_MS + offset
            for end_ms in (start_ms + later * MINUTE_MS, START_MS + (place + later) * MINUTE_MS):
                answer = await rig.get(
                    "/v1/candles",
                    symbol="BTCUSDT",
                    start=start_ms,
                    end=end_ms,
                    open="include" if runs else "exclude",
                )
                told = [row["open_time_ms"] for row in answer["candles"]]
                assert told == [t for t in there if start_ms <= t < end_ms], (place, offset, later)
                assert answer["meta"]["missing_candles"] == 0
                assert not answer["meta"]["truncated"]


async def test_a_limit_that_is_just_reached_leaves_nothing_and_one_less_says_where_it_goes_on(
    pair: tuple[Owner, Rig],
) -> None:
    _, rig = pair
    asked = {"symbol": "BTCUSDT", "start": START_MS, "end": START_MS + 5 * MINUTE_MS}
    whole = (await rig.get("/v1/candles", **asked, limit=5))["meta"]
    assert (whole["candles"], whole["truncated"], whole["next"]) == (5, False, None)
    less = (await rig.get("/v1/candles", **asked, limit=4))["meta"]
    assert (less["candles"], less["truncated"], less["next"]) == (4, True, START_MS + 4 * MINUTE_MS)


async def test_the_candle_that_contains_an_instant(pair: tuple[Owner, Rig]) -> None:
    _, rig = pair
    for place in (0, 3, MINUTES - 1):
        for offset in (0, 1, MINUTE_MS - 1):
            at_ms = START_MS + place * MINUTE_MS + offset
            for symbols in ("BTCUSDT", "*"):
                rows = (await rig.get("/v1/candles", symbols=symbols, at=at_ms))["candles"]
                assert {row["open_time_ms"] for row in rows} == {START_MS + place * MINUTE_MS}
    assert (await rig.get("/v1/candles", symbols="*", at=START_MS + MINUTES * MINUTE_MS))["candles"] == []


async def test_bars_from_until_before_to(pair: tuple[Owner, Rig]) -> None:
    _, rig = pair
    there = [t // 1_000 for t in opens(MINUTES + 1)]
    for place, offset in EDGES:
        from_s = START_MS // 1_000 + place * 60 + offset // 1_000
        for to_s in (from_s + 120, START_MS // 1_000 + (place + 2) * 60):
            bars = await rig.get("/udf/history", symbol="BTCUSDT", resolution="1", from_=from_s, to=to_s)
            expected = [t for t in there if from_s <= t < to_s]
            assert bars.get("t", []) == expected
            assert bars["s"] == ("ok" if expected else "no_data")
    for count in (1, 3):
        to_s = START_MS // 1_000 + 5 * 60
        bars = await rig.get("/udf/history", symbol="BTCUSDT", resolution="1", to=to_s, countback=count)
        assert bars["t"] == [to_s - 60 * n for n in range(count, 0, -1)]


async def test_events_after_a_number(pair: tuple[Owner, Rig]) -> None:
    owner, _ = pair
    every = owner.store.events(0, 10_000)
    newest = every[-1].last_seq
    assert every[0].seq == 1
    for after in (0, 1, 5, newest - 1, newest):
        found = owner.store.events(after, 10_000)
        numbers = [one.seq + n for one in found for n in range(len(one.values))]
        assert numbers == list(range(after + 1, newest + 1))
    for limit in (1, 2, 7):
        found = owner.store.events(3, limit)
        assert sum(len(one.values) for one in found) == limit
