"""Deliberate defects of the service, each with seeds whose worlds show it: proof that the simulation can fail.

They change the running code, not its files; several are faults that klagg once had.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np

from klagg import clock
from klagg.engine.engine import Engine
from klagg.exchange import klines
from klagg.exchange.budget import WeightBudget
from klagg.repair import plan, planner, queue, settling
from klagg.service import market, outbox
from klagg.service.listings import Listings
from klagg.store import events, guard, rows
from klagg.store.database import Database


@dataclass(frozen=True)
class Mutation:
    """What is wrong, seeds of which one must show it, and how it is put in: (object, attribute, its replacement) each."""

    name: str
    seeds: tuple[int, ...]
    patches: tuple[tuple[Any, str, Callable[..., Any]], ...]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within it the defect is there. A replacement is made from what it replaces."""
        with ExitStack() as stack:
            for target, name, make in self.patches:
                stack.enter_context(mock.patch.object(target, name, make(getattr(target, name))))
            yield


def _always(value: Any) -> Callable[..., Any]:
    """A replacement that is this value, whatever it replaces."""
    return lambda _before: value


def _shed_by_open(_before: object) -> Any:
    """What the outbox once did: the oldest by their open, and a record only of the minutes among them."""

    def shed(self: outbox.Outbox) -> list[tuple[int, int, int]]:
        if self.nbytes <= self._bound_bytes:
            return []
        batch = outbox.coalesce(self._pending)
        closed = batch.candles["flags"] & 1 != 0
        given_up = np.zeros(len(closed), np.bool_)
        for open_ms in np.unique(batch.candles["open_ms"][closed]):
            if given_up.sum() * outbox.ROW_BYTES >= self.nbytes - self._bound_bytes:
                break
            given_up |= closed & (batch.candles["open_ms"] == open_ms)
        lost, ids = batch.candles[given_up], batch.instrument_ids[given_up]
        self._pending = [outbox.Batch(batch.instrument_ids[~given_up], batch.candles[~given_up])]
        minutes = lost["interval"] == 0
        return [
            (int(one), int(of["open_ms"].min()), int(of["open_ms"].max()) + 60_000)
            for one in np.unique(ids[minutes])
            if len(of := lost[minutes & (ids == one)])
        ]

    return shed


def _without_a_price(before: Any) -> Any:
    def last_trades(self: Engine) -> Any:
        last = before(self)
        last["price"][: len(last) // 2] = 0
        return last

    return last_trades


@contextmanager
def _no_transaction(self: Any) -> Iterator[None]:
    yield


def _unfenced_rank(before: str) -> Any:
    assert "THEN 1 ELSE klagg_refused" in before
    head, _, tail = before.partition("WHERE CASE WHEN CASE")
    return head + "WHERE CASE WHEN 1 OR CASE" + tail


def _same_revision(before: Any) -> Any:
    def replaced(self: guard.Recorder, row: int, origin: int, verified: int, revision: int, *rest: int) -> int:
        before(self, row, origin, verified, revision, *rest)
        return revision

    return replaced


def _only_urgent(before: Any) -> Any:
    async def ready(self: queue.Queue, *args: Any, **more: Any) -> Any:
        return await before(self, *args, **more) if self._urgent else {}

    return ready


def _half(before: Any) -> Any:
    def take(self: outbox.Outbox) -> outbox.Batch:
        batch = before(self)
        kept = np.arange(len(batch.candles)) % 17 != 16
        self._in_flight = outbox.Batch(batch.instrument_ids[kept], batch.candles[kept])
        return self._in_flight

    return take


def _no_list(*_: object) -> Any:
    return []


def _nobody(*_: object) -> Any:
    return {}


ALL = (
    Mutation(
        "ticks come before their time",
        (0,),
        (
            (clock.ExchangeClock, "earliest_ms", lambda before: lambda self: before(self) + 600),
            (clock.ExchangeClock, "now_ms", lambda before: lambda self: before(self) + 600),
        ),
    ),
    Mutation(
        "the uncertainty of the clock is forgotten",
        (147,),
        ((clock.ExchangeClock, "earliest_ms", _always(clock.ExchangeClock.now_ms)),),
    ),
    Mutation("a failed write is taken for done", (2,), ((outbox.Outbox, "failed", _always(outbox.Outbox.committed)),)),
    Mutation("what is given up goes by its open, not by its end", (255,), ((outbox.Outbox, "shed", _shed_by_open),)),
    Mutation(
        "what is given up is not asked for", (1712,), ((market.MarketService, "_given_up", _always(lambda *_: None)),)
    ),
    Mutation(
        "everything stored is called verified",
        (1,),
        ((rows, "is_verified", _always(lambda candles: np.ones(len(candles), np.bool_))),),
    ),
    Mutation(
        "a row that may still change is taken for final",
        (5,),
        tuple((module, "SETTLE_MS", _always(0)) for module in (klines, plan, queue, planner)),
    ),
    Mutation("what the exchange lacks for a while is final", (462,), ((settling, "UNMATCHED_AGE_MS", _always(0)),)),
    Mutation("a last trade without a price", (5,), ((Engine, "last_trades", _without_a_price),)),
    Mutation(
        "who left while nobody looked is forgotten", (100,), ((market.MarketService, "_left", _always(_no_list)),)
    ),
    Mutation("a symbol that joined late has no past", (3550,), ((market, "joined_late", _always(_nobody)),)),
    Mutation(
        "a start knows nothing of what was stored",
        (70,),
        ((market, "seeds_of", _always(_nobody)), (market, "seeds_of_closed", _always(_nobody))),
    ),
    Mutation("a lower rank replaces a higher one", (9,), ((guard, "UPSERT", _unfenced_rank),)),
    Mutation("transactions are not", (86,), ((Database, "transaction", _always(_no_transaction)),)),
    Mutation("changes are not published", (0,), ((events, "append_candles", _always(lambda *_, **__: None)),)),
    Mutation("a revision is not counted", (1,), ((guard.Recorder, "_replaced", _same_revision),)),
    Mutation("bans are ignored", (7, 28, 41), ((WeightBudget, "banned_s", _always(property(lambda _self: 0.0))),)),
    Mutation("candles on evidence are never compared", (2,), ((queue.Queue, "ready", _only_urgent),)),
    Mutation("a symbol that has left goes on", (103,), ((Listings, "_leave", _always(lambda *_: None)),)),
    Mutation("some candles of a commit are left out", (70, 9, 65), ((outbox.Outbox, "take", _half),)),
)
BY_NAME = {mutation.name: mutation for mutation in ALL}
