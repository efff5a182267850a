"""`kill -9` in the middle of commits: whatever instant it hits, candles and progress agree."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from klagg.interval import MINUTE, MINUTE_MS
from klagg.model import Market
from klagg.store import open_store
from store.samples import SYMBOLS, T0

SCRIPT = """
    import numpy as np
    from klagg.interval import MINUTE_MS
    from klagg.model import *
    from klagg.store import *

    store = open_store({db!r}, mode="create")
    wanted = [Instrument(Market.USDM, symbol, Status.TRADING, 2, 3) for symbol in {symbols!r}]
    ids = np.array(list(store.put_instruments(wanted, {start}).values()))
    claim = store.claim(Market.USDM, owner="doomed", now_ms={start})
    number = 0
    while True:
        candles = no_candles(2 * len(ids))
        for name in ("open", "high", "low", "close"):
            candles[name] = number + 1
        candles["origin"] = Origin.FLAT
        candles["open_ms"][:len(ids)] = {start} + number * MINUTE_MS
        candles["flags"][:len(ids)] = Flag.CLOSED
        candles["open_ms"][len(ids):] = {start} + (number + 1) * MINUTE_MS
        number += 1
        store.commit(Commit(claim, range(256), {start} + number * MINUTE_MS, np.tile(ids, 2), candles))
        print(number, flush=True)
"""


@pytest.mark.parametrize("after", [1, 40, 150])
def test_killed_in_mid_commit(db, after):
    script = textwrap.dedent(SCRIPT.format(db=str(db), symbols=SYMBOLS, start=T0))
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=os.environ, text=True)
    told = 0
    while told < after:
        told = int(process.stdout.readline())
    process.kill()
    told = max([told, *(int(line) for line in process.stdout.read().split("\n")[:-1])])
    process.wait()
    process.stdout.close()

    store = open_store(str(db), mode="write")
    assert store._database.all("PRAGMA integrity_check") == [("ok",)]
    upto_ms = store.closed_upto(Market.USDM)
    closed = (upto_ms - T0) // MINUTE_MS
    assert closed >= told, "a commit that was told done is gone"
    for stored in store.instruments():
        candles = store.read(stored.id, MINUTE, 0, 2**60)
        assert candles["open_ms"].tolist() == [T0 + n * MINUTE_MS for n in range(closed)]
    newest = store.newest(Market.USDM, (MINUTE,))
    assert np.unique(newest.candles["open_ms"]).tolist() == [upto_ms]
    assert store.candle_counts(Market.USDM)[0].candles == closed * len(SYMBOLS)
    assert store.claim(Market.USDM, owner="next", now_ms=T0 + 1).epoch == 2
    store.close()
