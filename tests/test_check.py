"""Check: nothing in a clean database, and every planted defect found, named and placed."""

import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klagg import fixed
from klagg.archive import read_klines
from klagg.check import Kind, Report, check
from klagg.check.folding import SUMS, at_scale, fold
from klagg.engine.fold import fold as engine_fold
from klagg.errors import UsageError
from klagg.interval import BY_NAME, HOUR_MS, INTERVALS, MINUTE, MINUTE_MS, Interval
from klagg.model import VIRTUAL_SHARDS, Candles, Flag, Gap, Instrument, Market, Origin, Status, no_candles
from klagg.store import Commit, open_store

SEPTEMBER = 1_725_148_800_000
"""2024-09-01, a Sunday."""
MINUTES = 30 * 1_440
BTC = "ALGOUSDT"


@pytest.fixture(scope="module")
def month(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the exchange's own minutes of September 2024 and every longer interval folded from them."""
    path = tmp_path_factory.mktemp("month") / "klagg.db"
    store = open_store(str(path), mode="create")
    ids = store.put_instruments([Instrument(Market.USDM, BTC, Status.TRADING, 4, 1)], SEPTEMBER)
    minutes = np.concatenate(list(read_klines(shared_data / "usdm_ALGOUSDT-1m-2024-09.csv.gz")))
    for interval in INTERVALS:
        candles = minutes
        if interval is not MINUTE:
            folded = engine_fold(minutes, interval)
            whole = [interval.next_open(open_ms) for open_ms in folded.candles["open_ms"].tolist()]
            candles = folded.candles[folded.upto_ms == whole]
        store.write(np.full(len(candles), ids[BTC]), candles)
    store.close()
    # One file, so that a test can copy it.
    sqlite3.connect(path).execute("PRAGMA journal_mode = DELETE").close()
    return path


@pytest.fixture
def db(month: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "copy.db"
    copy.write_bytes(month.read_bytes())
    return copy


def run(db: Path, *statements: str, **options: object) -> Report:
    with sqlite3.connect(db) as connection:
        for statement in statements:
            assert connection.execute(statement).rowcount > 0
    connection.close()
    store = open_store(str(db), mode="read")
    try:
        return check(store, **options)  # type: ignore[arg-type]
    finally:
        store.close()


def series(name: str) -> str:
    return f"series = (SELECT id * 16 + {BY_NAME[name].code} FROM instrument)"


def at(name: str, open_ms: int) -> str:
    return f"{series(name)} AND open_ms = {open_ms}"


def kinds(report: Report) -> list[tuple[str, str, int]]:
    """The findings of series; that a row was taken behind the store's back shows in its tally besides."""
    series = (found for found in report.findings if found.kind is not Kind.TALLY)
    return [(found.kind.value, found.interval.name, found.open_ms) for found in series]


def test_a_clean_month_has_no_findings(month: Path) -> None:
    report = run(month)
    assert (report.ok, report.findings, report.total) == (True, [], 0)
    assert report.series == len(INTERVALS)
    # Every stored parent was compared: 3m 5m 15m 30m, 1h … 12h, 1d, and the whole 3d, weeks and month.
    whole = [30 * 1_440 // n for n in (3, 5, 15, 30, 60, 120, 240, 360, 480, 720, 1_440)]
    assert report.parents_compared == sum(whole) + 9 + 4 + 1
    assert report.candles == MINUTES + report.parents_compared


HOUR = SEPTEMBER + 100 * HOUR_MS
FLAT = "trades = 0 AND open_ms > (SELECT min(open_ms) FROM candle)"


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (f"DELETE FROM candle WHERE {at('1m', HOUR)}", [("hole", "1m", HOUR)]),
        (
            f"DELETE FROM candle WHERE {at('1w', SEPTEMBER + 8 * 24 * HOUR_MS)}",
            [("hole", "1w", SEPTEMBER + 8 * 24 * HOUR_MS)],
        ),
        (f"UPDATE candle SET high = 1 WHERE {at('1h', HOUR)}", [("prices", "1h", HOUR)]),
        (f"UPDATE candle SET low = high + 1 WHERE {at('1m', HOUR)}", [("prices", "1m", HOUR)]),
        (f"UPDATE candle SET low = 0 WHERE {at('1d', SEPTEMBER)}", [("prices", "1d", SEPTEMBER)]),
        (f"UPDATE candle SET volume_lo = -5 WHERE {at('4h', SEPTEMBER)}", [("volumes", "4h", SEPTEMBER)]),
        (
            f"UPDATE candle SET volume_lo = 1000000000000000000 WHERE {at('4h', SEPTEMBER)}",
            [("volumes", "4h", SEPTEMBER)],
        ),
        (f"UPDATE candle SET taker_volume_lo = volume_lo + 1 WHERE {at('1m', HOUR)}", [("volumes", "1m", HOUR)]),
        (f"UPDATE candle SET trades = 0 WHERE {at('1m', HOUR)}", [("volumes", "1m", HOUR), ("flat", "1m", HOUR)]),
        (f"UPDATE candle SET trades = -1 WHERE {at('1h', HOUR)}", [("volumes", "1h", HOUR)]),
        (f"UPDATE candle SET price_scale = 44 WHERE {at('1h', HOUR)}", [("scale", "1h", HOUR)]),
        (f"UPDATE candle SET trades = trades + 1 WHERE {at('1h', HOUR)}", [("parent", "1h", HOUR)]),
        (f"UPDATE candle SET quote_lo = quote_lo - 1 WHERE {at('1M', SEPTEMBER)}", [("parent", "1M", SEPTEMBER)]),
        (f"UPDATE candle SET open = high, close = low WHERE {at('1d', SEPTEMBER)}", [("parent", "1d", SEPTEMBER)]),
        (
            f"UPDATE candle SET high = high + 1 WHERE {at('3d', SEPTEMBER + 2 * 24 * HOUR_MS)}",
            [("parent", "3d", SEPTEMBER + 2 * 24 * HOUR_MS)],
        ),
    ],
)
def test_a_planted_defect_is_found_and_placed(db: Path, statement: str, expected: list[tuple[str, str, int]]) -> None:
    report = run(db, statement)
    found = [one for one in kinds(report) if one[0] != "hole" or expected[0][0] == "hole"]
    assert set(expected) <= set(found)
    # A defect of a minute may show in nothing else: its parents are not compared, it is no longer fit to be folded.
    assert len(found) == len(expected)
    assert not report.ok


def test_a_changed_minute_shows_in_every_parent_of_it(db: Path) -> None:
    report = run(db, f"UPDATE candle SET trades = trades + 1 WHERE {at('1m', HOUR)}")
    assert Counter(kind for kind, _, _ in kinds(report)) == {"parent": 14}
    assert {interval for _, interval, _ in kinds(report)} == {interval.name for interval in INTERVALS[1:]}
    one = next(found for found in report.findings if found.interval.name == "1h")
    assert set(one.values) == {"trades", "trades_of_minutes"}
    assert int(one.values["trades_of_minutes"]) == int(one.values["trades"]) + 1


def test_a_misaligned_candle_and_the_hole_it_leaves(db: Path) -> None:
    report = run(db, f"UPDATE candle SET open_ms = open_ms + 1000 WHERE {at('1m', HOUR)}")
    assert set(kinds(report)) == {("misaligned", "1m", HOUR + 1_000), ("hole", "1m", HOUR)}


def test_flat_candles_continue_the_previous_close(db: Path) -> None:
    (flat_ms,) = (
        sqlite3.connect(db).execute(f"SELECT min(open_ms) FROM candle WHERE {series('1m')} AND {FLAT}").fetchone()
    )
    before_ms = flat_ms - MINUTE_MS
    report = run(
        db,
        f"UPDATE candle SET open = open + 1, high = high + 1, low = low + 1, close = close + 1 WHERE {at('1m', flat_ms)}",
        intervals=[MINUTE],
    )
    found = report.findings[0]
    assert (found.kind, found.open_ms) == (Kind.FLAT, flat_ms)
    assert found.values["previous_close"] != found.values["open"]
    assert before_ms not in {found.open_ms for found in report.findings}


def test_a_hole_tells_how_many_and_until_when(db: Path) -> None:
    report = run(db, f"DELETE FROM candle WHERE {series('1m')} AND open_ms >= {HOUR} AND open_ms < {HOUR + 600_000}")
    found, tally = report.findings
    assert tally.kind is Kind.TALLY
    assert found.values == {"missing": 10, "until_ms": HOUR + 600_000}


def test_ranges_symbols_and_intervals_narrow_the_check(db: Path) -> None:
    statement = f"DELETE FROM candle WHERE {at('1m', HOUR)}"
    assert run(db, statement, end_ms=HOUR).ok
    assert run(db, start_ms=HOUR + MINUTE_MS).ok
    assert run(db, intervals=[BY_NAME["1h"]]).ok
    assert run(db, market=Market.SPOT).series == 0
    assert not run(db, symbols=[BTC]).ok
    with pytest.raises(UsageError, match="unknown symbols X"):
        run(db, symbols=["X"])
    with pytest.raises(UsageError, match="range is empty"):
        run(db, start_ms=5, end_ms=5)


def test_findings_are_bounded_and_all_are_counted(db: Path) -> None:
    report = run(db, f"UPDATE candle SET high = 1 WHERE {series('1m')}", limit=7)
    assert (len(report.findings), report.counts[Kind.PRICES]) == (7, MINUTES)
    plain = report.as_dict()
    assert (plain["ok"], len(plain["findings"])) == (False, 7)
    # The 446 candles without trades are besides no longer flat.
    assert (plain["total"], plain["counts"]) == (MINUTES + 446, {"flat": 446, "prices": MINUTES})
    assert plain["findings"][0]["interval"] == "1m"


class Live:
    """A store that ran live: five closed minutes, an open snapshot, `closed_upto` after them."""

    def __init__(self, path: Path) -> None:
        self.store = open_store(str(path), mode="create")
        listed = Instrument(Market.USDM, "X", Status.TRADING, 2, 3, listed_ms=SEPTEMBER)
        self.instrument = listed
        self.id = self.store.put_instruments([listed], SEPTEMBER)["X"]
        self.claim = self.store.claim(Market.USDM, owner="test", now_ms=SEPTEMBER)

    def commit(self, first: int, count: int, upto: int, gaps: tuple[Gap, ...] = ()) -> None:
        candles = no_candles(count + 1)
        candles["open_ms"] = SEPTEMBER + (first + np.arange(count + 1)) * MINUTE_MS
        candles["open_ms"][-1] = SEPTEMBER + upto * MINUTE_MS
        for name in ("open", "high", "low", "close"):
            candles[name] = 100
        candles["price_scale"], candles["qty_scale"], candles["origin"] = 2, 3, Origin.FLAT
        candles["first_id"] = candles["last_id"] = -1
        candles["flags"][:-1] = Flag.CLOSED
        ids = np.full(count + 1, self.id)
        self.store.commit(
            Commit(self.claim, range(VIRTUAL_SHARDS), SEPTEMBER + upto * MINUTE_MS, ids, candles, gaps=gaps)
        )


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    opened = Live(tmp_path / "live.db")
    yield opened
    opened.store.close()


def test_a_live_series_reaches_what_is_closed(live: Live) -> None:
    live.commit(0, 5, 5)
    assert check(live.store).ok
    live.commit(5, 2, 10)
    report = check(live.store)
    assert kinds(report) == [("hole", "1m", SEPTEMBER + 7 * MINUTE_MS)]
    assert report.findings[0].values["missing"] == 3
    assert check(live.store, end_ms=SEPTEMBER + 6 * MINUTE_MS).ok


def test_between_two_listings_nothing_is_missing(live: Live) -> None:
    live.commit(0, 5, 5)
    retired = Instrument(Market.USDM, "X", Status.RETIRED, 2, 3, listed_ms=SEPTEMBER)
    live.store.put_instruments([retired], SEPTEMBER + 4 * MINUTE_MS + 30_000)
    live.commit(5, 0, 20)
    assert check(live.store).ok
    listed = SEPTEMBER + 30 * MINUTE_MS
    again = Instrument(Market.USDM, "X", Status.TRADING, 2, 3, listed_ms=listed)
    live.store.put_instruments([again], listed)
    live.commit(30, 5, 35)
    assert check(live.store).ok
    live.commit(36, 1, 37)
    assert kinds(check(live.store)) == [("hole", "1m", SEPTEMBER + 35 * MINUTE_MS)]


def test_gaps_on_record_are_listed_and_are_no_findings(live: Live) -> None:
    gap = Gap(Market.USDM, "", SEPTEMBER, SEPTEMBER + MINUTE_MS, "full")
    live.commit(0, 5, 5, (gap,))
    report = check(live.store)
    assert (report.ok, report.gaps) == (True, [gap])
    assert report.as_dict()["gaps"][0]["reason"] == "full"
    assert check(live.store, start_ms=SEPTEMBER + MINUTE_MS).gaps == []


def test_a_finding_that_a_second_reading_does_not_confirm_is_dropped(db: Path) -> None:
    store = open_store(str(db), mode="read")

    class Amending:
        """A store whose hour is written between the first reading and the second."""

        reads = 0

        def __getattr__(self, name: str) -> object:
            return getattr(store, name)

        def read_raw(
            self, instrument_id: int, interval: Interval, start_ms: int, *rest: object, **more: object
        ) -> Candles:
            candles = store.read_raw(instrument_id, interval, start_ms, *rest, **more)  # type: ignore[arg-type]
            if interval.name == "1h" and len(candles) > 1:
                candles["trades"][0] += 1
                self.reads += 1
            return candles

    amending = Amending()
    assert check(amending).ok  # type: ignore[arg-type]
    assert amending.reads > 0
    store.close()


numbers = st.integers(0, 10**20)
rows = st.lists(
    st.tuples(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(0, 3), *[numbers] * 4), min_size=1, max_size=12
)


def _candles(values: list[tuple[int, ...]]) -> Candles:
    candles = no_candles(len(values))
    for index, (open_, close, trades, *sums) in enumerate(values):
        candles["open_ms"][index] = SEPTEMBER + index * MINUTE_MS
        candles["open"][index], candles["close"][index], candles["trades"][index] = open_, close, trades
        candles["high"][index], candles["low"][index] = max(open_, close) + 1, min(open_, close)
        for name, value in zip(SUMS, sums, strict=True):
            candles[f"{name}_hi"][index], candles[f"{name}_lo"][index] = fixed.split(value)
    return candles


@given(rows)
def test_fold_adds_as_whole_numbers_do(values: list[tuple[int, ...]]) -> None:
    folds = fold(_candles(values), np.ones(len(values), np.int64), BY_NAME["5m"])
    for index, row in enumerate(folds.candles):
        group = values[index * 5 : index * 5 + 5]
        traded = [one for one in group if one[2]] or [(group[-1][1], group[-1][1], 0)]
        assert folds.minutes[index] == len(group)
        assert (row["open"], row["close"]) == (traded[0][0], traded[-1][1])
        if traded[0][2]:
            assert row["high"] == max(max(one[:2]) + 1 for one in traded)
            assert row["low"] == min(min(one[:2]) for one in traded)
        assert row["trades"] == sum(one[2] for one in group)
        for position, name in enumerate(SUMS):
            assert fixed.join(int(row[f"{name}_hi"]), int(row[f"{name}_lo"])) == sum(one[3 + position] for one in group)


@given(rows, st.integers(0, 10), st.integers(0, 18))
def test_at_scale_multiplies(values: list[tuple[int, ...]], price_scale: int, qty_scale: int) -> None:
    scaled, fits = at_scale(_candles(values), price_scale, qty_scale)
    for row, fit, value in zip(scaled, fits, values, strict=True):
        digits = {"volume": qty_scale, "quote": price_scale + qty_scale}
        for name, plain in zip(SUMS, value[3:], strict=True):
            exact = plain * 10 ** digits[name.removeprefix("taker_")]
            if fit:
                assert fixed.join(int(row[f"{name}_hi"]), int(row[f"{name}_lo"])) == exact
            else:
                assert max(value[3:]) * 10 ** (price_scale + qty_scale) >= 10**36 or price_scale > 11
