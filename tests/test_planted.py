"""Every planted defect is found by the command that must find it, and mended; a clean database gives nothing."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from klagg.audit import Report as AuditReport
from klagg.check import Kind, Report, check
from klagg.model import Market
from klagg.service.auditing import AuditPlan, audit_store
from klagg.service.mending import Mended, mend
from klagg.store import open_store
from klagg.store.thread import StoreThread
from planted import DEFECTS, NOW, T0, Defect, Exchange, clean

World = tuple[Path, dict[Market, Exchange]]
MENDED: set[tuple[object, ...]] = set()
"""What has been mended in this process: a defect with the same findings is mended by the same ways, and is only to be found."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    path = tmp_path_factory.mktemp("clean") / "klagg.db"
    content, markets = clean()
    path.write_bytes(content)
    return path, markets


@pytest.fixture
def db(world: World, tmp_path: Path) -> Path:
    copy = tmp_path / "klagg.db"
    copy.write_bytes(world[0].read_bytes())
    return copy


def plant(db: Path, defect: Defect) -> None:
    with sqlite3.connect(db) as connection:
        for statement in defect.statements:
            assert connection.execute(statement).rowcount > 0, statement
    connection.close()


def checked(db: Path) -> Report:
    store = open_store(str(db), mode="read")
    try:
        return check(store)
    finally:
        store.close()


def mended(db: Path) -> Mended:
    store = open_store(str(db), mode="write")
    try:
        return mend(store, lambda limit: check(store, limit=limit), NOW)
    finally:
        store.close()


def audited(db: Path, exchange: Exchange, *, repair: bool = False) -> AuditReport:
    async def run() -> AuditReport:
        thread = StoreThread(open_store(str(db), mode="write" if repair else "read"))
        try:
            held = {one.id: one for one in await thread.call(thread.store.instruments, exchange.market)}
            plan = AuditPlan(start="1960-01-01", repair=repair)
            return await audit_store(exchange.market, exchange, thread, held, plan, lambda: NOW)  # type: ignore[arg-type]
        finally:
            await thread.close()

    return asyncio.run(run())


def test_a_clean_database_gives_nothing(world: World) -> None:
    path, markets = world
    report = checked(path)
    assert (report.findings, report.malformed) == ([], [])
    assert report.parents_compared > 1_000
    for exchange in markets.values():
        audit = audited(path, exchange)
        assert (audit.findings, audit.ok, audit.undecided) == ([], True, 0)
    assert audit.unmatched == 12  # ten minutes, and the two 5m candles of nothing else
    assert audited(path, markets[Market.USDM]).equal_unverified > 0


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_a_planted_defect_is_found_and_mended(world: World, db: Path, defect: Defect) -> None:
    exchange = world[1][Market.USDM]
    plant(db, defect)
    report, audit = checked(db), audited(db, exchange)
    assert (not report.ok) == defect.check, report.as_dict()
    assert (not audit.ok) == defect.audit, audit.as_dict()
    symptoms = (
        frozenset((one.kind, one.interval) for one in report.findings),
        frozenset((one.kind, one.interval) for one in audit.findings),
        bool(report.malformed),
    )
    if symptoms in MENDED and not report.malformed:
        return
    MENDED.add(symptoms)
    done = mended(db)
    # A hole too long to be filled stays one, on record as a gap.
    assert done.left.ok or (done.left.counts.keys() == {Kind.HOLE} and done.left.gaps), done.left.as_dict()
    touched = [one for one in world[1].values() if one is exchange or "OUTAGEUSDT" in defect.statements[0]]
    changed = []
    for one in touched:
        repaired = audited(db, one, repair=True)
        assert repaired.ok, repaired.as_dict()
        if repaired.findings or repaired.repaired or repaired.verified:
            changed.append(one)
    if changed or not done.left.ok:
        after = checked(db)
        assert after.ok, after.as_dict()
    for one in changed:
        clean = audited(db, one)
        assert (clean.findings, clean.ok) == ([], True)


@pytest.mark.parametrize("defect", [one for one in DEFECTS if one.audit][1::9], ids=lambda defect: defect.name)
def test_audit_alone_repairs_what_it_finds(world: World, db: Path, defect: Defect) -> None:
    exchange = world[1][Market.USDM]
    plant(db, defect)
    assert audited(db, exchange, repair=True).ok
    assert audited(db, exchange).findings == []


def test_planted_list_is_long_and_named_once() -> None:
    names = [one.name for one in DEFECTS]
    assert len(set(names)) == len(names) >= 25
    assert all(one.check or one.audit for one in DEFECTS)
    assert T0 % 60_000 == 0
