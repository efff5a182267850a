"""The page over a stand-in for klagg: many symbols, keys, languages, themes, sizes, silence, hostile names."""

import json
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from browser.conftest import MEDIUM, PHONE, SHOTS, WIDE, View
from browser.mock import Mock, names

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]
MANY = 3_000
TRICKS = ("<IMG SRC=X ONERROR=ALERT(1)>", "币安人生USDT", "A&AMP;BUSDT", '"><SCRIPT>ALERT(1)</SCRIPT>')


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def few() -> AsyncIterator[Mock]:
    mock = Mock(names(8))
    await mock.start()
    yield mock
    await mock.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def many() -> AsyncIterator[Mock]:
    mock = Mock(names(MANY))
    await mock.start()
    yield mock
    await mock.stop()


Stage = Callable[[list[str]], Mock]


@pytest_asyncio.fixture(loop_scope="module")
async def stage() -> AsyncIterator[Stage]:
    """Makes stand-ins of a test's own, which it starts; they end after the windows (ask for it before `view`)."""
    made: list[Mock] = []

    def make(symbols: list[str]) -> Mock:
        made.append(Mock(symbols))
        return made[-1]

    yield make
    for mock in made:
        await mock.stop()


def ordered(mock: Mock, key: Callable[[dict[str, Any]], Any]) -> list[str]:
    return [row["symbol"] for row in sorted(mock.overview({})["symbols"], key=key)]


SCROLL = """async () => {
  const frame = document.querySelector('.rows'), times = [];
  let before = await new Promise(requestAnimationFrame), most = 0;
  for (let n = 0; n < 90; n += 1) {
    frame.scrollTop += 900;
    const now = await new Promise(requestAnimationFrame);
    times.push(now - before);
    before = now;
    most = Math.max(most, document.querySelectorAll('.rows-space .row').length);
  }
  return {times, most, top: frame.scrollTop, end: frame.scrollHeight - frame.clientHeight};
}"""


