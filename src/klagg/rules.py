"""The rules of a candle: what evidence makes of it, which candle may replace which, and when nothing is left to do about it.

Pure, and the one place where they are said. Three others act by them and are held equal to them by tests: the store's guard
(one SQL statement, built from the names here), the engine's kernels, and the folding of parents.

Which row can be no candle at all, whoever tells it, is said in `klagg.plausible`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum, IntEnum
from typing import Any, Final, overload

import numpy as np
import numpy.typing as npt

from klagg.model import Origin, Source

Mask = npt.NDArray[np.bool_]

URGENT: Final = (Origin.FILLED, Origin.SEED, Origin.PARTIAL)
"""Without evidence that they are whole: fetched from the exchange as soon as it has settled them."""
EVIDENT: Final = (Origin.FLAT, Origin.TRADES)
"""Standing on evidence that no trade is missing; what the owner made itself, and may take back."""
LEISURE: Final = (*EVIDENT, Origin.EXCHANGE)
"""Compared with the exchange at leisure."""
NO_MARKET_ORDERS: Final = ("", "NA", "INSURANCE_FUND", "ADL")
"""The order types (`X`) of trades that the exchange's candles leave out: recordings show it. Of any other but `MARKET` (`RPI`, say)
nobody here knows, so its minute is not proven."""
FINAL: Final = Origin.UNMATCHED
"""The exchange has no candle for that time: nothing is asked for again, though its own candle would be taken."""


def is_possible(origin: Origin, *, verified: bool) -> bool:
    """Whether a candle may be so: what was seen to equal the exchange's is as good as its own, or stands on evidence."""
    return not verified or origin in LEISURE


# What is left to do about a closed candle


@overload
def is_final(origin: int, verified: bool) -> bool: ...
@overload
def is_final(origin: npt.NDArray[Any], verified: Mask) -> Mask: ...
def is_final(origin: Any, verified: Any) -> Any:
    """Nothing: it is verified, or the exchange has none. Of one candle, or of arrays."""
    return (verified != 0) | (origin == FINAL.value)


@overload
def is_urgent(origin: int, verified: bool) -> bool: ...
@overload
def is_urgent(origin: npt.NDArray[Any], verified: Mask) -> Mask: ...
def is_urgent(origin: Any, verified: Any) -> Any:
    """It is fetched as soon as the exchange has settled it. Of one candle, or of arrays."""
    return (verified == 0) & (origin <= URGENT[-1].value)


@overload
def is_evident(origin: int) -> bool: ...
@overload
def is_evident(origin: npt.NDArray[Any]) -> Mask: ...
def is_evident(origin: Any) -> Any:
    """It stands on evidence of our own: a difference to the exchange's is news. Of one candle, or of arrays."""
    return (origin >= EVIDENT[0].value) & (origin <= EVIDENT[-1].value)


# Which candle may replace which


class Leave(IntEnum):
    """What the writer of a candle may do."""

    UNFENCED = 0
    """Backfill, repair, replay: better or newer knowledge only."""
    OWNER = 1
    """The owner of the shard, within a fenced transaction."""
    OWNER_AMENDS = 2
    """The owner correcting its own candle: it may lower an origin that is not verified."""


@dataclass(frozen=True, slots=True)
class State:
    """A closed candle as far as the rules look at it.

    `numbers` are equal where every number that the exchange's kline has is equal, whatever the scales, the number of trades
    included. Ids are -1 where the source tells none.
    """

    origin: Origin
    verified: bool
    numbers: object
    trades: int
    first_id: int = -1
    last_id: int = -1
    revision: int = 0
    source: Source = Source.NONE

    @property
    def disputed(self) -> bool:
        """The exchange's archive contradicts itself here; the API has not spoken."""
        return self.origin is Origin.EXCHANGE and not self.verified and self.source is Source.ARCHIVE


class Action(Enum):
    """What becomes of an offer."""

    INSERT = "insert"
    CONFIRM = "confirm"
    """Taken, its numbers being those that are stored."""
    REPLACE = "replace"
    """Taken, with other numbers: one revision more."""
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of an offer, and what is stored after it."""

    action: Action
    state: State
    became_verified: bool
    """The numbers now stored were not known to be the exchange's before."""


def accepts(stored: State, offered: State, leave: Leave) -> bool:
    """Whether an offer may take the place of what is stored.

    The exchange's word stands above all rank: what is verified gives way only to what is verified too, and the API's word
    never to the archive's. Else a higher rank replaces a lower; within a rank newer replaces older, but of two that lack trades
    a stranger's must not lack more. That the exchange has no candle is not said where klagg has seen trades.
    """
    if offered.verified:
        if stored.disputed:
            return offered.source is Source.API
        if not stored.verified or offered.numbers == stored.numbers or is_dispute(stored, offered):
            return True
        return (offered.source, offered.origin) >= (stored.source, stored.origin)
    return not stored.verified and _outranks(stored, offered, leave)


def _outranks(stored: State, offered: State, leave: Leave) -> bool:
    """As `accepts`, of two that are not verified."""
    if offered.origin == stored.origin:
        return leave is not Leave.UNFENCED or offered.origin != Origin.PARTIAL or offered.trades >= stored.trades
    if offered.origin == FINAL:
        return stored.trades == 0
    if stored.origin == FINAL:
        return offered.trades > 0
    return offered.origin > stored.origin or (leave is Leave.OWNER_AMENDS and stored.origin <= EVIDENT[-1])


