"""The core of a shard: claim, seed, apply, close and fence around the pure engine. It does no I/O and knows no clock."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from klagg.engine.engine import Engine
from klagg.errors import MalformedRow
from klagg.interval import MINUTE, MINUTE_MS, Interval
from klagg.model import Candles, Gap, Instrument, Ints, Market, Origin, Source, Trades
from klagg.plausible import numbers
from klagg.service.outbox import DEFAULT_BOUND_BYTES, Outbox
from klagg.store import Claim, Commit, Quarantined
from klagg.store.quarantine import IMPOSSIBLE

QUARANTINE_BOUND: Final = 1_000
"""Pushes put aside that wait for a commit to be on record; more are only counted and logged."""


@dataclass(frozen=True, slots=True, eq=False)
class Seed:
    """What an instrument begins with: its open candles as stored (may be empty), or a price at a boundary."""

    boundary_ms: int
    price: int
    price_scale: int
    candles: Candles
    last_trade: np.ndarray[tuple[int], np.dtype[np.void]] | None
    known: bool
    """Whether the series goes on from the store (its first minute is then filled, not seeded)."""


class ShardCore:
    """The candles of the symbols that fall into a set of virtual shards.

    What it produces waits in the outbox until a commit of its claim's epoch has made it durable.
    """

    def __init__(
        self,
        market: Market,
        shards: Iterable[int],
        claim: Claim,
        intervals: tuple[Interval, ...],
        *,
        bound_bytes: int = DEFAULT_BOUND_BYTES,
    ) -> None:
        self.market = market
        self.shards = tuple(sorted(shards))
        self.engine = Engine(intervals)
        self.outbox = Outbox(bound_bytes)
        self.slots: dict[str, int] = {}
        self.gaps_given_up = 0
        self._claim = claim
        self._ids = np.zeros(0, np.int64)
        self._slot_of_id: dict[int, int] = {}
        self._begun_ms: dict[int, int] = {}
        self._symbols: dict[int, str] = {}
        self._names: dict[int, str] = {}
        """Symbols by identifier, of those too that have left: what waits of them may still be given up."""
        self._gaps: list[Gap] = []
        self._quarantined: list[Quarantined] = []
        self._unsaved = False

    # Instruments

    def seed(self, instrument: Instrument, instrument_id: int, seed: Seed) -> int:
        """Take an instrument in, from what the store holds or at a price; returns its slot."""
        price_scale = max(instrument.price_scale, seed.price_scale)
        slot = self.engine.add(
            price_scale,
            instrument.qty_scale,
            seed.boundary_ms,
            seed.price * 10 ** (price_scale - seed.price_scale),
            Origin.FILLED if seed.known else Origin.SEED,
        )
        if seed.known:
            self.engine.restore(slot, seed.candles, seed.last_trade)
        if slot >= len(self._ids):
            self._ids = np.concatenate([self._ids, np.zeros(max(64, len(self._ids)), np.int64)])
        self._ids[slot] = instrument_id
        self._slot_of_id[instrument_id] = slot
        self._begun_ms[instrument_id] = seed.boundary_ms
        self._symbols[slot] = self._names[instrument_id] = instrument.symbol
        self.slots[instrument.symbol] = slot
        return slot

    def retire(self, symbol: str) -> None:
        """Stop making candles of a symbol."""
        slot = self.slots.pop(symbol)
        self.engine.retire(slot)
        del self._slot_of_id[int(self._ids[slot])]

    def slot_of(self, instrument_id: int) -> int | None:
        """The slot of a live instrument here."""
        return self._slot_of_id.get(instrument_id)

    def held_from(self, instrument_id: int) -> int:
        """Where the engine's memory of an instrument begins; 0 for one that is not here."""
        return self._begun_ms.get(instrument_id, 0)

    def instrument_id(self, slot: int) -> int:
        """The identifier of a slot's instrument."""
        return int(self._ids[slot])

    def symbol(self, slot: int) -> str:
        """The symbol of a slot."""
        return self._symbols[slot]

    # Time and trades

    def apply(self, trades: Trades, now_ms: int) -> None:
        """Apply a batch of trades (`slot` set)."""
        if len(trades):
            self.engine.apply(trades, now_ms)

    def tick(self, boundary_ms: int) -> bool:
        """Close what ends at or before the boundary; returns whether all is done (else call again, after live trades)."""
        done = self.engine.advance(boundary_ms)
        self.snapshot()
        return done

    def snapshot(self) -> None:
        """Put what has closed and every open candle, folded to exactly the last boundary, into the outbox."""
        self.gather()
        snapshots = self.engine.snapshots()
        self.outbox.add(self._ids[snapshots["slot"]], snapshots)
        self._unsaved = True

    def gather(self) -> None:
        """Move the closed candles that are new or changed into the outbox."""
        candles = self.engine.collect()
        if len(candles):
            self.outbox.add(self._ids[candles["slot"]], candles)
            self._unsaved = True

    # The exchange's candles

    def compare(self, klines: Candles) -> Ints:
        """Compare minutes with the exchange's; returns the verdicts of `engine.matching`."""
        return self.engine.compare(klines)

    def replace(self, klines: Candles) -> Ints:
        """Take the exchange's minutes in place of ours; returns the verdicts."""
        return self.engine.replace(klines)

    def take_repaired(
        self, instrument_ids: Ints, candles: Candles, bases: Candles, base_ids: Ints, upto_ms: int
    ) -> int:
        """Take what the repairer wrote to the store: minutes still in memory, and open candles folded anew.

        Returns how many of the open candles could not be taken (they are then repaired after they have closed).
        """
        kept = candles[candles["interval"] == MINUTE.code].copy()
        ids = instrument_ids[candles["interval"] == MINUTE.code]
        known = self._with_slots(ids, kept)
        if len(known):
            self.engine.replace(known)
        parents = self._with_slots(base_ids, bases.copy())
        if len(parents) == 0:
            return 0
        return int((~self.engine.rebase(parents, upto_ms)).sum())

    def _with_slots(self, instrument_ids: Ints, candles: Candles) -> Candles:
        slots = [self._slot_of_id.get(int(instrument_id), -1) for instrument_id in instrument_ids]
        chosen = np.array([slot >= 0 for slot in slots], np.bool_)
        candles["slot"] = [max(slot, 0) for slot in slots]
        return candles[chosen]

    # Durability

    @property
    def unsaved(self) -> bool:
        """Whether something waits for a commit."""
        return self._unsaved

    def begin_commit(self, now_ms: int) -> Commit:
        """Everything that waits, with the progress it stands for."""
        self._unsaved = False
        batch = self.outbox.take()
        last = self.engine.last_trades()
        return Commit(
            claim=self._claim,
            shards=self.shards,
            closed_upto_ms=self.engine.boundary_ms,
            instrument_ids=batch.instrument_ids,
            candles=batch.candles,
            last_trade_instrument_ids=self._ids[last["slot"]],
            last_trades=last,
            gaps=tuple(self._gaps),
            quarantined=tuple(self._quarantined),
            now_ms=now_ms,
        )

    def commit_done(self, gaps: int, quarantined: int = 0) -> None:
        """The commit is durable, the first `gaps` records of it and so many things put aside included."""
        self.outbox.committed()
        del self._gaps[:gaps]
        del self._quarantined[:quarantined]

    def put_aside(self, klines: Candles, found: Sequence[tuple[int, str]]) -> None:
        """Have pushes of the exchange that cannot be put on record with the next commit: (position, reason) each."""
        for at, reason in found[: QUARANTINE_BOUND - len(self._quarantined)]:
            row = klines[at]
            symbol, source = self._symbols[int(row["slot"])], Source(int(row["source"])).label
            why = f"{IMPOSSIBLE}: {reason}"
            entry = Quarantined(self.market, symbol, source, why, MINUTE.name, int(row["open_ms"]), numbers(klines, at))
            self._quarantined.append(entry)
        self._unsaved = True

    def commit_failed(self) -> list[Gap]:
        """The commit did not happen: its candles wait again. Returns the minutes given up for lack of memory."""
        self._unsaved = True
        self.outbox.failed()
        given_up = [
            Gap(self.market, self._names[instrument_id], start_ms, end_ms, "memory bound")
            for instrument_id, start_ms, end_ms in self.outbox.shed()
        ]
        self._gaps += given_up
        self.gaps_given_up += len(given_up)
        return given_up


