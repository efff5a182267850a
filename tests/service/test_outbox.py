"""What waits for the database: coalesced, kept through failures, bounded on record."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from klagg.interval import BY_NAME, MINUTE_MS
from klagg.model import CANDLE, Candles, Flag
from klagg.service.outbox import Batch, Outbox, coalesce

CLOSED, AMENDED = int(Flag.CLOSED), int(Flag.AMENDED)


def candles(*rows: tuple[int, int, int, int]) -> Candles:
    """Candles of (interval, minute number, flags, close)."""
    out = np.zeros(len(rows), CANDLE)
    for at, (interval, minute, flags, close) in zip(out, rows, strict=True):
        at["interval"], at["open_ms"], at["flags"], at["close"] = interval, minute * MINUTE_MS, flags, close
    return out


def naive(batches: list[Batch]) -> dict[tuple[int, int, int], tuple[int, int]]:
    """What is left of the batches: newest close and flags by series and open (-1 for the open snapshot)."""
    newest: dict[tuple[int, int, int], tuple[int, int]] = {}
    for batch in batches:
        for instrument_id, row in zip(batch.instrument_ids, batch.candles, strict=True):
            closed = bool(row["flags"] & CLOSED)
            key = (int(instrument_id), int(row["interval"]), int(row["open_ms"]) if closed else -1)
            before = newest.get(key, (0, 0))[1]
            newest[key] = (int(row["close"]), int(row["flags"]) | before & AMENDED)
    return newest


ROW = st.tuples(
    st.integers(1, 3), st.sampled_from([0, 2]), st.integers(1, 4), st.sampled_from([0, CLOSED, CLOSED | AMENDED])
)


@given(st.lists(st.lists(ROW, max_size=6), max_size=5))
def test_coalescing_keeps_the_newest_state_of_each_candle(script: list[list[tuple[int, int, int, int]]]) -> None:
    batches, close = [], 0
    for rows in script:
        made = candles(*((interval, minute, flags, 0) for _, interval, minute, flags in rows))
        for row in made:
            close += 1
            row["close"] = close
        batches.append(Batch(np.array([instrument_id for instrument_id, *_ in rows], np.int64), made))
    merged = coalesce(list(batches))
    assert len(merged.candles) == len(naive(batches))
    assert naive([merged]) == naive(batches)


def test_a_failed_batch_waits_again_behind_nothing_newer() -> None:
    outbox = Outbox()
    outbox.add(np.array([1]), candles((0, 5, CLOSED, 10)))
    outbox.take()
    outbox.add(np.array([1]), candles((0, 5, CLOSED, 11)))
    outbox.failed()
    again = outbox.take()
    assert [int(row["close"]) for row in again.candles] == [11]
    outbox.committed()
    assert outbox.candles == 0
    assert outbox.nbytes == 0


def test_a_failed_batch_is_still_there() -> None:
    outbox = Outbox()
    outbox.add(np.array([1, 2]), candles((0, 5, CLOSED, 10), (2, 4, CLOSED, 11)))
    taken = outbox.take()
    outbox.failed()
    assert (outbox.candles, outbox.nbytes) == (2, taken.nbytes)
    again = outbox.take()
    assert again.instrument_ids.tolist() == [1, 2]
    assert again.candles.tolist() == taken.candles.tolist()


def test_past_the_bound_the_oldest_whole_minutes_are_given_up_on_record() -> None:
    bound = 10 * (CANDLE.itemsize + 8)
    outbox = Outbox(bound)
    for minute in range(1, 21):
        outbox.add(np.array([7]), candles((0, minute, CLOSED, minute)))
    assert outbox.nbytes > bound
    given_up = outbox.shed()
    left = outbox.take().candles
    assert given_up[0][0] == 7
    assert given_up[0][1] == MINUTE_MS
    assert given_up[0][2] == int(left["open_ms"].min()), "what is left begins where the record ends"
    assert int(left["open_ms"].max()) == 20 * MINUTE_MS, "the newest are kept"
    assert outbox.nbytes <= bound


def test_within_the_bound_nothing_is_given_up() -> None:
    outbox = Outbox()
    outbox.add(np.array([7]), candles((0, 1, CLOSED, 1)))
    assert outbox.shed() == []
    assert outbox.candles == 1


def test_a_longer_candle_is_given_up_with_the_minute_it_closed_with_and_on_record() -> None:
    """It opened long before: by its open it would go first, and nobody would ask for it again (found by the simulation)."""
    outbox = Outbox(5 * (CANDLE.itemsize + 8))
    hour = BY_NAME["1h"].code
    for minute in range(50, 66):
        outbox.add(np.array([7]), candles((0, minute, CLOSED, minute)))
    outbox.add(np.array([7]), candles((hour, 0, CLOSED, 1)))
    outbox.add(np.array([8]), candles((hour, 0, CLOSED, 1)))
    assert outbox.shed() == [(7, 50 * MINUTE_MS, 61 * MINUTE_MS), (8, 59 * MINUTE_MS, 60 * MINUTE_MS)]
    left = outbox.take().candles
    assert left["open_ms"].tolist() == [minute * MINUTE_MS for minute in range(61, 66)]
