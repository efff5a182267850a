"""Progress on stderr: a bar on a terminal, elsewhere a log line now and then."""

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator


class Tell(Protocol):
    """How progress is told: so many done of so many, and a remark."""

    def __call__(self, done: int, total: int, remark: str = "") -> None:
        """Redraw."""


@contextmanager
def progress_bar(what: str) -> "Iterator[Tell | None]":
    """A bar while the block runs; None where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[remark]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None, remark="")

        def tell(done: int, total: int, remark: str = "") -> None:
            bar.update(task, completed=done, total=total, remark=remark)

        yield tell


LINE_EVERY_S: Final = 30.0


class ProgressLines:
    """Log lines of how far it is, at most one in half a minute and none in the first; off above the level `info`.

    A command that ends by itself logs only errors unless it is asked for more: these lines are its progress, and come anyway.
    """

    def __init__(self, level: str) -> None:
        self._is_on = level in {"debug", "info"}
        self._next_s = time.monotonic() + LINE_EVERY_S

    def tell(self, done: int, total: int, per_s: float, weight_per_min: float, left_s: float) -> None:
        """Log a line, if its time has come."""
        if not self._is_on or time.monotonic() < self._next_s:
            return
        import logging

        import structlog

        self._next_s = time.monotonic() + LINE_EVERY_S
        always = structlog.make_filtering_bound_logger(logging.INFO)
        log = structlog.wrap_logger(structlog.PrintLogger(sys.stderr), wrapper_class=always)
        log.info(
            "backfill.progress",
            done=done,
            total=total,
            per_s=round(per_s),
            weight_per_min=round(weight_per_min),
            left_s=round(left_s),
        )
