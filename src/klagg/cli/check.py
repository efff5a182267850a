"""`klagg check`."""

import json
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from klagg.cli.options import (
    AsJson,
    CommonDb,
    End,
    Intervals,
    Markets,
    Start,
    Symbols,
    flag,
    host_now_ms,
    load_settings,
)
from klagg.cli.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from klagg.check.report import Finding, Report
    from klagg.config import Settings
    from klagg.model import Market
    from klagg.service.mending import Mended
    from klagg.store import SqliteStore


def check(
    *,
    market: Markets = None,
    symbols: Symbols = None,
    intervals: Intervals = None,
    start: Start = None,
    end: End = None,
    repair: Annotated[
        bool,
        flag("--repair", help="Mend what needs no network, and mark the rest for klagg run or klagg audit --repair."),
    ] = False,
    json_: AsJson = False,
    common: CommonDb | None = None,
) -> int:
    """Check the continuity of the database without network: holes, misaligned opens, candles that contradict others.

    Exits 1 with a list if anything is wrong, or after --repair still is. Without --market every market of the database is
    checked, without --intervals every interval.
    """
    settings = load_settings(common, usual_level="error", market=market, symbols=symbols, intervals=intervals)
    from klagg.check import MAX_FINDINGS
    from klagg.check import check as check_store
    from klagg.config import parse_range_ms
    from klagg.model import Market
    from klagg.store import open_store

    start_ms, end_ms = parse_range_ms(start, end, host_now_ms())
    markets = tuple(Market) if market is None else settings.markets
    with closing(open_store(settings.db, mode="write" if repair else "read")) as store, progress_bar("symbols") as tell:
        wanted = None if symbols is None else _resolved(settings, store, markets)

        def run(limit: int) -> "Report":
            return check_store(
                store,
                markets[0] if len(markets) == 1 else None,
                wanted,
                None if intervals is None else settings.interval_set,
                start_ms,
                end_ms,
                limit=limit,
                progress=tell,
            )

        mended = None
        if repair:
            from klagg.service.mending import mend

            mended = mend(store, run, host_now_ms())
        report = run(MAX_FINDINGS) if mended is None else mended.left
    if json_:
        print(json.dumps((mended or report).as_dict(), indent=2))
    else:
        print("\n".join((*_lines(report), *(_mended_lines(mended) if mended is not None else ()))))
    return 0 if report.ok else 1


def _mended_lines(mended: "Mended") -> "Iterator[str]":
    yield f"found before: {mended.found.total + len(mended.found.malformed):,}"
    yield from mended.notes
    for name, count in sorted(mended.done.items()):
        if count:
            yield f"{name}: {count:,}"
    if mended.handed_over:
        yield "what was taken back, filled or put on record waits for the exchange: klagg run or klagg audit --repair settles it"


def _resolved(settings: "Settings", store: "SqliteStore", markets: "Sequence[Market]") -> set[str]:
    """The names that the filter means among those the database knows, of all the markets together."""
    from klagg.config import SymbolFilter

    known = [stored.instrument.symbol for market in markets for stored in store.instruments(market)]
    return set(SymbolFilter.parse(settings.symbols, markets[0]).resolve(known))


def _lines(report: "Report") -> "Iterator[str]":
    for finding in report.findings:
        yield _line(finding)
    if report.total > len(report.findings):
        yield f"… and {report.total - len(report.findings):,} more"
    for line in report.malformed:
        yield f"malformed: {line}"
    for gap in report.gaps:
        symbol = gap.symbol or "all symbols"
        yield f"gap on record: {gap.market.value} {symbol} {_time(gap.start_ms)} to {_time(gap.end_ms)}: {gap.reason}"
    found = [f"{count:,} {kind.value}" for kind, count in sorted(report.counts.items())]
    counts = ", ".join(found + ([f"{len(report.malformed):,} malformed"] if report.malformed else []))
    yield f"{report.series:,} series, {report.candles:,} candles, {report.parents_compared:,} compared with their minutes"
    yield f"wrong: {counts}" if counts else "nothing is wrong"


def _line(finding: "Finding") -> str:
    values = " ".join(f"{name}={value}" for name, value in finding.values.items())
    series = f"{finding.market.value} {finding.symbol} {finding.interval}"
    return f"{finding.kind.value}: {series} {_time(finding.open_ms)} {values}".rstrip()


def _time(t_ms: int) -> str:
    try:
        return datetime.fromtimestamp(t_ms / 1_000, UTC).strftime("%Y-%m-%dT%H:%MZ")
    except (ValueError, OverflowError):
        return f"{t_ms} ms"
