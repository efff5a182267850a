"""Every range that is read of a store, at its edges: from is included, until is not; and what a stranger may write."""

import numpy as np
import pytest

from klagg.interval import BY_NAME, MINUTE, MINUTE_MS
from klagg.model import Flag
from store.samples import T0, candle, minutes

COUNT = 6
FAR_MS = T0 + 10**12


@pytest.mark.parametrize("start", [-1, 0, 1, MINUTE_MS - 1, MINUTE_MS, MINUTE_MS + 1, COUNT * MINUTE_MS])
@pytest.mark.parametrize("end", [0, 1, 3 * MINUTE_MS - 1, 3 * MINUTE_MS, 3 * MINUTE_MS + 1, COUNT * MINUTE_MS])
def test_a_range_of_candles_holds_its_start_and_not_its_end(owned, start, end):
    owned.commit(minutes(0, COUNT), upto_ms=T0 + COUNT * MINUTE_MS, now_ms=FAR_MS)
    store, asked = owned.store, (owned.btc, MINUTE, T0 + start, T0 + end)
    expected = [T0 + n * MINUTE_MS for n in range(COUNT) if start <= n * MINUTE_MS < end]
    for as_of_ms in (None, FAR_MS):
        assert store.read(*asked, as_of_ms=as_of_ms)["open_ms"].tolist() == expected
        assert store.read(*asked, descending=True, as_of_ms=as_of_ms)["open_ms"].tolist() == expected[::-1]
        assert store.read(*asked, 2, as_of_ms=as_of_ms)["open_ms"].tolist() == expected[:2]
        assert len(store.revisions(*asked, as_of_ms=as_of_ms)) == len(expected)
        assert store.read_states(*asked, as_of_ms=as_of_ms).candles["open_ms"].tolist() == expected
        for chunk in (1, 2, 3):
            pieces = [piece["open_ms"].tolist() for piece in store.iter_read(*asked, chunk=chunk, as_of_ms=as_of_ms)]
            assert [open_ms for piece in pieces for open_ms in piece] == expected
            assert max(map(len, pieces), default=0) <= chunk
    assert store.span(*asked) == ((expected[0], expected[-1]) if expected else None)


def test_a_stranger_writes_only_what_has_closed(owned):
    """An hour's candle opens long before its owner has closed its last minute."""
    owned.commit(minutes(0, 30), upto_ms=T0 + 30 * MINUTE_MS, now_ms=T0 + 30 * MINUTE_MS)
    last, next_one = (candle(T0 + n * MINUTE_MS, verified=True, trades=9, last_id=20) for n in (29, 30))
    hour, half = (candle(T0, interval=BY_NAME[name], verified=True) for name in ("1h", "30m"))
    rows = np.concatenate([last, next_one, hour, half])
    result = owned.store.write(np.full(len(rows), owned.btc), rows)
    assert result.accepted.tolist() == [True, False, False, True]
    kept = owned.store.read(owned.btc, MINUTE, T0, T0 + 60 * MINUTE_MS)
    assert kept["open_ms"][-1] == T0 + 29 * MINUTE_MS
    assert kept["flags"][-1] & Flag.VERIFIED
