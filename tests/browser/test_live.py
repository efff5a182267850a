"""The page over klagg itself: what is drawn is what is stored, it moves by itself, and it comes back after a restart."""

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio

from browser.conftest import View
from browser.rig import KEPT, Rig
from klagg.interval import MINUTE_MS

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]
DECIMALS = ("open", "high", "low", "close", "volume", "quote_volume", "taker_buy_volume", "taker_buy_quote_volume")
SYMBOL = "ETHUSDT"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    made = Rig(tmp_path_factory.mktemp("klagg"))
    await made.exchange.start()
    try:
        await made.start()
        yield made
        await made.stop()
    finally:
        await made.exchange.stop()


def stored(rig: Rig, interval: str, symbol: str = SYMBOL) -> dict[int, Any]:
    query = "SELECT * FROM candles WHERE symbol = ? AND interval = ? AND closed = 1 ORDER BY open_time_ms"
    return {row["open_time_ms"]: row for row in rig.rows(query, symbol, interval)}


def assert_shown_as_stored(rig: Rig, pane: dict[str, Any]) -> int:
    """Every closed candle of a chart against the database, in text and in what is painted; returns how many."""
    known = stored(rig, pane["interval"])
    closed = [one for one in pane["candles"] if one["closed"]]
    drawn = {bar["time"] * 1_000: bar for bar in pane["drawn"]["candles"]}
    volumes = {bar["time"] * 1_000: bar for bar in pane["drawn"]["volume"]}
    assert len(drawn) == len(volumes) == len(pane["candles"])
    times = [one["open_time_ms"] for one in closed]
    assert times == [t for t in known if times[0] <= t <= times[-1]], "no hole, nothing twice, nothing of its own"
    for one in closed:
        row, bar = known[one["open_time_ms"]], drawn[one["open_time_ms"]]
        if row["revision"] != one["revision"]:
            assert row["revision"] > one["revision"], "the database was read later"
            continue
        for name in DECIMALS:
            assert Decimal(one[name]) == Decimal(row[name]), (name, one["open_time_ms"])
        assert one["trades"] == row["trades"]
        assert not one["verified"] or row["verified"]
        assert [bar[name] for name in ("open", "high", "low", "close")] == [float(one[n]) for n in DECIMALS[:4]]
        assert bar["revised"] == (one["revision"] > 0)
        assert (bar["look"] == "solid") == (one["verified"] and one["origin"] != "unmatched")
        assert volumes[one["open_time_ms"]]["bought"] == float(one["taker_buy_volume"])
    return len(closed)


async def test_what_is_drawn_is_what_is_stored(rig: Rig, view: View) -> None:
    viewer = await view(rig.url)
    await viewer.open(f"?symbol={SYMBOL}")
    for key, interval in enumerate(KEPT, 1):
        await viewer.press(str(key))
        await viewer.until("(s, i) => s.panes[0].last?.interval === i", interval)
        pane = (await viewer.snapshot())["panes"][0]
        if len(pane["candles"]) > 1:
            assert assert_shown_as_stored(rig, pane) >= {"1m": 500, "5m": 100, "1h": 10}.get(interval, 1)
    await viewer.press("1")
    await viewer.until("s => s.panes[0].last?.interval === '1m'")
    await viewer.shot("live")
    # The legend, read as a screen reader does, is the stored candle.
    await viewer.page.locator(".pane-canvas").focus()
    for _ in range(9):
        await viewer.press("ArrowLeft")
    open_ms = int(await viewer.page.locator(".legend").get_attribute("data-open-time-ms") or 0)
    row = stored(rig, "1m")[open_ms]
    for name in ("open", "high", "low", "close", "volume"):
        assert Decimal(await viewer.text(f".legend [data-field={name}]")) == Decimal(row[name])
    assert await viewer.text(".legend [data-field=origin]") == row["origin"]
    if row["first_trade_id"] > 0:
        assert str(row["first_trade_id"]) in await viewer.text(".legend [data-field=ids]")


