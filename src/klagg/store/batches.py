"""What is written together, and what became of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from klagg.model import LAST_TRADE, Candles, Gap, Ints, no_candles
from klagg.store.claims import Claim
from klagg.store.quarantine import Quarantined
from klagg.store.rows import Mask


def no_ids() -> Ints:
    """No ids."""
    return np.zeros(0, np.int64)


def _no_last_trades() -> np.ndarray[tuple[int], np.dtype[np.void]]:
    return np.zeros(0, LAST_TRADE)


@dataclass(frozen=True, slots=True, eq=False)
class Commit:
    """What one owner's shards produced up to a boundary.

    `candles[n]` (closed ones carry `Flag.CLOSED`, the others are open snapshots) belongs to `instrument_ids[n]`, and
    `last_trades[m]` to `last_trade_instrument_ids[m]`; all of these instruments are of `shards`. `now_ms` is when all this
    is known, and renews the lease in passing; without it, the newest boundary in the batch counts.
    """

    claim: Claim
    shards: Sequence[int]
    closed_upto_ms: int
    instrument_ids: Ints = field(default_factory=no_ids)
    candles: Candles = field(default_factory=no_candles)
    last_trade_instrument_ids: Ints = field(default_factory=no_ids)
    last_trades: np.ndarray[tuple[int], np.dtype[np.void]] = field(default_factory=_no_last_trades)
    gaps: Sequence[Gap] = ()
    quarantined: Sequence[Quarantined] = ()
    now_ms: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class CommitResult:
    """What became of a commit.

    `accepted[n]` and `revisions[n]` go with the commit's candles (of `commit_all`: with all of
    them, one commit after the other); open snapshots have revision 0. `revised` counts closed candles whose numbers changed.
    """

    written: int
    refused: int
    revised: int
    seconds: float
    accepted: Mask
    revisions: Ints


@dataclass(frozen=True, slots=True, eq=False)
class WriteResult:
    """What became of candles written without a claim, each array as long as the candles.

    `changed`: the numbers of a stored closed candle changed. `revisions` is -1 where the minute is not closed yet.
    """

    accepted: Mask
    changed: Mask
    revisions: Ints