async def test_thousands_of_symbols_cost_what_is_in_sight(many: Mock, view: View) -> None:
    viewer = await view(many.url)
    await viewer.open("?symbol=BTCUSDT")
    assert "3,000 sym" in await viewer.text(".status")
    told = await viewer.page.evaluate(SCROLL)
    assert told["most"] < 60
    assert told["top"] > 75_000
    frames = sorted(told["times"])
    SHOTS.mkdir(parents=True, exist_ok=True)
    figures = {"frames": len(frames), "median_ms": frames[len(frames) // 2], "p95_ms": frames[len(frames) * 95 // 100]}
    (SHOTS / "frames.json").write_text(json.dumps(figures | {"longest_ms": frames[-1]}) + "\n")
    await viewer.page.evaluate("document.querySelector('.rows').scrollTop = 1e9")
    last = ordered(many, lambda row: -float(row["quote_volume_24h"]))[-1]
    await viewer.page.locator(".row .symbol", has_text=re.compile(f"^{last}$")).wait_for()
    await viewer.shot("symbols-3000")


async def test_the_list_sorts_and_searches_and_remembers_stars(many: Mock, view: View) -> None:
    viewer = await view(many.url, theme="dark")
    await viewer.open("?symbol=BTCUSDT")
    for head, key in (
        ("change", lambda row: (-row["change_24h_pct"], row["symbol"])),
        ("symbol", lambda row: row["symbol"]),
        ("state", lambda row: (row["status"] == "trading", -row["pending"], row["symbol"])),
    ):
        await viewer.page.click(f"[data-sort={head}]")
        wanted = ordered(many, key)
        await viewer.until("(s, wanted) => s.symbols.length === 3000 && s.symbols.join() === wanted", ",".join(wanted))
        sort = await viewer.page.locator(f"[role=columnheader]:has([data-sort={head}])").get_attribute("aria-sort")
        assert sort == ("ascending" if head == "symbol" else "descending")
        shown = await viewer.page.locator(".row:not([hidden]) .symbol").all_inner_texts()
        assert set(wanted[:20]) <= set(shown)
    await viewer.press("/")
    await viewer.page.keyboard.type("1000pe")
    await viewer.until("s => s.symbols.length === 1")
    await viewer.press("Enter")
    await viewer.until("s => s.choice.panes[0].symbol === '1000PEPEUSDT' && s.panes[0].last")
    await viewer.press("s")
    await viewer.page.click(".watch")
    await viewer.until("s => s.symbols.join() === '1000PEPEUSDT'")
    await viewer.page.reload()
    await viewer.live()
    await viewer.until("s => s.symbols.join() === '1000PEPEUSDT'")
    assert await viewer.page.locator(".row:not([hidden]) .star").first.get_attribute("aria-pressed") == "true"


async def test_keys_and_the_address(few: Mock, view: View) -> None:
    viewer = await view(few.url)
    await viewer.open()
    assert "symbol=BTCUSDT&interval=1m" in viewer.page.url
    for key, interval in zip("1234567", ("1m", "5m", "30m", "1h", "4h", "1d", "1w"), strict=True):
        await viewer.press(key)
        await viewer.until("(s, i) => s.panes[0].interval === i && s.panes[0].last?.interval === i", interval)
        assert f"interval={interval}" in viewer.page.url
    order = (await viewer.snapshot())["symbols"]
    at = order.index("BTCUSDT")
    asked: list[str] = []
    viewer.page.on("request", lambda request: asked.append(request.url))
    await viewer.press("k", "k", "j")
    await viewer.until("(s, w) => s.choice.panes[0].symbol === w && s.panes[0].last?.symbol === w", order[at - 1])
    newest = [url for url in asked if f"symbols={order[at - 1]}&" in url and "open=include" in url]
    assert len(newest) <= 2, "once each time it is passed"
    await viewer.press("c")
    await viewer.until("s => s.panes.length === 2 && s.panes.every(p => p.last) && s.choice.active === 1")
    await viewer.press("x")
    await viewer.until("s => s.choice.active === 0")
    await viewer.press("u", "t", "t")
    assert (await viewer.snapshot())["choice"]["zone"] == "local"
    assert await viewer.page.evaluate("document.documentElement.dataset.theme") == "dark"
    await viewer.shot("two-charts-dark")
    before = (await viewer.snapshot())["choice"]
    await viewer.page.reload()
    await viewer.live()
    assert (await viewer.snapshot())["choice"] == before
    await viewer.press("?")
    dialog = viewer.page.get_by_role("dialog", name="Keys and signs")
    await dialog.wait_for()
    await viewer.press("1", "Escape")
    await dialog.wait_for(state="detached")
    assert (await viewer.snapshot())["panes"][0]["interval"] == "1w"
    # What is typed into the search is no key.
    await viewer.press("/", "1", "j", "Escape")
    assert (await viewer.snapshot())["choice"] == before


async def test_candle_by_candle_by_keyboard_and_local_time(few: Mock, view: View) -> None:
    viewer = await view(few.url)
    await viewer.open("?symbol=ETHUSDT&interval=1h&tz=local")
    await viewer.page.locator(".pane-canvas").focus()
    await viewer.press("ArrowLeft", "ArrowLeft", "ArrowLeft")
    candle = (await viewer.snapshot())["panes"][0]["candles"][-3]
    assert candle["closed"]
    shown = await viewer.page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('.legend .v')].map(e => [e.dataset.field, e.textContent]))"
    )
    for name in ("open", "high", "low", "close", "volume", "origin"):
        assert shown[name] == candle[name]
    hour = candle["open_time_ms"] // 3_600_000 % 24
    assert shown["time"].endswith(f" {(hour + 8) % 24:02d}:00")
    share = 100 * float(candle["taker_buy_volume"]) / float(candle["volume"]) if float(candle["volume"]) else None
    assert shown["taker"] == ("\u2013" if share is None else f"{share:.0f}%")
    if candle["trades"]:
        assert shown["ids"].startswith(str(candle["first_trade_id"]))


async def test_two_languages(few: Mock, view: View) -> None:
    chinese = await view(few.url, locale="zh-CN", theme="dark")
    await chinese.open()
    assert await chinese.text(".word") == "实时"
    assert await chinese.page.evaluate("document.documentElement.lang") == "zh-CN"
    # Every word is in the language: English is left to data, units and names alone.
    spoken = await chinese.page.evaluate(
        "[...document.querySelectorAll('.status .fact, .tile-label, .strip h2, .key-item, .row-head, .legend .k')]"
        ".map(e => e.textContent).join(' ')"
    )
    assert not re.findall(r"[A-Za-z]{3,}", spoken.replace("usdm", ""))
    await chinese.shot("chinese-dark")
    await chinese.page.click(".language")
    assert await chinese.text(".word") == "LIVE"
    await chinese.page.reload()
    await chinese.live()
    assert await chinese.text(".word") == "LIVE"


