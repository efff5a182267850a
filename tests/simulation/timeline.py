"""Virtual time: an event loop that never waits, the host's clock on it, and the ways a process ends."""

import asyncio
import contextlib
import itertools
import math
import selectors


class Crash(KeyboardInterrupt):
    """The process is gone at this very callback."""


class Stuck(Exception):
    """Nothing is scheduled any more: everything waits for something that will not come."""


class Timeline:
    """The true time of the world, across the processes that live in it; nanoseconds since the world began."""

    def __init__(self, start_ms: int) -> None:
        self.start_ms = start_ms
        self.now_ns = 0
        self.suspended_ns = 0
        """How much of it the host slept through: the loop's timers stood still, the host's clock did not."""

    @property
    def now_ms(self) -> int:
        """UTC ms."""
        return self.start_ms + self.now_ns // 1_000_000

    @property
    def now_s(self) -> float:
        """Seconds since the world began."""
        return self.now_ns / 1e9


class _Leaping(selectors.SelectSelector):
    """Never waits: it moves the time instead."""

    timeline: Timeline

    def select(self, timeout: float | None = None) -> list:  # type: ignore[override]
        if timeout is None:
            raise Stuck("nothing is scheduled")
        if timeout > 0:
            self.timeline.now_ns += max(1, math.ceil(timeout * 1e9))
        return []


class _Task(asyncio.Task):
    """A task whose place in a set does not depend on where it lies in memory."""

    def __init__(self, number: int, *args: object, **kwargs: object) -> None:
        self._number = number
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is the timeline's."""

    def __init__(self, timeline: Timeline) -> None:
        selector = _Leaping()
        selector.timeline = timeline
        self.timeline = timeline
        super().__init__(selector)
        numbers = itertools.count(1)
        self.set_task_factory(lambda loop, coroutine, **more: _Task(next(numbers), coroutine, loop=loop, **more))

    def time(self) -> float:
        return (self.timeline.now_ns - self.timeline.suspended_ns) / 1e9

    def bury(self) -> None:
        """The process was killed. Its tasks are unwound where nothing they do reaches the world any more."""
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            with contextlib.suppress(BaseException):
                task.get_coro().close()
        self.close()


class HostClock:
    """The host's clock that counts suspended time: the timeline's at its own pace."""

    def __init__(self, timeline: Timeline, drift_ppm: float, boot_ns: int) -> None:
        self._timeline = timeline
        self._rate = 1 + drift_ppm / 1e6
        self._boot_ns = boot_ns

    def monotonic_ns(self) -> int:
        return int(self._timeline.now_ns * self._rate) + self._boot_ns

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(seconds, 0.0))
