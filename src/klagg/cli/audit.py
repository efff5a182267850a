"""`klagg audit`."""

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from klagg.cli.options import (
    AsJson,
    CommonDb,
    End,
    Intervals,
    Market1,
    RestUrl,
    Start,
    Symbols,
    flag,
    host_now_ms,
    load_settings,
    market_flag,
)
from klagg.cli.progress import progress_bar
from klagg.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from klagg.audit import Finding, Report

SYMBOLS_SHOWN = 20


def audit(
    *,
    symbols: Symbols = None,
    intervals: Intervals = None,
    start: Start = None,
    end: End = None,
    recent: Annotated[
        str | None, Parameter(help="How far back, where neither --start nor --end is given. [default: 2h]")
    ] = None,
    sample: Annotated[
        int | None, Parameter(help="So many random older minutes besides; 0 for none. [default: 1000]")
    ] = None,
    seed: Annotated[int, Parameter(help="Which random minutes.")] = 0,
    repair: Annotated[bool, flag("--repair", help="Bring the exchange's candles into the database.")] = False,
    rest_url: RestUrl = None,
    json_: AsJson = False,
    market: Market1 = None,
    common: CommonDb | None = None,
) -> int:
    """Compare the database with the exchange's own candles, field by field.

    Recent candles and random older ones, or with --start and --end all of a range. Exits 1 with a list if anything is wrong,
    or after --repair still is. It runs beside a service, within half of the weight that backfill may use.
    """
    ranged = start is not None or end is not None
    if ranged and (recent is not None or sample is not None):
        raise UsageError("--recent and --sample choose candles where --start and --end do not: give one or the other")
    if sample is not None and sample < 0:
        raise UsageError(f"--sample {sample} is below zero")
    settings = load_settings(
        common, usual_level="error", market=market_flag(market), symbols=symbols, intervals=intervals, rest_url=rest_url
    )
    from klagg.config import parse_duration_ms, parse_range_ms
    from klagg.service.auditing import AuditPlan, audit_by_rest

    plan = AuditPlan(
        start=start,
        end=end,
        recent="2h" if recent is None else recent,
        sample=1_000 if sample is None else sample,
        seed=seed,
        intervals=None if intervals is None else settings.interval_set,
        repair=repair,
    )
    # What is no time is said before anything is connected.
    parse_range_ms(start, end, host_now_ms())
    parse_duration_ms(plan.recent)
    with progress_bar("audit (request weight)") as tell:
        report = audit_by_rest(settings, plan, tell)
    print(json.dumps(report.as_dict(), indent=2) if json_ else "\n".join(_lines(report, repair=repair)))
    return 0 if report.ok else 1


def _lines(report: "Report", *, repair: bool) -> "Iterator[str]":
    for finding in report.findings:
        yield _line(finding)
    if report.total > len(report.findings):
        yield f"… and {report.total - len(report.findings):,} more"
    worst = sorted(report.by_symbol.items(), key=lambda item: -item[1].total())
    for symbol, counts in worst[:SYMBOLS_SHOWN] if len(worst) > 1 else ():
        yield f"{symbol}: {', '.join(f'{count:,} {kind.value}' for kind, count in sorted(counts.items()))}"
    for symbol in sorted(set(report.refused_symbols)):
        yield f"not compared: the exchange refuses {symbol}"
    yield (
        f"{report.series:,} series, {report.compared:,} candles compared for {report.weight:,} of weight: "
        f"{report.equal_verified:,} verified and equal, {report.equal_unverified:,} equal and not yet verified, "
        f"{report.unmatched:,} on record as unmatched"
    )
    if report.undecided:
        yield f"{report.undecided:,} could not be told: too young, or the exchange gave two answers"
    found = ", ".join(f"{count:,} {kind.value}" for kind, count in sorted(report.counts.items()))
    yield f"wrong: {found}" if found else "nothing is wrong"
    if repair:
        yield f"repaired: {report.repaired:,} of {report.total:,}; {report.verified:,} equal ones marked verified"


def _line(finding: "Finding") -> str:
    values = " ".join(f"{name}={ours} (exchange: {theirs})" for name, (ours, theirs) in finding.fields.items())
    note = f"({finding.note})" if finding.note else ""
    series = f"{finding.market.value} {finding.symbol} {finding.interval}"
    return " ".join(f"{finding.kind.value}: {series} {_time(finding.open_ms)} {values} {note}".split())


def _time(t_ms: int) -> str:
    try:
        return datetime.fromtimestamp(t_ms / 1_000, UTC).strftime("%Y-%m-%dT%H:%MZ")
    except (ValueError, OverflowError):
        return f"{t_ms} ms"
