"""One reader of the log for all who listen, and for each who is behind pages of its own until it has caught up."""

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec
import structlog

from klagg import __version__
from klagg.clock import Clock
from klagg.errors import StoreError
from klagg.model import Market
from klagg.serve.feed.filter import Filter
from klagg.serve.feed.page import Form, Page
from klagg.serve.feed.source import Log
from klagg.serve.source import Live

log = structlog.get_logger()

PAGE: Final = 2_000
"""Events read at a time: 0.3 MB, with their candles 1.4 MB."""
LOOK_S: Final = 0.25
"""How often the log is looked at where no commit says so (repair, another process): one index look-up."""
BEAT_S: Final = 5.0
MAX_WAITING: Final = 2 * 2**20
"""Bytes that wait for a reader who is up to date; past it it is cut, and told where."""
LOW_WAITING: Final = 128 * 1024
"""A reader who is behind gets its next page when no more than this waits."""
PATIENCE_S: Final = 30.0
"""How long a page may wait for a reader who is behind before that is cut."""
REMEMBERED: Final = 40
"""Newest pages kept for readers who come back: minutes of a whole market. Older ones are read again."""
RETRY_S: Final = 1.0
AT_ONCE: Final = 100
"""Readers that are written to between two turns of the loop: some 2 ms where each has a filter of its own."""


class Sink(Protocol):
    """Where a reader's bytes go."""

    @property
    def form(self) -> Form:
        """How payloads go over its wire."""
        ...

    @property
    def waiting(self) -> int:
        """Bytes that were written and are not taken yet."""
        ...

    def write(self, data: bytes) -> None:
        """Write."""
        ...

    async def drained(self) -> None:
        """Return when there is little left that waits."""
        ...

    def end(self, *, slow: bool) -> None:
        """Send what is left and close."""
        ...


@dataclass(slots=True, eq=False)
class Running:
    """Which running candles a reader wants; `is_new` until it has got them all once."""

    wanted: Filter
    is_new: bool = True


class Reader:
    """One who reads the feed. `position`: every wanted event up to it has been written."""

    def __init__(self, wanted: Filter, sink: Sink, *, full: bool) -> None:
        self.wanted = wanted
        self.sink = sink
        self.full = full
        self.running: Running | None = None
        """Which running candles it wants to be pushed, if any."""
        self.position = 0
        self.is_live = False

    def say(self, message: dict[str, Any], seq: int = 0) -> None:
        """Write a message that is no event."""
        self.sink.write(self.sink.form(seq, msgspec.json.encode(message)))