def is_dispute(stored: State, offered: State) -> bool:
    """Whether an offer contradicts, within the exchange's archive, what is known.

    A candle verified before klagg kept its source (`NONE`) may be the archive's.
    """
    return (
        (offered.verified and stored.verified and offered.numbers != stored.numbers)
        and offered.source is Source.ARCHIVE
        and stored.source is not Source.API
    )


def decide(stored: State | None, offered: State, leave: Leave) -> Decision:
    """What becomes of an offer where a candle is stored, or none.

    An offer of equal numbers brings no other ids than it has, and, being the exchange's confirmation, no lower rank or source.
    Where one file of the archive contradicts what is known by another, neither is verified: the API is asked.
    """
    if stored is None:
        return Decision(Action.INSERT, replace(offered, revision=0), offered.verified)
    if not accepts(stored, offered, leave):
        return Decision(Action.REFUSE, stored, became_verified=False)
    if offered.numbers != stored.numbers:
        verified = offered.verified and not is_dispute(stored, offered)
        return Decision(
            Action.REPLACE,
            replace(
                offered,
                verified=verified,
                origin=offered.origin if verified == offered.verified else Origin.EXCHANGE,
                revision=stored.revision + 1,
            ),
            verified,
        )
    confirmed = offered.verified and stored.origin != FINAL
    state = replace(
        offered,
        origin=max(stored.origin, offered.origin) if confirmed else offered.origin,
        first_id=stored.first_id if offered.first_id < 0 else offered.first_id,
        last_id=stored.last_id if offered.last_id < 0 else offered.last_id,
        revision=stored.revision,
        source=max(stored.source, offered.source) if stored.verified and offered.verified else offered.source,
    )
    return Decision(Action.CONFIRM, state, offered.verified and not stored.verified)


# What evidence makes of a minute


@dataclass(frozen=True, slots=True)
class Coverage:
    """What is known about a minute that has closed.

    `proven`: ids run unbroken from a trade before its open to one at or after its end, and every trade of it is in it.
    `doubted`: a hole in the ids that was given up reaches into it or past it. `in_sight`: the feed was alive from its open
    on. `activated`: its symbol was activated at its open.
    """

    traded: bool
    proven: bool
    doubted: bool
    in_sight: bool
    activated: bool


def origin_of(coverage: Coverage) -> Origin:
    """The origin of a minute made from a feed. A stream alone proves no trade: a minute with trades waits for the ids."""
    if coverage.proven:
        return Origin.TRADES if coverage.traded else Origin.FLAT
    if coverage.traded:
        return Origin.PARTIAL
    if coverage.doubted:
        return Origin.FILLED
    if coverage.activated:
        return Origin.SEED
    return Origin.FLAT if coverage.in_sight else Origin.FILLED


def confirmed_origin(origin: Origin) -> Origin:
    """The origin of a candle that the exchange's was seen to equal: without evidence of its own it is the exchange's."""
    return Origin.EXCHANGE if origin in URGENT else origin


# What its pieces make of a longer candle


def folded_origin(origins: Iterable[Origin], *, traded: bool) -> Origin:
    """The origin of a candle folded from pieces: the lowest rank among them, as the whole has it.

    Pieces that stand on evidence make `trades` where anyone traded; one that does not makes a candle with trades `partial`.
    """
    lowest = min(origins)
    if lowest > EVIDENT[-1] or not traded:
        return lowest
    return Origin.PARTIAL if lowest in URGENT else Origin.TRADES


def folded_source(sources: Iterable[Source], *, verified: bool) -> Source:
    """Whose word verifies a candle folded from pieces: the lowest of theirs, where they verify it."""
    return min(sources) if verified else Source.NONE


def folded_verified(verified: Iterable[bool]) -> bool:
    """Whether a candle folded from pieces that tile its span is verified: where all of them are."""
    return all(verified)


# What an absence proves


ABSENCE_APART_MS: Final = 60_000
"""Two looks closer together than this are one: both answers may come from one machine that knows nothing yet."""
ABSENCE_AGE_MS: Final = 600_000
"""A kline may come late: an absence sooner after the candle's end says nothing."""
LOOKS_AGAIN_MS: Final = (3_600_000, 86_400_000, 604_800_000)
"""After an absence was found twice, it is looked at again so long after: an hour, a day, a week; then by the audit alone."""


@dataclass(frozen=True, slots=True)
class Absence:
    """A candle that the exchange was seen not to have, each time between rows of one answer: how often, and when last."""

    looks: int
    seen_ms: int

    @property
    def proven(self) -> bool:
        """Whether the candle may be called `unmatched`."""
        return self.looks >= 2

    @property
    def next_ms(self) -> int | None:
        """When it is to be looked at again; None where that is left to the audit."""
        if not self.proven:
            return self.seen_ms + ABSENCE_APART_MS
        at = self.looks - 2
        return self.seen_ms + LOOKS_AGAIN_MS[at] if at < len(LOOKS_AGAIN_MS) else None


def absent_again(before: Absence | None, now_ms: int) -> Absence:
    """What is known of an absence after it was seen at `now_ms`, between rows of one answer."""
    if before is None:
        return Absence(1, now_ms)
    if now_ms - before.seen_ms < ABSENCE_APART_MS:
        return before
    return Absence(before.looks + 1, now_ms)
