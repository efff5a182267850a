import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from klagg.errors import ClaimLost, ClaimRefused
from klagg.interval import MINUTE_MS
from klagg.model import VIRTUAL_SHARDS, Market, virtual_shard
from klagg.store import LEASE_MS, Commit, open_store
from store.samples import T0, candle, instrument, minutes


@pytest.fixture
def other(db, owned):
    store = open_store(str(db), mode="write")
    yield store
    store.close()


def test_a_second_owner_is_refused_while_the_lease_is_fresh(owned, other):
    with pytest.raises(ClaimRefused, match=r"owned by first until 2023-11-15T00:00:15Z.*--take-over"):
        other.claim(Market.USDM, owner="second", now_ms=T0 + LEASE_MS - 1)


def test_a_lease_that_ended_gives_way_and_the_old_owner_is_fenced(owned, other):
    claim = other.claim(Market.USDM, owner="second", now_ms=T0 + LEASE_MS)
    assert claim.epoch == owned.claim.epoch + 1
    with pytest.raises(ClaimLost, match=r"taken over by second \(epoch 2, ours was 1\)"):
        owned.commit(candle(), upto_ms=T0 + MINUTE_MS)
    assert len(owned.stored()) == 0
    assert owned.store.closed_upto(Market.USDM) is None
    with pytest.raises(ClaimLost):
        owned.store.renew(owned.claim, T0)


def test_a_commit_and_a_renewal_keep_the_lease(owned, other):
    owned.commit(now_ms=T0 + 10_000)
    with pytest.raises(ClaimRefused):
        other.claim(Market.USDM, owner="second", now_ms=T0 + 20_000)
    owned.store.renew(owned.claim, T0 + 30_000)
    with pytest.raises(ClaimRefused):
        other.claim(Market.USDM, owner="second", now_ms=T0 + 40_000)


def test_taking_over_needs_no_lease_to_end(owned, other):
    other.claim(Market.USDM, owner="second", now_ms=T0 + 1, take_over=True)
    with pytest.raises(ClaimLost):
        owned.commit()


def test_a_release_lets_the_next_in_at_once_and_a_lost_claim_releases_nothing(owned, other):
    owned.store.release(owned.claim)
    second = other.claim(Market.USDM, owner="second", now_ms=T0 + 1)
    owned.store.release(owned.claim)
    other.renew(second, T0 + 2)


def test_closed_upto_moves_for_the_committed_shards_only_and_never_back(owned, other):
    shard = virtual_shard(Market.USDM, "BTCUSDT")
    store = owned.store
    store.commit(Commit(owned.claim, [shard], T0 + MINUTE_MS, np.array([owned.btc]), candle()))
    store.commit(Commit(owned.claim, [shard], T0))
    assert store.closed_upto(Market.USDM) is None
    owned.store.release(owned.claim)
    claim = other.claim(Market.USDM, owner="second", now_ms=T0)
    assert len(claim.closed_upto) == VIRTUAL_SHARDS
    assert claim.closed_upto[shard] == T0 + MINUTE_MS
    assert claim.closed_upto.sum() == T0 + MINUTE_MS


def test_a_write_without_a_claim_leaves_open_minutes_alone(owned):
    owned.commit(upto_ms=T0 + 2 * MINUTE_MS)
    result = owned.write(minutes(0, 4))
    assert result.accepted.tolist() == [True, True, False, False]
    assert result.revisions.tolist() == [0, 0, -1, -1]


def test_a_database_nobody_owned_takes_every_minute(db):
    store = open_store(str(db), mode="create")
    ids = store.put_instruments([instrument("BTCUSDT")], T0)
    assert store.write(np.full(3, ids["BTCUSDT"]), minutes(0, 3)).accepted.all()
    store.close()


def test_markets_are_claimed_apart(owned, other):
    assert other.claim(Market.SPOT, owner="second", now_ms=T0).epoch == 1
    owned.commit()


def _claiming_process(db, ending: str) -> subprocess.Popen:
    script = f"""
        from klagg.model import Market
        from klagg.store import open_store
        store = open_store({str(db)!r}, mode="create")
        store.claim(Market.USDM, owner="process", now_ms={T0})
        print("claimed", flush=True)
        {ending}
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        env=os.environ,
        text=True,
    )
    assert process.stdout.readline() == "claimed\n"
    return process


def test_after_a_crash_the_free_lock_spares_the_wait(db):
    process = _claiming_process(db, "input()")
    store = open_store(str(db), mode="write")
    with pytest.raises(ClaimRefused, match="owned by process"):
        store.claim(Market.USDM, owner="next", now_ms=T0 + 1)
    process.kill()
    process.wait()
    process.stdout.close()
    process.stdin.close()
    assert store.claim(Market.USDM, owner="next", now_ms=T0 + 1).epoch == 2
    store.close()


def test_a_copied_database_has_no_lock_that_could_prove_the_owner_dead(owned, db):
    db.with_name(f"{db.name}-lock-usdm").rename(db.with_name("elsewhere"))
    store = open_store(str(db), mode="write")
    with pytest.raises(ClaimRefused):
        store.claim(Market.USDM, owner="next", now_ms=T0 + 1)
    store.close()
