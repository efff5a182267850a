"""Each thing that may lie where the database should be, and what people are told."""

import os
import shutil
import sqlite3

import pytest

from klagg.errors import StoreError, StoreUnavailable
from klagg.interval import MINUTE, MINUTE_MS
from klagg.model import Market
from klagg.store import open_store, schema
from store.samples import SHARDS, SYMBOLS, T0, candle, instrument, minutes

MODES = ["create", "write", "read"]


def told(db, mode) -> str:
    with pytest.raises(StoreError) as caught:
        open_store(str(db), mode=mode)
    message = str(caught.value)
    assert str(db) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("content", [b"x", b"y" * 511, b"this is no database\n" * 100, bytes(range(256)) * 40])
def test_a_file_that_is_no_database(db, mode, content):
    db.write_bytes(content)
    assert "is no database" in told(db, mode)
    assert db.read_bytes() == content


@pytest.mark.parametrize("mode", MODES)
def test_a_foreign_database_is_left_alone(db, mode):
    with sqlite3.connect(db) as connection:
        connection.execute("CREATE TABLE candle (x)")
    connection.close()
    before = db.read_bytes()
    assert "database of something else" in told(db, mode)
    assert db.read_bytes() == before


@pytest.mark.parametrize("mode", ["write", "read"])
def test_an_empty_file_is_filled_in_mode_create_only(db, mode):
    db.touch()
    assert "empty" in told(db, mode)
    open_store(str(db), mode="create").close()
    open_store(str(db), mode=mode).close()


@pytest.mark.parametrize("mode", MODES)
def test_a_newer_version(db, mode):
    open_store(str(db), mode="create").close()
    with sqlite3.connect(db) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert "version 99" in told(db, mode)


@pytest.mark.parametrize("mode", MODES)
def test_a_klagg_database_without_its_tables(db, mode):
    open_store(str(db), mode="create").close()
    with sqlite3.connect(db) as connection:
        connection.executescript("DROP VIEW candles_f64; DROP VIEW candles; DROP TABLE candle")
    connection.close()
    assert "table candle is missing" in told(db, mode)


@pytest.mark.parametrize("mode", ["write", "read"])
def test_no_such_file_says_what_makes_one(db, mode):
    assert "klagg run or klagg backfill makes one" in told(db, mode)
    assert not db.exists()


@pytest.mark.parametrize("mode", MODES)
def test_a_directory(tmp_path, mode):
    assert "is a directory" in told(tmp_path, mode)


def test_no_such_directory(tmp_path):
    assert "does not exist" in told(tmp_path / "none" / "x.db", "create")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_no_permission(db):
    open_store(str(db), mode="create").close()
    db.chmod(0)
    assert "permission" in told(db, "read").lower()


def test_damage_in_the_middle_is_named(owned, db):
    owned.commit(minutes(0, 600), upto_ms=T0 + 600 * MINUTE_MS)
    owned.store.close()
    size = db.stat().st_size
    with db.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * (size - 8192))
    with pytest.raises(StoreError, match="damaged"):
        open_store(str(db), mode="write").read(owned.btc, MINUTE, 0, 2**60)


def test_a_locked_database_may_be_tried_again(owned, db):
    other = sqlite3.connect(db, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked"):
        owned.commit(candle(), upto_ms=T0 + MINUTE_MS)
    other.execute("ROLLBACK")
    other.close()
    assert owned.commit(candle(), upto_ms=T0 + MINUTE_MS).written == 1


def test_a_full_disk_loses_nothing_and_may_be_tried_again(owned):
    connection = owned.store._database.connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreUnavailable, match="disk is full"):
        owned.commit(minutes(0, 3_000), upto_ms=T0 + 3_000 * MINUTE_MS)
    assert owned.store.closed_upto(Market.USDM) is None
    connection.execute("PRAGMA max_page_count = 1000000")
    assert owned.commit(minutes(0, 3_000), upto_ms=T0 + 3_000 * MINUTE_MS).written == 3_000


def test_a_reader_changes_nothing(owned, db):
    owned.commit(candle(), upto_ms=T0 + MINUTE_MS)
    reader = open_store(str(db), mode="read")
    assert len(reader.read(owned.btc, MINUTE, 0, 2**60)) == 1
    with pytest.raises(StoreError, match="reading only"):
        reader.write([owned.btc], candle(T0 + MINUTE_MS))
    reader.close()


# Migrations


def test_an_older_database_is_brought_up_to_date_with_its_rows(owned, db, monkeypatch):
    owned.commit(candle(), upto_ms=T0 + MINUTE_MS)
    owned.store.close()
    newer = (
        *schema.MIGRATIONS,
        "CREATE TABLE added (x INTEGER) STRICT;\nINSERT INTO added SELECT count(*) FROM candle;\n",
    )
    monkeypatch.setattr(schema, "MIGRATIONS", newer)
    assert f"older version {len(newer) - 1}" in told(db, "read")
    store = open_store(str(db), mode="write")
    assert store._database.all("SELECT x FROM added") == [(1,)]
    assert len(store.read(owned.btc, MINUTE, 0, 2**60)) == 1
    store.close()
    open_store(str(db), mode="read").close()


def test_a_migration_that_fails_leaves_the_older_database_as_it_was(db, monkeypatch):
    open_store(str(db), mode="create").close()
    before = list(schema.MIGRATIONS)
    monkeypatch.setattr(schema, "MIGRATIONS", (*before, "CREATE TABLE added (x);\n", "CREATE TABLE candle (x);\n"))
    with pytest.raises(StoreError, match="refused a statement"):
        open_store(str(db), mode="write")
    monkeypatch.setattr(schema, "MIGRATIONS", tuple(before))
    store = open_store(str(db), mode="write")
    assert store._database.all("SELECT name FROM sqlite_master WHERE name = 'added'") == []
    store.close()


def test_a_database_copied_with_its_log_holds_everything(owned, db, tmp_path):
    owned.commit(candle(), upto_ms=T0 + MINUTE_MS)
    copy = tmp_path / "copy.db"
    shutil.copy(db, copy)
    shutil.copy(f"{db}-wal", f"{copy}-wal")
    store = open_store(str(copy), mode="read")
    assert [stored.instrument for stored in store.instruments()] == [instrument(symbol) for symbol in SYMBOLS]
    assert len(store.read(owned.btc, MINUTE, 0, 2**60)) == 1
    assert store.closed_upto(Market.USDM) == T0 + MINUTE_MS
    assert len(SHARDS) == 256
    store.close()
