"""What was known at an instant, against a naive twin that remembers every state it ever saw."""

import sqlite3

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klagg.interval import BY_NAME, MINUTE, MINUTE_MS
from klagg.model import Flag, Market, Origin
from klagg.store import open_store, schema
from store.samples import T0, Owned, candle, instrument, minutes

MINUTES = 3


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    store = open_store(str(tmp_path_factory.mktemp("as_of") / "a.db"), mode="create")
    ids = store.put_instruments([instrument("BTCUSDT")], T0)
    owned = Owned(store, ids, store.claim(Market.USDM, owner="first", now_ms=T0))
    owned.commit(upto_ms=T0 + MINUTES * MINUTE_MS)
    yield owned
    store.close()


writes = st.tuples(
    st.lists(st.integers(0, MINUTES - 1), min_size=1, max_size=MINUTES, unique=True),
    st.booleans(),  # by the owner
    st.integers(-3, 10),  # how much later it is, by the clock of whoever writes
    st.integers(0, 6),
    st.booleans(),
    st.booleans(),
    st.sampled_from([110, 111, 112]),
    st.booleans(),  # at a wider scale
)


def as_candle(minute, origin, verified, amended, close, wide):
    factor = 1000 if wide else 1
    scaled = {"open": 100, "high": 120, "low": 90, "close": close, "quote_lo": 550_000, "taker_quote_lo": 110_000}
    columns = {name: value * factor for name, value in scaled.items()} | {"price_scale": 5 if wide else 2}
    return candle(T0 + minute * MINUTE_MS, origin=origin, verified=verified, amended=amended, **columns)


def numbers(row):
    return int(row["close"]) * 10 ** (5 - int(row["price_scale"])), int(row["trades"])


class Twin:
    """Remembers what each candle was after each write; knows nothing of how the database keeps it."""

    def __init__(self, owned):
        self._owned = owned
        self._states = {}

    def look(self, at_ms):
        revisions = self._owned.store.revisions(self._owned.btc, MINUTE, 0, 2**60).tolist()
        for row, revision in zip(self._owned.stored(), revisions, strict=True):
            known = self._states.setdefault(int(row["open_ms"]), [])
            # A writer whose clock is behind knows nothing before those whom it follows.
            when_ms = max([at_ms, *(state["at_ms"] for state in known[-1:])])
            if not known or known[-1]["revision"] != revision:
                known.append({"at_ms": when_ms, "revision": revision, "numbers": numbers(row), "verified_ms": None})
            state = known[-1]
            assert state["numbers"] == numbers(row)
            state["row"] = row.copy()
            if row["flags"] & Flag.VERIFIED and state["verified_ms"] is None:
                state["verified_ms"] = when_ms

    def at(self, as_of_ms):
        found = []
        for _, known in sorted(self._states.items()):
            held = [state for state in known if state["at_ms"] <= as_of_ms]
            if held:
                row = held[-1]["row"].copy()
                verified_ms = held[-1]["verified_ms"]
                row["flags"] = Flag.CLOSED | Flag.VERIFIED * (verified_ms is not None and verified_ms <= as_of_ms)
                found.append((row, held[-1]["revision"]))
        return found


@settings(max_examples=150, deadline=None)
@given(st.lists(writes, min_size=1, max_size=8), st.integers(1, 3), st.booleans())
def test_any_instant_is_as_the_twin_remembers_it(shared, history, chunk, descending):
    store, twin, clock_ms = shared.store, Twin(shared), T0 + MINUTES * MINUTE_MS
    rolled_back = RuntimeError()
    with pytest.raises(RuntimeError), store.transaction():  # noqa: PT012  # the example is rolled back at its end
        instants = {clock_ms}
        for opens, by_owner, later, origin, verified, amended, close, wide in history:
            clock_ms += later
            rows = [as_candle(minute, origin, verified, amended, close, wide) for minute in opens]
            if by_owner:
                shared.commit(*rows, now_ms=clock_ms)
            else:
                with store.knowing(clock_ms):
                    shared.write(*rows)
            twin.look(clock_ms)
            instants |= {clock_ms - 1, clock_ms, clock_ms + 1}
        for as_of_ms in sorted(instants):
            expected = twin.at(as_of_ms)
            rows = store.read(shared.btc, MINUTE, 0, 2**60, as_of_ms=as_of_ms, descending=descending)
            rows = rows[::-1] if descending else rows
            assert rows.tolist() == [row.tolist() for row, _ in expected]
            assert store.revisions(shared.btc, MINUTE, 0, 2**60, as_of_ms=as_of_ms).tolist() == [r for _, r in expected]
            pieces = list(store.iter_read(shared.btc, MINUTE, 0, 2**60, chunk=chunk, as_of_ms=as_of_ms))
            assert np.concatenate([rows[:0], *pieces]).tolist() == rows.tolist()
            assert all(len(piece) <= chunk for piece in pieces)
        raise rolled_back


