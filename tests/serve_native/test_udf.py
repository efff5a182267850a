"""TradingView's UDF against the database: the bars that a chart draws are the stored candles."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from klagg.interval import BY_NAME
from klagg.serve import udf
from klagg.serve.native.problem import Problem
from klagg.serve.udf import RESOLUTIONS, resolution_of
from serve_native.rig import START_MS, Owner, Rig, served

START_S = START_MS // 1_000


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Owner, Rig]]:
    owner = Owner(tmp_path / "klagg.db")
    owner.close(22)
    async with served(owner.path) as rig:
        yield owner, rig
    owner.store.close()


async def test_what_the_library_asks_before_it_draws(pair: tuple[Owner, Rig]) -> None:
    _, rig = pair
    config = await rig.get("/udf/config")
    assert (config["supports_search"], config["supported_resolutions"]) == (True, list(RESOLUTIONS))
    assert int(await rig.body("/udf/time")) > START_S
    one = await rig.get("/udf/symbols", symbol="usdm:BTCUSDT")
    assert (one["name"], one["pricescale"], one["session"], one["timezone"]) == ("BTCUSDT", 100, "24x7", "Etc/UTC")
    assert await rig.get("/udf/symbols", symbol="BTCUSDT") == one
    found = await rig.get("/udf/search", query="eth", limit=5)
    assert [row["ticker"] for row in found] == ["usdm:ETHUSDT"]
    assert len((await rig.get("/udf/symbol_info", group="usdm"))["symbol"]) == 3
    for symbol in ("NOPE", "spot:BTCUSDT"):
        assert (await rig.get("/udf/symbols", 404, symbol=symbol))["error"]["code"] == "unknown_symbol"


@pytest.mark.parametrize(("resolution", "minutes"), [("1", 1), ("5", 5), ("2", 2)])
async def test_bars_are_the_stored_candles(pair: tuple[Owner, Rig], resolution: str, minutes: int) -> None:
    owner, rig = pair
    bars = await rig.get("/udf/history", symbol="ETHUSDT", resolution=resolution, from_=START_S, to=START_S + 20 * 60)
    rows = owner.rows(
        "SELECT * FROM candles_f64 WHERE symbol = 'ETHUSDT' AND interval = '1m' AND closed ORDER BY open_time_ms"
    )
    groups = [rows[n : n + minutes] for n in range(0, 20, minutes)]
    assert bars == {
        "s": "ok",
        "t": [group[0]["open_time_ms"] // 1_000 for group in groups],
        "o": [group[0]["open"] for group in groups],
        "h": [max(row["high"] for row in group) for group in groups],
        "l": [min(row["low"] for row in group) for group in groups],
        "c": [group[-1]["close"] for group in groups],
        "v": [sum(row["volume"] for row in group) for group in groups],
    }


async def test_countback_the_running_bar_and_nothing_there(pair: tuple[Owner, Rig]) -> None:
    _, rig = pair
    bars = await rig.get("/udf/history", symbol="BTCUSDT", resolution="1", to=START_S + 86_400, countback=3)
    assert bars["t"] == [START_S + 60 * n for n in (20, 21, 22)]  # two closed ones, and the one that runs
    none = await rig.get("/udf/history", symbol="BTCUSDT", resolution="1", from_=START_S + 7_200, to=START_S + 9_000)
    assert (none["s"], none["nextTime"]) == ("no_data", START_S + 21 * 60)
    before = await rig.get("/udf/history", symbol="BTCUSDT", resolution="1", from_=1, to=START_S)
    assert before == {"s": "no_data"}
    assert (await rig.get("/udf/history", 400, symbol="BTCUSDT", resolution="1", to=9))["error"]["parameter"] == "from"


async def test_of_more_bars_than_an_answer_holds_the_newest_are_given_and_it_says_so(
    pair: tuple[Owner, Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, rig = pair
    monkeypatch.setattr(udf, "MOST_LIMIT", 5)
    asked = {"symbol": "ETHUSDT", "resolution": "1", "to": START_S + 20 * 60}
    bars = await rig.get("/udf/history", **asked, from_=START_S)
    assert bars["t"] == [START_S + 60 * n for n in range(15, 20)]
    assert bars["truncated"] is True
    for from_s in (START_S + 15 * 60, START_S + 16 * 60):
        assert "truncated" not in await rig.get("/udf/history", **asked, from_=from_s)
    assert len((await rig.get("/udf/history", **asked, from_=START_S + 16 * 60))["t"]) == 4


def test_resolutions_of_any_length() -> None:
    assert [resolution_of(text).name for text in ("1", "60", "1440", "D", "1D", "W", "1M", "45", "90")] == [
        *("1m", "1h", "1d", "1d", "1d", "1w", "1M", "45m", "90m")
    ]
    assert resolution_of("3D") is BY_NAME["3d"]
    for text in ("", "0", "2M", "X", "-1", "999999", "9999W"):
        with pytest.raises(Problem):
            resolution_of(text)