async def test_it_moves_by_itself(rig: Rig, view: View) -> None:
    viewer = await view(rig.url)
    await viewer.open(f"?symbol={SYMBOL}")
    asked: list[str] = []
    viewer.page.on("request", lambda request: asked.append(request.url))
    await viewer.until("s => !s.panes[0].last.closed")
    before = (await viewer.snapshot())["panes"][0]["last"]
    moved = "(s, b) => s.panes[0].last.open_time_ms > b.open_time_ms || s.panes[0].last.trades > b.trades"
    await viewer.until(moved, before)
    # The minute that ran then is closed and durable, then verified: hollow becomes solid.
    find = "s.panes[0].candles.find(c => c.open_time_ms === t)"
    await viewer.until(f"(s, t) => {find}?.closed", before["open_time_ms"])
    await viewer.until(f"(s, t) => {find}.verified", before["open_time_ms"])
    assert not any("/v1/candles" in url for url in asked), "by the feed alone"
    assert_shown_as_stored(rig, (await viewer.snapshot())["panes"][0])
    # The list's price is the running candle's.
    price = "document.querySelector('.row[aria-selected=true] .last').textContent"
    await viewer.until(f"s => {price} === s.panes[0].last.close")
    # The strip says of a minute what the database says of it.
    label = await viewer.page.locator(".cell").nth(30).get_attribute("aria-label") or ""
    assert rig.service is not None
    symbols = rig.service.markets[0].symbols
    assert f"{symbols} of {symbols} verified" in label


async def test_older_history_comes_as_one_scrolls(rig: Rig, view: View) -> None:
    viewer = await view(rig.url)
    await viewer.open(f"?symbol={SYMBOL}")
    first = (await viewer.snapshot())["panes"][0]["candles"][0]["open_time_ms"]
    oldest = min(stored(rig, "1m"))
    assert oldest < first
    await viewer.page.locator(".pane-canvas").focus()
    await viewer.press("Home")
    await viewer.until("(s, t) => s.panes[0].candles[0].open_time_ms < t", first)
    await viewer.press("Home")
    await viewer.until("(s, t) => s.panes[0].candles[0].open_time_ms === t", oldest)
    assert_shown_as_stored(rig, (await viewer.snapshot())["panes"][0])


async def test_a_symbol_that_is_not_there(rig: Rig, view: View) -> None:
    viewer = await view(rig.url)
    viewer.excused = ("404",)
    asked: list[str] = []
    viewer.page.on("request", lambda request: asked.append(request.url))
    await viewer.page.goto(f"{rig.url}/?symbol=<b>NOPE</b>USDT&interval=5m")
    await viewer.page.get_by_role("button", name="Try again").wait_for()
    assert await viewer.text(".pane-symbol") == "<b>NOPE</b>USDT"
    assert "Not loaded: " in await viewer.text(".pane-notice")
    await viewer.page.locator(".row .symbol", has_text=SYMBOL).click()
    await viewer.live()
    assert f"symbol={SYMBOL}&interval=5m" in viewer.page.url
    assert len([url for url in asked if "NOPE" in url and "/v1/candles" in url]) <= 3


async def test_it_comes_back_after_a_restart_without_a_hole(rig: Rig, view: View) -> None:
    viewer = await view(rig.url)
    feeds: list[str] = []
    viewer.page.on("websocket", lambda socket: feeds.append(socket.url))
    await viewer.open(f"?symbol={SYMBOL}")
    viewer.excused = (
        "ERR_CONNECTION_REFUSED",
        "ERR_EMPTY_RESPONSE",
        "ERR_CONNECTION_RESET",
        "WebSocket",
        "ERR_INCOMPLETE",
        "503",
    )
    await viewer.until("s => s.seq > 0")
    before = (await viewer.snapshot())["panes"][0]["last"]["open_time_ms"]
    await rig.stop()
    await viewer.until("s => s.standing.health === 'stale'")
    assert (await viewer.page.title()).startswith("⚠ STALE")
    seq = (await viewer.snapshot())["seq"]
    await viewer.shot("stopped")
    await rig.start()
    await viewer.live()
    assert f"since={seq}" in feeds[-1], "it goes on where it was"
    await viewer.until("(s, t) => s.panes[0].candles.some(c => c.closed && c.verified && c.open_time_ms > t)", before)
    pane = (await viewer.snapshot())["panes"][0]
    assert_shown_as_stored(rig, pane)
    times = [one["open_time_ms"] for one in pane["candles"]]
    assert times == list(range(times[0], times[-1] + 1, MINUTE_MS))
    assert "this page has the feed again" in await viewer.text(".event-list")


async def test_where_websockets_do_not_pass_events_come_otherwise(rig: Rig, view: View) -> None:
    viewer = await view(rig.url)
    await viewer.page.route_web_socket("**/v1/feed*", lambda socket: socket.close())
    await viewer.page.goto(f"{rig.url}/?symbol={SYMBOL}")
    await viewer.until("s => s.seq > 0 && s.panes[0]?.last && !s.panes[0].last.closed")
    before = (await viewer.snapshot())["panes"][0]["last"]
    await viewer.until("(s, b) => s.panes[0].candles.find(c => c.open_time_ms === b.open_time_ms).closed", before)
    await viewer.live()