PHONE_BOXES = """() => ['.status', '.charts', '.list', '.minutes', '.ops', '.events']
  .map(one => document.querySelector(one).getBoundingClientRect().top)"""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, MEDIUM, PHONE], ids=["wide", "medium", "phone"])
async def test_sizes_and_themes(few: Mock, view: View, size: tuple[int, int], theme: str) -> None:
    viewer = await view(few.url, size=size, theme=theme)
    await viewer.open()
    assert await viewer.page.evaluate("document.documentElement.dataset.theme") == theme
    assert await viewer.page.evaluate("document.documentElement.scrollWidth") <= size[0]
    if size is PHONE:
        tops = await viewer.page.evaluate(PHONE_BOXES)
        assert tops == sorted(tops)
    else:
        assert await viewer.page.evaluate("document.documentElement.scrollHeight") <= size[1]
    # What is painted is there: the canvas holds more than its ground.
    colours = await viewer.page.evaluate(COLOURS)
    assert colours >= 4
    await viewer.shot(f"{'x'.join(map(str, size))}-{theme}")


COLOURS = """() => {
  const seen = new Set();
  for (const canvas of document.querySelectorAll('.pane-canvas canvas')) {
    const {width, height} = canvas;
    const {data} = canvas.getContext('2d').getImageData(0, 0, width, height);
    for (let n = 0; n < data.length; n += 4) if (data[n + 3] === 255) seen.add(data[n] << 16 | data[n + 1] << 8 | data[n + 2]);
  }
  return seen.size;
}"""

