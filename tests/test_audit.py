"""Audit: exact comparison, what is asked for, a second answer before anybody is accused, the audit that runs all the time."""

import asyncio
import random
import sqlite3
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klagg import fixed
from klagg.audit import Auditor, Coverage, Finding, Kind, Piece, Report, covered, pieces, samples
from klagg.audit.comparing import differences, differing
from klagg.audit.judging import judge
from klagg.cli import main
from klagg.clock import ManualClock
from klagg.config import Settings
from klagg.errors import ExchangeError, NoCandles, RequestRejected
from klagg.interval import BY_NAME, HOUR_MS, MINUTE, MINUTE_MS
from klagg.model import Candles, Flag, Market, Origin, no_candles
from klagg.service.auditing import AuditPlan, AuditStats, ContinuousAudit, audit_by_rest, audit_store
from klagg.service.recent import Recent
from klagg.store import open_store
from klagg.store.thread import StoreThread
from planted import BTC, KEPT, LISTED, NOW, T0, UPTO, Exchange, row, series
from planted import clean as planted_clean

FIELDS = {
    "open": ("open", 0),
    "high": ("high", 0),
    "low": ("low", 0),
    "close": ("close", 0),
    "volume": ("volume", 1),
    "quote_volume": ("quote", 2),
    "taker_buy_volume": ("taker_volume", 1),
    "taker_buy_quote_volume": ("taker_quote", 2),
}

values = st.lists(st.integers(0, 10**9), min_size=9, max_size=9)
scales = st.tuples(st.integers(0, 9), st.integers(0, 9))


def candle(numbers: list[int], scale: tuple[int, int]) -> Candles:
    one = no_candles(1)
    one["price_scale"], one["qty_scale"] = scale
    for (column, kind), number in zip(FIELDS.values(), numbers, strict=False):
        if kind:
            one[f"{column}_hi"], one[f"{column}_lo"] = fixed.split(number)
        else:
            one[column] = number
    one["trades"] = numbers[8]
    return one


def as_decimals(numbers: list[int], scale: tuple[int, int]) -> dict[str, Decimal]:
    digits = {0: scale[0], 1: scale[1], 2: sum(scale)}
    found = {
        name: Decimal(n).scaleb(-digits[kind]) for (name, (_, kind)), n in zip(FIELDS.items(), numbers, strict=False)
    }
    return {**found, "trades": Decimal(numbers[8])}


@given(values, scales, scales, st.lists(st.integers(0, 8), max_size=2))
def test_candles_are_compared_as_decimals(
    numbers: list[int], one: tuple[int, int], wider: tuple[int, int], changed: list[int]
) -> None:
    other = (one[0] + wider[0], one[1] + wider[1])
    by = {0: wider[0], 1: wider[1], 2: sum(wider)}
    kinds = [kind for _, kind in FIELDS.values()]
    restated = [n * 10 ** by[kind] for n, kind in zip(numbers, kinds, strict=False)] + [numbers[8]]
    for index in changed:
        restated[index] += 1
    ours, theirs = candle(numbers, one), candle(restated, other)
    left, right = as_decimals(numbers, one), as_decimals(restated, other)
    expected = {name for name in left if left[name] != right[name]}
    found = differences(ours[0], theirs[0])
    assert set(found) == expected
    assert bool(differing(ours, theirs)[0]) == bool(expected)
    for name, texts in found.items():
        assert tuple(map(Decimal, texts)) == (left[name], right[name])


def minutes(opens: list[int], *, origin: Origin = Origin.EXCHANGE, verified: bool = True) -> Candles:
    rows = no_candles(len(opens))
    rows["open_ms"] = T0 + np.array(opens, np.int64) * MINUTE_MS
    rows["origin"], rows["flags"] = origin, Flag.CLOSED | (Flag.VERIFIED if verified else 0)
    for name in ("open", "high", "low", "close"):
        rows[name] = 100
    return rows


def test_what_is_too_young_is_undecided_and_what_later_rows_prove_is_extra() -> None:
    now_ms = T0 + 9 * MINUTE_MS
    ours = minutes([0, 1, 2, 3, 4])
    verdict = judge(MINUTE, ours, minutes([0, 1, 3]), (), now_ms)
    assert [(flaw.kind, flaw.open_ms) for flaw in verdict.flaws] == [(Kind.EXTRA, T0 + 2 * MINUTE_MS)]
    assert (verdict.equal_verified, verdict.undecided) == (3, 1)
    later = judge(MINUTE, ours, minutes([0, 1, 3]), (), now_ms + 6 * MINUTE_MS)
    assert [flaw.open_ms for flaw in later.flaws] == [T0 + 2 * MINUTE_MS, T0 + 4 * MINUTE_MS]