def seeds_of(
    instrument_ids: Ints,
    candles: Candles,
    last_trade_ids: Ints,
    last_trades: np.ndarray[tuple[int], np.dtype[np.void]],
    names: Mapping[int, str],
) -> dict[int, Seed]:
    """The seeds that the stored open candles make, by instrument.

    Raises:
        MalformedRow: a series' open candle contradicts its own minute.
    """
    last = {int(instrument_id): last_trades[index] for index, instrument_id in enumerate(last_trade_ids)}
    seeds: dict[int, Seed] = {}
    starts = np.flatnonzero(np.diff(instrument_ids, prepend=-1))
    ends = [*starts[1:], len(instrument_ids)]
    for start, end in zip(starts, ends, strict=False):
        instrument_id = int(instrument_ids[start])
        of = candles[start:end]
        minute = of[of["interval"] == MINUTE.code]
        if len(minute) == 0 or instrument_id not in names:
            continue
        boundary_ms = int(minute[0]["open_ms"])
        ahead = of[of["open_ms"] > boundary_ms]
        if len(ahead):
            raise MalformedRow(
                f"{names[instrument_id]}: open_ms {int(ahead[0]['open_ms'])} of an open candle is after the open minute "
                f"{boundary_ms}: restore a backup, or delete this symbol's rows of open_candle to fetch it anew"
            )
        seeds[instrument_id] = Seed(
            boundary_ms, int(minute[0]["close"]), int(minute[0]["price_scale"]), of, last.get(instrument_id), known=True
        )
    return seeds


def seeds_of_closed(instrument_ids: Ints, candles: Candles) -> dict[int, Seed]:
    """The seeds that the newest closed minutes make, for a database without open candles (one that was only backfilled)."""
    minutes = candles["interval"] == MINUTE.code
    return {
        int(instrument_id): Seed(
            int(row["open_ms"]) + MINUTE_MS, int(row["close"]), int(row["price_scale"]), candles[:0], None, known=True
        )
        for instrument_id, row in zip(instrument_ids[minutes], candles[minutes], strict=True)
    }