CONTRAST = """() => {
  const probe = document.createElement('i');
  document.body.append(probe);
  const light = name => {
    probe.style.color = `var(--${name})`;
    const parts = getComputedStyle(probe).color.match(/\\d+/g).slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const told = {};
  for (const ink of ['text', 'faint', 'up', 'down', 'mark', 'pending', 'gap', 'accent'])
    for (const ground of ['ground', 'panel', 'raised', 'chosen']) {
      const [a, b] = [light(ink), light(ground)].sort((x, y) => y - x);
      told[`${ink} on ${ground}`] = (a + 0.05) / (b + 0.05);
    }
  probe.remove();
  return told;
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_everything_can_be_read_and_is_named(few: Mock, view: View, theme: str) -> None:
    viewer = await view(few.url, theme=theme)
    await viewer.open()
    contrast = await viewer.page.evaluate(CONTRAST)
    assert {pair: round(ratio, 2) for pair, ratio in contrast.items() if ratio < 4.5} == {}
    nameless = await viewer.page.evaluate(
        "[...document.querySelectorAll('button, input, select, [tabindex], section')].filter(e => !e.hidden && "
        "!(e.textContent.trim() || e.ariaLabel || e.title) && !e.closest('[hidden]')).map(e => e.outerHTML)"
    )
    assert nameless == []
    # The keyboard reaches the search, the list, the chart, one cell of the minutes, the events.
    reached = set()
    for _ in range(40):
        await viewer.press("Tab")
        reached.add(await viewer.page.evaluate("document.activeElement.className.split(' ')[0]"))
    assert {"search", "watch", "rows", "pane-canvas", "cell", "event-list", "tool"} <= reached


async def test_silence_is_told_at_once_and_ends_by_itself(stage: Stage, view: View) -> None:
    mock = stage(names(8))
    await mock.start()
    viewer = await view(mock.url)
    await viewer.page.clock.install()
    await viewer.open()
    await viewer.until("s => document.title === `BTCUSDT ${s.panes[0].last.close} · klagg`")
    icon = await viewer.page.locator("#favicon").get_attribute("href")
    mock.speaking.clear()
    await viewer.page.clock.run_for(9_000)
    assert await viewer.text(".word") == "STALE"
    assert re.fullmatch(r"no word for \d+ s", await viewer.text(".why"))
    assert (await viewer.page.title()).startswith("⚠ STALE ")
    assert await viewer.page.locator("#favicon").get_attribute("href") != icon
    assert "grayscale" in await viewer.page.evaluate("getComputedStyle(document.querySelector('main')).filter")
    await viewer.shot("stale")
    # A connection that says nothing is given up; the next one is asked for what was missed.
    opened = len(mock.asked)
    await viewer.page.clock.run_for(8_000)
    await viewer.page.wait_for_timeout(50)
    mock.speaking.set()
    await viewer.page.clock.run_for(3_000)
    await viewer.live()
    assert len(mock.asked) > opened
    assert int(mock.asked[-1]["since"]) == mock.seq


async def test_a_market_that_is_behind_or_not_ready(stage: Stage, view: View) -> None:
    mock = stage(names(3))
    status = mock.status

    def behind(asked: dict[str, str]) -> dict[str, Any]:
        told = status(asked)
        told["markets"][0]["boundary_ms"] -= 300_000
        return told

    mock.status = behind  # type: ignore[method-assign]
    await mock.start()
    viewer = await view(mock.url)
    await viewer.page.goto(mock.url)
    await viewer.until("s => s.standing.health === 'trouble'")
    assert await viewer.text(".word") == "BEHIND"
    assert (await viewer.page.title()).startswith("⚠ BEHIND")


async def test_history_that_is_still_loading(stage: Stage, view: View) -> None:
    mock = stage(names(3))
    status, minutes, candles = mock.status, mock.minutes, mock.candles
    loading = True

    def told(asked: dict[str, str]) -> dict[str, Any]:
        full = status(asked)
        full["markets"][0]["history_progress"] = {"done": 37, "total": 80, "left_s": 754.0} if loading else None
        return full

    def few_minutes(asked: dict[str, str]) -> dict[str, Any]:
        rows = minutes(asked)["minutes"]
        for row in rows[:50]:
            row |= {"verified": 0, "pending": 0, "gap": 3}
        return {"minutes": rows}

    def few_candles(asked: dict[str, str]) -> dict[str, Any]:
        full = candles(asked)
        return full | {"candles": [] if "end" in asked else full["candles"][-5:]} if loading else full

    mock.status, mock.minutes, mock.candles = told, few_minutes, few_candles  # type: ignore[method-assign]
    await mock.start()
    viewer = await view(mock.url)
    await viewer.open()
    assert await viewer.text(".history-share") == "history 46%"
    assert await viewer.page.locator(".cell.absent").count() == 50
    assert len((await viewer.snapshot())["panes"][0]["candles"]) <= 6
    loading = False
    await viewer.until("s => s.panes[0].candles.length > 500")
    await viewer.page.locator(".history-share").wait_for(state="hidden")


async def test_two_markets_and_one_that_is_starting(stage: Stage, view: View) -> None:
    mock = stage(names(3))
    mock.markets = ("usdm", "spot")
    candles, refused = mock.candles, 2

    def later(asked: dict[str, str]) -> dict[str, Any]:
        nonlocal refused
        if asked["market"] == "spot" and refused:
            refused -= 1
            raise web.HTTPServiceUnavailable(text='{"error": {"code": "not_ready", "message": "spot: loading"}}')
        return candles(asked)

    mock.candles = later  # type: ignore[method-assign]
    await mock.start()
    viewer = await view(mock.url)
    await viewer.open("?symbol=ETHUSDT&interval=5m")
    viewer.excused = ("503",)
    await viewer.press("s")
    await viewer.page.select_option(".market", "spot")
    await viewer.page.get_by_text("spot: loading").wait_for()
    await viewer.live()
    assert "market=spot&symbol=BTCUSDT&interval=5m" in viewer.page.url
    assert (mock.asked[-1]["market"], "since" in mock.asked[-1]) == ("spot", False)
    # Each market has its own stars.
    assert await viewer.page.locator(".star[aria-pressed=true]").count() == 0
    await viewer.page.select_option(".market", "usdm")
    await viewer.page.locator(".star[aria-pressed=true]").wait_for()


async def test_over_a_database_alone_nothing_is_made_up(stage: Stage, view: View) -> None:
    mock = stage(names(3))
    status, keep = mock.status, {"market", "phase", "symbols", "connections", "durable_ms", "verified_ms"}

    def told(asked: dict[str, str]) -> dict[str, Any]:
        full = status(asked)
        market = {name: value if name in keep else None for name, value in full["markets"][0].items()}
        return full | {
            "markets": [market | {"durable_ms": market["durable_ms"] - 7_200_000}],
            "notes": [],
            "ready": False,
        }

    mock.status = told  # type: ignore[method-assign]
    mock.ops = lambda _: {"step_ms": 1_000, "series": {"offset_ms": [], "feed_age_ms": {}}}  # type: ignore[method-assign]
    await mock.start()
    viewer = await view(mock.url)
    await viewer.page.goto(mock.url)
    await viewer.until("s => s.standing.health === 'trouble' && s.panes[0]?.last")
    assert await viewer.text(".word") == "BEHIND"
    assert re.fullmatch(r"newest minute 2 h( \d min)? old", await viewer.text(".why"))
    assert re.fullmatch(r"\d\d:\d\d durable", await viewer.text(".fact.closed"))
    assert not await viewer.page.locator(".fact.verified-share").is_visible()
    assert "only reads a database" in await viewer.text(".ops")
    assert "Nothing has happened" in await viewer.text(".events")
    await viewer.shot("read-only")


async def test_what_comes_from_data_is_text(stage: Stage, view: View) -> None:
    mock = stage([*TRICKS, "BTCUSDT"])
    mock.notes = [
        {"at_ms": 1_800_000_000_000, "event": "x", "text": "<b onmouseover=alert(1)>bold</b>", "market": None}
    ]
    await mock.start()
    viewer = await view(mock.url)
    await viewer.open()
    assert set(await viewer.page.locator(".row:not([hidden]) .symbol").all_inner_texts()) == {*TRICKS, "BTCUSDT"}
    assert "<b onmouseover=alert(1)>bold</b>" in await viewer.text(".event-list")
    for trick in TRICKS:
        await viewer.page.get_by_text(trick, exact=True).first.click()
        await viewer.until("(s, w) => s.panes[0].last?.symbol === w", trick)
        assert await viewer.text(".pane-symbol") == trick
    assert await viewer.page.locator("#page :is(img, script, b[onmouseover])").count() == 0


async def test_a_revision_shows_and_tells_its_history(few: Mock, view: View) -> None:
    viewer = await view(few.url)
    await viewer.open("?symbol=SOLUSDT&interval=5m")
    candle = (await viewer.snapshot())["panes"][0]["candles"][-6]
    assert candle["closed"]
    later = candle | {"revision": 3, "close": candle["high"], "origin": "exchange", "verified": True}
    few.market.revised["SOLUSDT", "5m", candle["open_time_ms"]] = later
    await few.tell(
        kind="candle_revised",
        symbol="SOLUSDT",
        interval="5m",
        open_time_ms=candle["open_time_ms"],
        revision=3,
        candle=later,
    )
    await viewer.until(
        "(s, t) => s.panes[0].candles.find(c => c.open_time_ms === t).revision === 3", candle["open_time_ms"]
    )
    pane = (await viewer.snapshot())["panes"][0]
    drawn = next(bar for bar in pane["drawn"]["candles"] if bar["time"] * 1_000 == candle["open_time_ms"])
    assert (drawn["close"], drawn["revised"], drawn["look"]) == (float(later["high"]), True, "solid")
    assert "SOLUSDT 5m" in await viewer.text(".event-list")
    spot = dict(pane["spots"])[candle["open_time_ms"]]
    box = await viewer.page.locator(".pane-canvas").bounding_box()
    assert box is not None
    await viewer.page.mouse.click(box["x"] + spot["x"], box["y"] + spot["y"])
    dialog = viewer.page.get_by_role("dialog")
    await dialog.locator("tbody tr").nth(1).wait_for()
    assert await dialog.locator("tbody tr").count() == 2
    assert await dialog.locator("td.changed").count() > 0
    await viewer.shot("history")


async def test_minutes_name_their_symbols(few: Mock, view: View) -> None:
    viewer = await view(few.url)
    await viewer.open()
    assert await viewer.page.locator(".cell").count() == 60
    assert await viewer.page.locator(".cell.gap").count() == 1
    await viewer.page.locator(".cell.pending").last.click()
    dialog = viewer.page.get_by_role("dialog")
    named = await dialog.locator(".symbol-link").all_inner_texts()
    assert named == few.market.symbols[:3]
    await dialog.locator(".symbol-link").nth(2).click()
    await viewer.until("(s, w) => s.choice.panes[0].symbol === w", named[2])
    await dialog.wait_for(state="detached")


async def test_where_the_reader_was_cut_it_loads_again(few: Mock, view: View) -> None:
    viewer = await view(few.url)
    await viewer.open()
    async with viewer.page.expect_response("**/v1/candles?*"):
        await few.tell(kind="cut", from_seq=few.seq, to_seq=few.seq + 50, reason="too old")
    await viewer.page.get_by_text("the feed was cut here").wait_for()