def test_an_unmatched_candle_is_right_until_the_exchange_has_it() -> None:
    ours = minutes([0, 1, 2], origin=Origin.UNMATCHED, verified=False)
    verdict = judge(MINUTE, ours, minutes([1]), (), T0 + HOUR_MS)
    assert verdict.unmatched == 2
    assert [(flaw.kind, flaw.open_ms) for flaw in verdict.flaws] == [(Kind.UNMATCHED_THERE, T0 + MINUTE_MS)]


def test_pieces_cover_a_range_once_and_never_more_than_their_bound() -> None:
    coverage = Coverage(1, MINUTE, T0, T0 + 12_345 * MINUTE_MS)
    found = sorted((piece.start_ms, piece.end_ms) for piece in pieces(coverage, -(1 << 62), 1 << 60))
    assert found[0][0] == coverage.start_ms
    assert found[-1][1] == coverage.end_ms
    assert all(one[1] == following[0] for one, following in pairwise(found))
    assert max(end - start for start, end in found) <= 5_000 * MINUTE_MS
    week = Coverage(1, BY_NAME["1w"], T0, T0 + 7 * 24 * HOUR_MS)
    assert [(one.start_ms, one.end_ms) for one in pieces(week, T0 + HOUR_MS, T0 + 8 * 24 * HOUR_MS)] == [
        (week.start_ms, week.end_ms)
    ]


def test_samples_are_the_same_for_the_same_seed_and_lie_within_what_is_held() -> None:
    held = [Coverage(n, interval, T0, T0 + 48 * HOUR_MS) for n in (1, 2) for interval in KEPT[:4]]
    one, same, other = (samples(Market.USDM, held, T0 + 40 * HOUR_MS, 1_000, random.Random(seed)) for seed in (1, 1, 2))
    assert one == same != other
    assert sum(piece.interval is MINUTE for piece in one) == 10
    assert all(T0 <= piece.start_ms < piece.end_ms <= T0 + 40 * HOUR_MS and not piece.whole for piece in one)
    assert {piece.weight(Market.USDM) for piece in one} == {1}


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[Market, Exchange]]:
    path = tmp_path_factory.mktemp("clean") / "klagg.db"
    content, markets = planted_clean()
    path.write_bytes(content)
    return path, markets


@pytest.fixture
def db(clean: tuple[Path, dict[Market, Exchange]], tmp_path: Path) -> Path:
    copy = tmp_path / "klagg.db"
    copy.write_bytes(clean[0].read_bytes())
    return copy


@pytest.fixture
def usdm(clean: tuple[Path, dict[Market, Exchange]]) -> Exchange:
    return clean[1][Market.USDM]


def change(db: Path, *statements: str) -> None:
    with sqlite3.connect(db) as connection:
        for statement in statements:
            assert connection.execute(statement).rowcount > 0
    connection.close()


async def audit(db: Path, exchange: Exchange, plan: AuditPlan) -> Report:
    thread = StoreThread(open_store(str(db), mode="write" if plan.repair else "read"))
    try:
        held = {one.id: one for one in await thread.call(thread.store.instruments, exchange.market)}
        return await audit_store(exchange.market, exchange, thread, held, plan, lambda: NOW)  # type: ignore[arg-type]
    finally:
        await thread.close()


AT = UPTO - 90 * MINUTE_MS


async def test_a_verified_candle_that_is_wrong_gives_way_with_the_next_revision(db: Path, usdm: Exchange) -> None:
    change(db, f"UPDATE candle SET high = high + 700, trades = trades + 1 WHERE {row(BTC, '1m', AT)} AND verified = 1")
    found = await audit(db, usdm, AuditPlan(sample=0))
    (finding,) = found.findings
    assert (finding.kind, finding.symbol, finding.open_ms) == (Kind.VERIFIED_DIFFERS, BTC, AT)
    assert set(finding.fields) == {"high", "trades"}
    ours, theirs = finding.fields["high"]
    assert Decimal(ours) - Decimal(theirs) == 7
    assert found.by_symbol == {BTC: {Kind.VERIFIED_DIFFERS: 1}}
    assert not found.ok
    repaired = await audit(db, usdm, AuditPlan(sample=0, repair=True))
    assert (repaired.ok, repaired.repaired, repaired.total) == (True, 1, 1)
    store = open_store(str(db), mode="read")
    number = next(one.id for one in store.instruments(Market.USDM) if one.instrument.symbol == BTC)
    assert store.revisions(number, MINUTE, AT, AT + MINUTE_MS).tolist() == [1]
    store.close()
    again = await audit(db, usdm, AuditPlan(sample=0))
    assert (again.ok, again.equal_unverified) == (True, 0)
    assert found.equal_unverified > repaired.verified > 0  # the others by the fold of what was verified


