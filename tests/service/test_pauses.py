"""Symbols that do not trade for a time, in a simulated world: no candles meanwhile, all of them when they go on within a day."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from klagg.check import Finding, Kind, check
from klagg.store import SqliteStore, open_store
from simulation.plan import Happening, Plan, make
from simulation.world import World


def plan(market: str, *happenings: Happening, end_s: float) -> Plan:
    """Three symbols, a quiet world but for these."""
    seed = next(n for n in range(903_000, 903_100) if make(n).market == market and len(make(n).symbols) >= 3)
    made = make(seed)
    quiet = {"history": "0", "audit_share": 0.0, "memory_bytes": 64 << 20, "renew_h": 23.0, "intervals": "1m,5m,1h,1d"}
    return replace(made, happenings=tuple(happenings), end_s=end_s, **quiet)  # type: ignore[arg-type]


def holes(store: SqliteStore) -> list[Finding]:
    """What a check finds, but for trade ids: the world's exchange counts trades that no stream tells of."""
    return [finding for finding in check(store).findings if finding.kind is not Kind.IDS]


def rows(path: Path, sql: str) -> list[tuple]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(sql).fetchall()


@pytest.mark.parametrize("market", ["spot", "usdm"])
def test_a_pause_that_is_seen_and_one_that_lasts_over_a_restart_leave_no_hole(tmp_path: Path, market: str) -> None:
    name = plan(market, end_s=0).symbols[1].name
    world = World(
        plan(
            market,
            Happening(100.0, "halt", 1_500.0, 0, name),
            Happening(800.0, "stop", 100.0),
            end_s=1_700.0,
        ),
        tmp_path / "k.db",
    )
    story = world.run()
    assert not story.failed, str(story)
    said = "\n".join(story.log)
    assert "symbol.paused" in said
    assert "symbol.resumed" in said
    assert "unmatched" not in said
    with closing(open_store(str(tmp_path / "k.db"), mode="read")) as store:
        assert holes(store) == []


def test_while_a_pause_lasts_nothing_is_made_and_the_check_is_content(tmp_path: Path) -> None:
    name = plan("spot", end_s=0).symbols[1].name
    path = tmp_path / "k.db"
    world = World(
        plan("spot", Happening(100.0, "halt", 3_000.0, 0, name), Happening(900.0, "stop", 60.0), end_s=1_500.0), path
    )
    world._instants.pop()  # it does not trade again
    story = world.run()
    assert [one for one in story.problems if "missing" not in one] == []
    (status, native, retired) = rows(
        path, f"SELECT status, native_status, retired_ms FROM instrument WHERE symbol = '{name}'"
    )[0]
    assert (status, native, retired) == ("halted", "HALT", None)
    ended = rows(path, "SELECT symbol, max(open_time_ms) FROM candles WHERE interval = '1m' AND closed GROUP BY symbol")
    last = dict(ended)
    assert last[name] < world.plan.start_ms + 420_000, "the symbol list is looked at every five minutes"
    assert last["BTCUSDT"] >= world.plan.start_ms + 1_380_000
    with closing(open_store(str(path), mode="read")) as store:
        assert holes(store) == []