def test_several_changes_before_a_commit_are_one_revision_and_its_time_is_the_commits(owned):
    owned.commit(minutes(0, 2), upto_ms=T0 + 2 * MINUTE_MS, now_ms=T0 + 2 * MINUTE_MS + 7)
    owned.commit(candle(close=111, amended=True), now_ms=T0 + 200_000)
    assert owned.store.read(owned.btc, MINUTE, 0, 2**60, as_of_ms=T0 + 2 * MINUTE_MS + 6).size == 0
    before = owned.store.read(owned.btc, MINUTE, 0, 2**60, as_of_ms=T0 + 199_999)
    assert before["close"].tolist() == [110, 110]
    assert owned.store.read(owned.btc, MINUTE, 0, 2**60, as_of_ms=T0 + 200_000)["close"].tolist() == [111, 110]


def test_the_past_is_read_with_sqlite_alone(owned, db):
    with owned.store.knowing(T0 + 100_000):
        owned.write(candle())
    with owned.store.knowing(T0 + 200_000):
        owned.write(candle(close=111, origin=Origin.EXCHANGE, verified=True))
    with sqlite3.connect(db) as connection:
        was = connection.execute(
            "SELECT open_ms, revision, close, verified, known_ms, until_ms FROM candle_was"
        ).fetchall()
        now = connection.execute("SELECT revision, close, verified, known_ms, verified_ms FROM candle").fetchall()
    assert was == [(T0, 0, 110, 0, T0 + 100_000, T0 + 200_000)]
    assert now == [(1, 111, 1, T0 + 200_000, T0 + 200_000)]


def test_the_view_of_states_gives_an_instant_in_real_numbers(owned, db):
    with owned.store.knowing(T0 + 100_000):
        owned.write(candle(), candle(T0 + MINUTE_MS))
    with owned.store.knowing(T0 + 200_000):
        owned.write(candle(close=111, origin=Origin.EXCHANGE, verified=True))
    query = (
        "SELECT open_time_ms, close, origin, revision, verified_ms BETWEEN 1 AND :t FROM candle_states WHERE market = 'usdm' "
        "AND symbol = 'BTCUSDT' AND interval = '1m' AND known_ms <= :t AND (until_ms IS NULL OR until_ms > :t) ORDER BY 1"
    )
    second = (T0 + MINUTE_MS, "1.10", "trades", 0, 0)
    with sqlite3.connect(db) as connection:
        assert connection.execute(query, {"t": T0 + 99_999}).fetchall() == []
        assert connection.execute(query, {"t": T0 + 199_999}).fetchall() == [(T0, "1.10", "trades", 0, 0), second]
        assert connection.execute(query, {"t": T0 + 200_000}).fetchall() == [(T0, "1.11", "exchange", 1, 1), second]
        plan = connection.execute(f"EXPLAIN QUERY PLAN {query}", {"t": T0}).fetchall()
    for table in ("candle", "candle_was"):
        assert any(row[3].startswith(f"SEARCH {table} USING PRIMARY KEY (series=?") for row in plan)


def test_a_candle_that_is_removed_takes_its_past_with_it(owned, db):
    for close in (110, 111, 112):
        owned.write(candle(close=close))
    with sqlite3.connect(db) as connection:
        assert connection.execute("SELECT count(*) FROM candle_was").fetchone() == (2,)
        connection.execute("DELETE FROM candle")
        assert connection.execute("SELECT count(*) FROM candle_was").fetchone() == (0,)


def test_a_revision_that_was_set_back_by_hand_stops_no_writer(owned, db):
    for close in (110, 111):
        owned.write(candle(close=close))
    with sqlite3.connect(db) as connection:
        connection.execute("UPDATE candle SET revision = 0")
    assert owned.write(candle(close=112)).revisions.tolist() == [1]
    with sqlite3.connect(db) as connection:
        assert connection.execute("SELECT revision, close FROM candle_was").fetchall() == [(0, 111)]


def test_an_older_database_knows_its_candles_from_their_ends_on(owned, db, monkeypatch):
    month = BY_NAME["1M"]
    owned.store.close()
    db.unlink()
    current = schema.MIGRATIONS
    before = current[: next(n for n, script in enumerate(current) if "candle_was" in script)]
    with sqlite3.connect(db) as connection:
        connection.executescript("".join(before))
        facts = "100, 120, 90, 110, 0, 5, 0, 5, 0, 1, 0, 1, 4, 7, 10, 2, 3, 4"
        for series, open_ms, verified in [(16, T0, 1), (16 + month.code, month.open_at(T0), 0)]:
            connection.execute(f"INSERT INTO candle VALUES ({series}, {open_ms}, {facts}, {verified}, 0)")
        connection.execute(
            "INSERT INTO instrument VALUES (1, 'usdm', 'BTCUSDT', '', '', 'trading', '', 2, 3, 0, NULL, 1, '{}')"
        )
        connection.execute(f"PRAGMA user_version = {len(before)}")
        connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    store = open_store(str(db), mode="write")
    for interval, open_ms, verified in [(MINUTE, T0, True), (month, month.open_at(T0), False)]:
        end_ms = interval.next_open(open_ms)
        assert store.read(1, interval, 0, 2**60, as_of_ms=end_ms - 1).size == 0
        (row,) = store.read(1, interval, 0, 2**60, as_of_ms=end_ms)
        assert bool(row["flags"] & Flag.VERIFIED) == verified
    store.close()