async def test_an_audit_moves_no_boundary_and_takes_no_claim(db: Path, usdm: Exchange) -> None:
    store = open_store(str(db), mode="read")
    before = store.closed_upto(Market.USDM), store.ownership(Market.USDM)
    change(db, f"DELETE FROM candle WHERE {series(BTC, '1m')} AND open_ms >= {AT}")
    report = await audit(db, usdm, AuditPlan(sample=0, repair=True))
    assert report.counts == {Kind.MISSING: 90}
    assert (store.closed_upto(Market.USDM), store.ownership(Market.USDM)) == before
    assert len(store.read(1, MINUTE, UPTO, UPTO + HOUR_MS)) == 0
    store.close()


async def test_ranges_and_intervals_narrow_it(db: Path, usdm: Exchange) -> None:
    change(db, f"UPDATE candle SET trades = trades + 1 WHERE {row(BTC, '1m', AT)} AND verified = 1")
    hours = (BY_NAME["1h"],)
    assert (await audit(db, usdm, AuditPlan(sample=0, intervals=hours))).ok
    assert (await audit(db, usdm, AuditPlan(end=str(AT)))).ok
    assert not (await audit(db, usdm, AuditPlan(start=str(AT), end=str(AT + MINUTE_MS)))).ok
    assert (await audit(db, usdm, AuditPlan(recent="45m", sample=0))).ok
    assert not (await audit(db, usdm, AuditPlan(recent="45m", sample=20_000))).ok


class Fickle:
    """An exchange that lies in its first answer about a symbol's minutes, or refuses a symbol, or is away."""

    def __init__(self, exchange: Exchange, **fails: Exception) -> None:
        self.market, self.budget, self._exchange, self._fails = exchange.market, exchange.budget, exchange, fails
        self.lied = 0

    async def klines(self, symbol: str, interval: object, **asked: int) -> Candles:
        if symbol in self._fails:
            raise self._fails[symbol]
        rows = await self._exchange.klines(symbol, interval, **asked)  # type: ignore[arg-type]
        if symbol == BTC and interval is MINUTE and not self.lied:
            self.lied += 1
            rows = np.delete(rows, 3)
            rows["trades"][7] += 1
        return rows


async def test_an_exchange_that_takes_its_word_back_accuses_nobody(db: Path, usdm: Exchange) -> None:
    fickle = Fickle(usdm)
    report = await audit(db, fickle, AuditPlan(start=str(T0), end=str(T0 + HOUR_MS), repair=True))  # type: ignore[arg-type]
    assert fickle.lied == 1
    assert (report.findings, report.undecided) == ([], 2)
    assert (await audit(db, usdm, AuditPlan(start=str(T0), end=str(T0 + HOUR_MS)))).ok


async def test_a_refused_symbol_is_named_and_the_others_go_on(db: Path, usdm: Exchange) -> None:
    refusal = RequestRejected("Invalid symbol.", http_status=400, code=-1121)
    report = await audit(db, Fickle(usdm, GONEUSDT=refusal), AuditPlan(start=str(T0), end=str(UPTO)))  # type: ignore[arg-type]
    assert report.refused_symbols == ["GONEUSDT"]
    assert report.compared > 2_000
    away = Fickle(usdm, **{BTC: ExchangeError("cannot be reached")})
    with pytest.raises(ExceptionGroup):
        await audit(db, away, AuditPlan(start=str(T0), end=str(LISTED)))  # type: ignore[arg-type]


async def test_what_a_service_is_told_is_what_was_repaired(db: Path, usdm: Exchange) -> None:
    change(db, f"UPDATE candle SET trades = trades + 1 WHERE {row(BTC, '1m', AT)} AND verified = 1")
    told: list[tuple[list[int], int]] = []
    found: list[Finding] = []

    async def take(ids: np.ndarray, candles: Candles, base_ids: np.ndarray, bases: Candles, upto_ms: int) -> None:
        told.append((candles["open_ms"].tolist(), upto_ms))

    thread = StoreThread(open_store(str(db), mode="write"))
    stored = {one.id: one for one in await thread.call(thread.store.instruments, Market.USDM)}
    number = next(one.id for one in stored.values() if one.instrument.symbol == BTC)
    auditor = Auditor(
        Market.USDM,
        usdm,  # type: ignore[arg-type]
        thread,
        Report(),
        now_ms=lambda: NOW,
        intervals=KEPT,
        repair=True,
        on_repaired=take,
        on_finding=found.append,
    )
    await auditor.audit(Piece(number, MINUTE, AT - HOUR_MS, AT + HOUR_MS), stored[number])
    await thread.close()
    assert [one.open_ms for one in found] == [AT]
    assert told[0] == ([AT], 0)
    assert told[1][1] == UPTO - 5 * MINUTE_MS  # the running week, from its days, hours and minutes


