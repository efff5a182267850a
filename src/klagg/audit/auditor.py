"""The auditor: asks the exchange for pieces, has them judged, mends what it may, and keeps the count."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

import numpy as np

from klagg.audit.judging import Flaw, Verdict, judge, mend, missing
from klagg.audit.planning import Piece
from klagg.audit.report import Finding, Report
from klagg.errors import RequestRejected
from klagg.exchange.budget import Purpose
from klagg.exchange.klines import SETTLE_MS, weight_of
from klagg.exchange.rest import RestClient, count_opens
from klagg.interval import Interval
from klagg.model import Candles, Flag, Instrument, Ints, Market, no_candles
from klagg.refold import HeldFrom, Refolded, nothing_runs
from klagg.store import Life, StoredInstrument
from klagg.store.thread import StoreThread

AT_ONCE: Final = 4
"""Pieces under way at a time."""

OnRepaired = Callable[[Ints, Candles, Ints, Candles, int], Awaitable[None]]
"""Told (instrument ids, the exchange's candles now stored, instrument ids of bases, bases, upto_ms): see `Refolded`."""
OnFinding = Callable[[Finding], None]


class Auditor:
    """Compares pieces of one market with the exchange and adds to a report. Takes no claim, moves no `closed_upto`."""

    def __init__(
        self,
        market: Market,
        rest: RestClient,
        store: StoreThread,
        report: Report,
        *,
        now_ms: Callable[[], int],
        intervals: Sequence[Interval],
        repair: bool,
        on_repaired: OnRepaired | None = None,
        on_finding: OnFinding | None = None,
        held_from: HeldFrom = nothing_runs,
    ) -> None:
        self.report = report
        self._market = market
        self._rest = rest
        self._store = store
        self._now_ms = now_ms
        self._intervals = tuple(intervals)
        self._repair = repair
        self._on_repaired = on_repaired
        self._held_from = held_from
        self._on_finding = on_finding
        self._refused: set[int] = set()

    async def run(
        self,
        pieces: Iterable[Piece],
        instruments: dict[int, StoredInstrument],
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Compare pieces, a few at a time; `progress` is told the weight that is done.

        Raises:
            ExchangeError: the exchange cannot be reached, or refuses for good.
            StoreError: the database cannot be used.

        """
        waiting = iter(pieces)
        done = 0

        async def work() -> None:
            nonlocal done
            for piece in waiting:
                await self.audit(piece, instruments[piece.instrument_id])
                done += piece.weight(self._market)
                if progress is not None:
                    progress(done)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(AT_ONCE):
                tasks.create_task(work())

    async def audit(self, piece: Piece, stored: StoredInstrument) -> None:
        """Compare one piece, and mend it where that is wanted; a symbol that the exchange refuses is noted once."""
        if piece.instrument_id in self._refused:
            return
        try:
            await self._audit(piece, stored)
        except RequestRejected as error:
            if error.http_status not in {400, 404}:
                raise
            self._refused.add(piece.instrument_id)
            self.report.refused_symbols.append(stored.instrument.symbol)

    async def _audit(self, piece: Piece, stored: StoredInstrument) -> None:
        if not piece.whole and not len((await self._store.call(self._read, piece))[0]):
            return
        theirs = await self._ask(piece, stored.instrument)
        # Read after the answer: what was repaired meanwhile is no finding.
        ours, lives = await self._store.call(self._read, piece)
        now_ms = self._now_ms()
        verdict = judge(piece.interval, ours, theirs, lives, now_ms)
        flaws, undecided = await self._confirmed(piece, stored.instrument, verdict, theirs)
        flaws += missing(piece, ours, theirs)
        report = self.report
        report.equal_verified += verdict.equal_verified
        report.equal_unverified += verdict.equal_unverified
        report.unmatched += verdict.unmatched
        report.undecided += verdict.undecided + undecided
        for flaw in flaws:
            self._tell(piece, stored.instrument, flaw)
        if self._repair and (flaws or verdict.equal_unverified):
            mended = await self._store.call(
                mend,
                self._store.store,
                self._market,
                self._intervals,
                piece,
                theirs,
                flaws,
                listed_ms=stored.instrument.listed_ms,
                held_ms=self._held_from(piece.instrument_id),
                now_ms=now_ms,
            )
            report.repaired += mended.repaired
            report.verified += mended.verified
            await self._hand_on(piece.instrument_id, mended.accepted, mended.refolded)

    def _read(self, piece: Piece) -> tuple[Candles, Sequence[Life]]:
        store = self._store.store
        ours = store.read_raw(piece.instrument_id, piece.interval, piece.start_ms, piece.end_ms)
        return ours, store.lives(piece.instrument_id)

    async def _ask(self, piece: Piece, instrument: Instrument) -> Candles:
        """The exchange's settled candles, one more where it costs nothing: the evidence that earlier ones will not come."""
        start_ms, end_ms = max(piece.start_ms, 0), piece.end_ms
        weight = piece.weight(self._market)
        further_ms = piece.interval.next_open(piece.interval.open_at(end_ms))
        if (
            further_ms <= self._now_ms() - SETTLE_MS
            and weight_of(self._market, max(count_opens(piece.interval, start_ms, further_ms), 1)) == weight
        ):
            end_ms = further_ms
        self.report.requests += 1
        self.report.weight += weight
        rows = await self._rest.klines(
            instrument.symbol,
            piece.interval,
            start_ms=start_ms,
            end_ms=end_ms,
            price_scale=instrument.price_scale,
            qty_scale=instrument.qty_scale,
            purpose=Purpose.BACKFILL,
        )
        settled: Candles = rows[rows["flags"] & Flag.VERIFIED != 0]
        return settled

    async def _confirmed(
        self, piece: Piece, instrument: Instrument, verdict: Verdict, theirs: Candles
    ) -> tuple[list[Flaw], int]:
        """The flaws that stand, and how many do not, after the exchange was asked again about what it contradicts."""
        suspects = set(verdict.suspects())
        if not suspects:
            return verdict.flaws, 0
        end_ms = piece.interval.next_open(piece.interval.open_at(max(suspects)))
        again = await self._ask(Piece(piece.instrument_id, piece.interval, min(suspects), end_ms), instrument)
        stands = []
        for flaw in verdict.flaws:
            first, second = (rows[rows["open_ms"] == flaw.open_ms] for rows in (theirs, again))
            if flaw.open_ms not in suspects or (len(first) == len(second) and (first == second).all()):
                stands.append(flaw)
        return stands, len(verdict.flaws) - len(stands)

    def _tell(self, piece: Piece, instrument: Instrument, flaw: Flaw) -> None:
        finding = Finding(
            flaw.kind, self._market, instrument.symbol, piece.interval, flaw.open_ms, flaw.fields, flaw.note
        )
        self.report.add(finding)
        if self._on_finding is not None:
            self._on_finding(finding)

    async def _hand_on(self, instrument_id: int, accepted: Candles, refolded: Refolded) -> None:
        if self._on_repaired is None:
            return
        nothing = np.zeros(0, np.int64)
        if len(accepted):
            ids = np.full(len(accepted), instrument_id, np.int64)
            await self._on_repaired(ids, accepted, nothing, no_candles(), 0)
        for upto_ms, base_ids, bases in refolded.by_upto():
            await self._on_repaired(nothing, no_candles(), base_ids, bases, upto_ms)
