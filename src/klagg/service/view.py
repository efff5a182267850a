"""The live view of `klagg run` on a terminal: what is happening, redrawn twice a second."""

import asyncio
import time
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from klagg.service.market import MarketService

if TYPE_CHECKING:
    from types import TracebackType

    from klagg.service.run import Service

REDRAW_S: Final = 0.5
NOTES_SHOWN: Final = 5
FACTS_IN_A_ROW: Final = 3
NOTE_CHARACTERS: Final = 160
"""A note of the live view has two lines at 80 columns; the log has it whole."""
RATE_SPAN: Final = 20
"""Redraws over which trades a second are averaged."""


def clock_text(t_ms: int) -> str:
    """`12:03:05` of an instant, UTC."""
    return datetime.fromtimestamp(t_ms / 1000, UTC).strftime("%H:%M:%S")


class LiveView:
    """Redraws the state of a service until it is left."""

    def __init__(self) -> None:
        self._service: Service | None = None
        # What a command prints on stdout stays there: the view redirects only what is written to stderr, the log.
        self._live = Live(console=Console(stderr=True), refresh_per_second=4, transient=False, redirect_stdout=False)
        self._task: asyncio.Task[None] | None = None
        self._applied: dict[str, deque[tuple[int, int]]] = {}

    async def __aenter__(self) -> Self:
        self._live.start()
        self._task = asyncio.get_running_loop().create_task(self._redraw())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._live.update(self.draw())
        self._live.stop()

    def watch(self, service: "Service") -> None:
        """Show this service."""
        self._service = service

    async def _redraw(self) -> None:
        while True:
            self._live.update(self.draw())
            await asyncio.sleep(REDRAW_S)

    def draw(self) -> RenderableType:
        """What is shown now."""
        if self._service is None:
            return Text("klagg: opening the database")
        parts: list[RenderableType] = []
        if self._service.serving is not None:
            parts.append(Text(f"klagg serves {self._service.serving.url}"))
        for market in self._service.markets:
            parts.append(self._table(market))
            if market.history_progress is not None:
                parts.append(history_line(market))
            parts += [
                Text(f"  {clock_text(at_ms)} {event}: {text}"[:NOTE_CHARACTERS], style="yellow")
                for at_ms, event, text in list(market.recent.notes)[-NOTES_SHOWN:]
            ]
        return Group(*parts)

    def _table(self, market: MarketService) -> Table:
        """The facts as names and values, three to a row: it fits into 80 columns."""
        facts = facts_of(market, self._rate(market))
        table = Table.grid(padding=(0, 2), expand=False)
        table.title, table.title_justify = f"klagg {market.market.value} - {market.phase}", "left"
        for _ in range(FACTS_IN_A_ROW):
            table.add_column(style="dim", no_wrap=True)
            table.add_column(justify="right", no_wrap=True)
        cells = [text for fact in facts.items() for text in fact]
        for row in range(0, len(cells), 2 * FACTS_IN_A_ROW):
            table.add_row(*cells[row : row + 2 * FACTS_IN_A_ROW])
        return table

    def _rate(self, market: MarketService) -> float:
        seen = self._applied.setdefault(market.market.value, deque(maxlen=RATE_SPAN))
        if not market.workers:
            return 0.0
        total = sum(worker.core.engine.tally.applied + worker.core.engine.tally.late for worker in market.workers)
        seen.append((market.now_ms, total))
        passed_ms = seen[-1][0] - seen[0][0]
        return (seen[-1][1] - seen[0][1]) * 1e3 / passed_ms if passed_ms > 0 else 0.0


def history_line(market: MarketService) -> Text:
    """The progress of the history's backfill."""
    assert market.history_progress is not None
    done, total, eta_s = market.history_progress
    share = done / max(total, 1)
    bar = "█" * round(24 * share) + "░" * (24 - round(24 * share))
    return Text(f"  history {bar} {share:4.0%}, ready in about {eta_s / 60:.1f} min")


def facts_of(market: MarketService, trades_per_s: float) -> dict[str, str]:
    """What the live view shows of a market, by name."""
    if not market.workers:
        return {}
    workers = market.workers
    clock = market.exchange_clock
    host_ms = -clock.offset_ms(time.time_ns() / 1e6)
    failing = any(worker.failing_since_ms is not None for worker in workers)
    return {
        "clock offset": f"{host_ms:+.0f} ±{clock.uncertainty_ms:.0f} ms",
        "minute": clock_text(market.boundary_ms),
        "symbols": str(market.symbols),
        "trades/s": f"{trades_per_s:.0f}",
        "closed": str(market.closed_minutes),
        "tick lag": f"{max(worker.tick_lag_ms for worker in workers)} ms",
        "verified": str(sum(worker.comparison.verified for worker in workers)),
        "unverified": str(market.unverified),
        "write lag": "failing" if failing else f"{max(worker.write_lag_ms for worker in workers)} ms",
        "differences": str(sum(worker.comparison.differences for worker in workers)),
        "waiting": str(sum(worker.core.outbox.candles for worker in workers)),
        "weight": f"{market.budget.used(market.now_ms)}/{market.budget.limit}",
    }