class Feed:
    """The feed of one address; `run` it before anybody may `join`."""

    def __init__(self, source: Log, live: Live, clock: Clock) -> None:
        self._source = source
        self._live = live
        self._clock = clock
        self._readers: set[Reader] = set()
        self._remembered: deque[Page] = deque(maxlen=REMEMBERED)
        self._news = asyncio.Event()
        self._history = asyncio.Semaphore(1)
        self._tasks: asyncio.TaskGroup | None = None
        self.position = 0
        """The number up to which everything has been handed out."""
        self.oldest_seq = 1
        self.looks_begun = self.looks_done = 0
        """Looks at the log, and the last one after which all that was there then had been handed out."""
        self.cut = 0
        """Readers that were cut because they read too slowly."""

    async def prepare(self) -> None:
        """Learn where the log is: what comes after it is news."""
        while True:
            try:
                newest = await self._source.newest_seq()
                self.oldest_seq = (await self._source.page(newest, 1, None, full=False)).oldest_seq
            except StoreError as error:
                log.warning("serve.feed_failed", reason=str(error))
                await asyncio.sleep(RETRY_S)
            else:
                self.position = newest
                return

    async def run(self) -> None:
        """Read and hand out until cancelled; it has been prepared."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            tasks.create_task(self._follow_commits())
            tasks.create_task(self._beat())
            await self._read()

    # Readers

    def join(self, reader: Reader, since: int | None) -> None:
        """Let a reader in: it is told where the log is, then gets everything after `since` (None: from now on)."""
        assert self._tasks is not None, "the feed does not run"
        self._readers.add(reader)
        reader.position = self.position if since is None else since
        reader.say({"kind": "hello", "seq": self.position, "oldest_seq": self.oldest_seq, "version": __version__})
        if reader.position == self.position:
            reader.is_live = True
        else:
            self._tasks.create_task(self._catch_up(reader))

    def leave(self, reader: Reader) -> None:
        """It has gone."""
        self._readers.discard(reader)

    @property
    def readers(self) -> Iterable[Reader]:
        """All who read now."""
        return tuple(self._readers)

    # What is new

    async def _follow_commits(self) -> None:
        async for _ in self._live.commits():
            self._news.set()

    async def _read(self) -> None:
        failing = False
        while True:
            try:
                await self._read_on()
                failing = False
            except Exception as error:  # noqa: BLE001 - the log cannot be read now, or not this row: it is tried again
                if not failing:
                    log.warning("serve.feed_failed", reason=f"{type(error).__name__}: {error}")
                failing = True
                await asyncio.sleep(RETRY_S)
            self._news.clear()
            waiting = asyncio.ensure_future(self._news.wait())
            try:
                await asyncio.wait({waiting}, timeout=LOOK_S)
            finally:
                waiting.cancel()

    async def _read_on(self) -> None:
        """Hand out all there is after the position."""
        begun = self.looks_begun = self.looks_begun + 1
        while True:
            full = any(reader.full for reader in self._readers)
            page = await self._source.page(self.position, PAGE, None, full=full)
            self.oldest_seq = page.oldest_seq
            if page.upto_seq > self.position:
                self._remembered.append(page)
                await self._hand_out(page)
            if page.upto_seq >= page.newest_seq:
                self.looks_done = begun
                return

    async def _hand_out(self, page: Page) -> None:
        """Write a page to all who are up to date; equal filters get the very same bytes."""
        self.position = page.upto_seq
        made: dict[tuple[Filter, Form, bool], bytes] = {}
        for number, reader in enumerate(tuple(self._readers), 1):
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
            # One who came or caught up meanwhile has read this page by itself.
            if reader.is_live and reader in self._readers and reader.position < page.upto_seq:
                self._hand(reader, page, made)

    def _hand(self, reader: Reader, page: Page, made: dict[tuple[Filter, Form, bool], bytes]) -> None:
        """Write a page to one who is up to date."""
        if reader.position < page.after_seq or (reader.full and not page.full):
            # It came while the page was read, or missed the last one by a mistake of ours: it reads by itself.
            reader.is_live = False
            assert self._tasks is not None
            self._tasks.create_task(self._catch_up(reader))
            return
        key = reader.wanted, reader.sink.form, reader.full
        data = made.get(key)
        if data is None:
            data = made[key] = _bytes(page, *key)
        if data and reader.sink.waiting > MAX_WAITING:
            self._cut(reader)
            return
        if data:
            reader.sink.write(data)
        reader.position = page.upto_seq

    def _cut(self, reader: Reader) -> None:
        """End a reader that does not read, and tell it from where to go on."""
        self.cut += 1
        self.leave(reader)
        reader.is_live = False
        cut = {"kind": "cut", "from_seq": reader.position, "to_seq": max(self.position, reader.position)}
        reader.say(cut | {"reason": "too slow"})
        reader.sink.end(slow=True)

    # Those who are behind

    async def _catch_up(self, reader: Reader) -> None:
        """Write page after page, as fast as they are taken, until the reader is where everybody is."""
        failures = 0
        while reader in self._readers:
            if reader.position == self.position:
                reader.is_live = True
                return
            try:
                page = self._known(reader) or await self._history_page(reader)
            except Exception as error:  # noqa: BLE001 - one reader's trouble is not that of all
                failures += 1
                if failures == 1:
                    log.warning("serve.feed_failed", reason=f"{type(error).__name__}: {error}")
                await asyncio.sleep(RETRY_S)
                continue
            if reader not in self._readers:
                return
            if not self._write(reader, page):
                # Committed, but not yet handed out to the others: it comes with what they get.
                await asyncio.sleep(LOOK_S)
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await reader.sink.drained()
            except TimeoutError:
                if reader in self._readers:
                    self._cut(reader)
                return

    async def _history_page(self, reader: Reader) -> Page:
        """A page of the past, one at a time for all readers together, and with as long a pause as it took to make."""
        async with self._history:
            begun_s = time.monotonic()
            page = await self._source.page(reader.position, PAGE, reader.wanted.market, full=reader.full)
            await asyncio.sleep(time.monotonic() - begun_s)
            return page

    def _known(self, reader: Reader) -> Page | None:
        """A remembered page that holds what comes next."""
        for page in self._remembered:
            if page.after_seq <= reader.position < page.upto_seq and (page.full or not reader.full):
                return page
        return None

    def _write(self, reader: Reader, page: Page) -> bool:
        """Write what a reader has not got of a page; false where there was nothing new."""
        if reader.position > page.newest_seq:
            self._skip(reader, page.newest_seq, "ahead")
            return True
        if reader.position + 1 < page.oldest_seq:
            self._skip(reader, page.oldest_seq - 1, "too old")
        upto = min(page.upto_seq, self.position)
        if upto <= reader.position:
            return False
        data = _bytes(page, reader.wanted, reader.sink.form, reader.full, after=reader.position, upto=upto)
        if data:
            reader.sink.write(data)
        reader.position = upto
        return True

    def _skip(self, reader: Reader, to_seq: int, reason: str) -> None:
        """Tell a reader that what it asked for is not there, and go on where there is something."""
        reader.say({"kind": "cut", "from_seq": reader.position, "to_seq": to_seq, "reason": reason})
        reader.position = to_seq

    # Beats

    async def _beat(self) -> None:
        while True:
            await self._clock.sleep(BEAT_S)
            now_ms = self._live.now_ms(next(iter(self._live.markets), Market.USDM))
            for reader in tuple(self._readers):
                if reader.sink.waiting <= MAX_WAITING:
                    reader.say({"kind": "beat", "now_ms": now_ms, "seq": reader.position}, reader.position)


def _bytes(page: Page, wanted: Filter, form: Form, full: bool, *, after: int = 0, upto: int | None = None) -> bytes:
    """The wanted events of a page, of those after a number up to another."""
    encoded, entries = page.encoded(form, full=full), page.entries
    places = wanted.chosen(page)
    if after > page.after_seq or (upto is not None and upto < page.upto_seq):
        last = page.upto_seq if upto is None else upto
        places = [place for place in places if after < entries[place].seq <= last]
    return b"".join([encoded[place] for place in places])