class Turns(ManualClock):
    """A clock whose sleeps end at once, and which ends the audit after so many of them."""

    def __init__(self, sleeps: int) -> None:
        super().__init__()
        self.left, self.slept = sleeps, 0.0

    async def sleep(self, seconds: float) -> None:
        self.left -= 1
        self.slept += seconds
        if self.left < 0:
            raise asyncio.CancelledError
        await asyncio.sleep(0)


@pytest.mark.parametrize("repair", [True, False])
async def test_the_audit_of_a_service_goes_round_the_market_at_its_share(
    db: Path, usdm: Exchange, repair: bool
) -> None:
    change(db, f"UPDATE candle SET trades = trades + 1 WHERE {row(BTC, '1m', UPTO - 30 * MINUTE_MS)} AND verified = 1")
    thread = StoreThread(open_store(str(db), mode="write"))
    stored = await thread.call(thread.store.instruments, Market.USDM)
    recent, clock = Recent(Market.USDM, lambda: NOW), Turns(60)
    running = ContinuousAudit(
        Market.USDM,
        usdm,  # type: ignore[arg-type]
        thread,
        lambda: {one.id: one.instrument for one in stored},
        intervals=KEPT,
        weight_share=0.02,
        repair=repair,
        now_ms=lambda: NOW - 29 * MINUTE_MS,
        clock=clock,
        recent=recent,
        ready=lambda: True,
    )
    with pytest.raises(asyncio.CancelledError):
        await running.run()
    await thread.close()
    stats = running.stats
    assert stats.last_run_ms == NOW - 29 * MINUTE_MS
    assert stats.checked > 1_000
    assert (stats.missing, stats.extra) == (0, 0)
    assert stats.differing >= 1
    assert stats.equal + stats.differing <= stats.checked
    assert (stats.differing, stats.repaired) == (1, 1) if repair else stats.repaired == 0
    assert recent.counts["audit.finding"] == stats.differing
    assert "verified_differs: BTCUSDT 1m" in recent.notes[0][2]
    weight = running._auditor.report.weight
    assert clock.slept == pytest.approx(weight / 48 * 60, rel=0.05)


async def test_a_share_of_nothing_is_no_audit(db: Path, usdm: Exchange) -> None:
    thread = StoreThread(open_store(str(db), mode="write"))
    audit = ContinuousAudit(
        Market.USDM,
        usdm,  # type: ignore[arg-type]
        thread,
        dict,
        intervals=KEPT,
        weight_share=0,
        repair=True,
        now_ms=lambda: NOW,
        clock=Turns(0),
        recent=Recent(Market.USDM, lambda: NOW),
        ready=lambda: True,
    )
    await audit.run()
    await thread.close()
    assert audit.stats == AuditStats()


def test_what_stands_in_the_way_is_one_line(db: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def error(*words: str) -> tuple[int, str]:
        code = main(["audit", *words])
        return code, capsys.readouterr().err.strip()

    assert error("--db", str(tmp_path / "none.db"))[1].endswith("or name another with --db")
    only_spot = tmp_path / "spot.db"
    store = open_store(str(only_spot), mode="create")
    store.close()
    code, line = error("--db", str(only_spot), "--market", "usdm")
    assert (code, "holds nothing of market usdm" in line) == (1, True)
    change(db, "DELETE FROM instrument WHERE market = 'usdm'")
    assert "it holds spot: choose by --market" in error("--db", str(db))[1]
    code, line = error("--db", str(db), "--market", "spot", "--symbols", "NONEUSDT")
    assert (code, line.count("\n")) == (2, 0)
    assert error("--start", "-1d", "--recent", "2h")[0] == 2
    assert error("--sample", "-1")[0] == 2
    with pytest.raises(NoCandles):
        audit_by_rest(Settings(db=str(only_spot)), AuditPlan())


async def test_an_interval_that_is_kept_no_more_is_not_expected_to_go_on(db: Path) -> None:
    store = open_store(str(db), mode="read")
    number = next(one.id for one in store.instruments(Market.USDM) if one.instrument.symbol == BTC)
    found = {
        one.interval.name: one.end_ms
        for one in covered(store, number, KEPT[:2], closed_upto_ms=UPTO, is_live=True, bound_ms=UPTO - 20 * MINUTE_MS)
    }
    store.close()
    assert found["1m"] == UPTO - 20 * MINUTE_MS
    assert found["5m"] == UPTO - 20 * MINUTE_MS
    assert found["1d"] == T0 + 24 * HOUR_MS
