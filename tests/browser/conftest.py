"""A real Chromium for the page's tests, and what every one of them must not see: errors, and requests to elsewhere."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, ConsoleMessage, Page, Request, async_playwright

SHOTS = Path(__file__).parents[2] / "build" / "browser"
NAMES = ("chromium", "chromium-browser", "google-chrome")
WIDE, MEDIUM, PHONE = (1440, 900), (1024, 768), (390, 844)


def chromium() -> str:
    """Where the browser is; the tests are skipped where there is none, and `make chromium` (as root) installs it."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("there is no chromium: `make chromium` installs it where apt may be used")
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    path = chromium()
    # As root, as in CI, Chromium has no sandbox; it shows only what klagg serves.
    arguments = ["--disable-gpu", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(executable_path=path, args=arguments)
        yield opened
        await opened.close()


class Viewer:
    """One page of one browser window, and what went wrong on it."""

    def __init__(self, page: Page, base: str) -> None:
        self.page = page
        self.base = base
        self.problems: list[str] = []
        self.excused: tuple[str, ...] = ()
        """What a test brings about on purpose: a service that is not there."""
        page.set_default_timeout(20_000)
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.on("request", self._request)
        page.on("dialog", lambda dialog: self.problems.append(f"dialog: {dialog.message}"))

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"console: {message.text}")

    def _request(self, request: Request) -> None:
        if not request.url.startswith((self.base, self.base.replace("http", "ws"))):
            self.problems.append(f"a request to elsewhere: {request.url}")

    async def open(self, query: str = "") -> None:
        """Open the page and wait until it is live and shows candles."""
        await self.page.goto(f"{self.base}/{query}")
        await self.live()

    async def live(self) -> None:
        await self.until("s => s.standing.health === 'live' && s.panes.length && s.panes.every(p => p.last)")

    async def until(self, what: str, argument: object = None) -> None:
        """Wait until something holds of what the page holds: a function of its snapshot."""
        await self.page.wait_for_function(
            f"argument => window.klagg && ({what})(klagg.snapshot(), argument)", arg=argument, polling=100
        )

    async def snapshot(self) -> dict[str, Any]:
        return await self.page.evaluate("klagg.snapshot()")

    async def text(self, selector: str) -> str:
        return (await self.page.locator(selector).first.inner_text()).strip()

    async def press(self, *keys: str) -> None:
        for key in keys:
            await self.page.keyboard.press(key)

    async def shot(self, name: str) -> None:
        SHOTS.mkdir(parents=True, exist_ok=True)
        await self.page.screenshot(path=SHOTS / f"{name}.png")

    def assert_clean(self) -> None:
        left = [one for one in self.problems if not any(word in one for word in self.excused)]
        assert left == []


View = Callable[..., Awaitable[Viewer]]


@pytest_asyncio.fixture(loop_scope="module")
async def view(browser: Browser) -> AsyncIterator[View]:
    """Opens windows: `await view(url, size=PHONE, theme="dark", locale="zh-CN")`. All of them must stay clean."""
    opened: list[Viewer] = []

    async def make(base: str, *, size: tuple[int, int] = WIDE, theme: str = "light", locale: str = "en-US") -> Viewer:
        width, height = size
        context = await browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=theme,  # type: ignore[arg-type]
            locale=locale,
            timezone_id="Asia/Shanghai",
            has_touch=size is PHONE,
        )
        viewer = Viewer(await context.new_page(), base)
        opened.append(viewer)
        return viewer

    yield make
    await asyncio.gather(*(viewer.page.context.close() for viewer in opened))
    for viewer in opened:
        viewer.assert_clean()
