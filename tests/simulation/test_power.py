"""What a power failure leaves of a database: never more than a run of its first commits, and with FULL all of them."""

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from klagg.store.database import open_database
from simulation.power import Synced, found_after

COMMITS = 20


@pytest.mark.parametrize("way", ["NORMAL", "FULL"])
def test_the_commits_that_are_left_are_the_first_ones(tmp_path: Path, way: str) -> None:
    left = set()
    for seed in range(40):
        path = tmp_path / f"{seed}.db"
        database = open_database(path, "create", way)  # type: ignore[arg-type]
        synced = Synced(path, full=way == "FULL")
        database.execute("CREATE TABLE said (number INTEGER)")
        for number in range(COMMITS):
            with database.transaction():
                database.execute("INSERT INTO said VALUES (?)", (number,))
            if number == 9:
                database.all("PRAGMA wal_checkpoint(PASSIVE)")
                synced.checkpointed()
        database.execute("BEGIN")
        database.execute("INSERT INTO said VALUES (99)")
        files = synced.lose(random.Random(seed))
        database.close()
        found_after(path, files)
        with closing(sqlite3.connect(path)) as shell:
            assert shell.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            numbers = [row[0] for row in shell.execute("SELECT number FROM said ORDER BY number")]
        assert numbers == list(range(len(numbers)))
        left.add(len(numbers))
    if way == "FULL":
        assert left == {COMMITS}
    else:
        assert min(left) >= 10, "what was moved into the database stays"
        assert len(left) > 3, "the last commits may be lost"
