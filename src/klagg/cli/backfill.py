"""`klagg backfill`."""

import json
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final

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
    list_option,
    load_settings,
    market_flag,
)
from klagg.cli.progress import ProgressLines, progress_bar
from klagg.errors import UsageError

if TYPE_CHECKING:
    from klagg.backfill import BackfillSummary, Differences, FileSummary, Pace
    from klagg.config import Settings

PRINTED_DIFFERENCES: Final = 20


def backfill(
    *,
    symbols: Symbols = None,
    intervals: Intervals = None,
    start: Start = None,
    end: End = None,
    from_: Annotated[
        list[str] | None,
        list_option(
            "--from",
            help="rest, or files of klines, aggTrades and trades (also recordings; csv, jsonl, zip, gz, zst), folders, globs. "
            "[default: rest]",
        ),
    ] = None,
    again: Annotated[bool, flag("--again", help="Fetch also what is there already, and report what differs.")] = False,
    rest_url: RestUrl = None,
    json_: AsJson = False,
    market: Market1 = None,
    common: CommonDb | None = None,
) -> int:
    """Bring the exchange's history into the database; what is there already is not fetched again.

    Without --start it reaches as far back as the setting history says. Ctrl-C ends it; started again it goes on.
    """
    settings = load_settings(
        common, usual_level="error", market=market_flag(market), symbols=symbols, intervals=intervals, rest_url=rest_url
    )
    try:
        if from_ is None or from_ == ["rest"]:
            return _by_rest(settings, start or f"-{settings.history}", end, again=again, as_json=json_)
        if again:
            raise UsageError("--again is for --from rest: files are always compared with what is there")
        return _from_files(settings, from_, start, end, as_json=json_, insists=market is not None)
    except KeyboardInterrupt:
        print("klagg: interrupted: what was brought stays, and the same command goes on from there", file=sys.stderr)
        raise


def _by_rest(settings: "Settings", start: str, end: str | None, *, again: bool, as_json: bool) -> int:
    from klagg.config import parse_range_ms
    from klagg.service.history import backfill_by_rest

    parse_range_ms(start, end, host_now_ms())  # what is no time is said before anything is connected
    with progress_bar("history (days of symbols)") as tell:
        lines = ProgressLines(settings.log_level)

        def progress(pace: "Pace") -> None:
            if tell is not None:
                rates = f"{pace.candles_per_s:,.0f} candles/s, {pace.weight_per_min:,.0f} weight/min"
                tell(pace.done, pace.total, f"{rates}, about {pace.left_s / 60:.0f} min left")
            else:
                lines.tell(pace.done, pace.total, pace.candles_per_s, pace.weight_per_min, pace.left_s)

        summary: BackfillSummary = backfill_by_rest(settings, start, end, progress, again=again)
    if as_json:
        print(json.dumps(summary.report()))
        return 1 if summary.refused_symbols else 0
    report = summary.report()
    print(f"candles fetched     {summary.fetched:,} in {summary.seconds:.1f} s ({report['candles_per_s']:,} a second)")
    print(f"weight              {summary.weight:,} ({report['weight_per_min']:,} a minute)")
    print(f"candles written     {summary.written:,} ({summary.changed:,} changed what was there)")
    print(f"candles folded      {summary.folded:,}")
    print(f"filled minutes      {summary.filled:,}")
    print(f"unmatched minutes   {summary.unmatched:,}")
    print(f"days of symbols     {summary.requested_days:,} fetched, {summary.skipped_days:,} were there already")
    if summary.refused_symbols:
        print(f"refused symbols     {', '.join(summary.refused_symbols)}")
    _print_differences(summary.differences)
    return 1 if summary.refused_symbols else 0


def _from_files(
    settings: "Settings", names: list[str], start: str | None, end: str | None, *, as_json: bool, insists: bool
) -> int:
    if start is not None or end is not None:
        raise UsageError("--start and --end are for --from rest: archive files are read whole")
    from klagg.backfill import find_files
    from klagg.service.history import backfill_from_files

    files = find_files(names)
    started = time.perf_counter()
    with progress_bar("files") as tell:
        lines = ProgressLines(settings.log_level)

        def progress(done: int, total: int, so_far: "FileSummary") -> None:
            spent_s = time.perf_counter() - started
            rate = (so_far.rows + so_far.trades) / spent_s
            if tell is not None:
                tell(done, total, f"{so_far.written:,} candles written, {rate:,.0f} rows/s")
            else:
                lines.tell(done, total, rate, 0, spent_s / done * (total - done))

        summary = backfill_from_files(settings, files, host_now_ms(), progress, insists=insists)
    if as_json:
        print(json.dumps(summary.report()))
        return 0
    rate = (summary.rows + summary.trades) / summary.seconds if summary.seconds else 0
    print(f"files               {summary.files:,} ({summary.checksums:,} held to their checksum)")
    if summary.taken:
        print(f"taken as            {', '.join(f'{count:,} of {what}' for what, count in summary.taken.items())}")
    print(f"klines              {summary.rows:,} ({summary.off_grid:,} off the grid left out)")
    for count, what in (
        (summary.repeated, "rows told twice, taken once"),
        (summary.contradicting, "candles with different rows in one file: not verified until the exchange has spoken"),
        (
            summary.unproven,
            "last candles of files that may still have been running: not verified until the exchange has spoken",
        ),
        (summary.unproven_trades, "trades of unknown kind or amount: their minutes are not proven"),
        (summary.broken_minutes, "minutes left out that their seconds do not fill"),
    ):
        if count:
            print(f"                    {count:,} {what}")
    print(f"trades              {summary.trades:,}")
    print(f"rate                {rate:,.0f} rows a second, {summary.seconds:.1f} s")
    print(f"candles written     {summary.written:,}")
    print(f"  there already     {summary.equal:,} equal, {summary.refused:,} that the database knew better")
    print(f"candles folded      {summary.folded:,}")
    if summary.filled:
        print(f"minutes lacking     {summary.filled:,} between others, filled until the exchange is asked")
    for name, count in summary.passed_over.items():
        print(f"passed over         {count:,} {name}")
    if summary.other_symbols:
        print(f"passed over         {summary.other_symbols:,} files of other symbols")
    if summary.other_markets:
        print(f"passed over         {summary.other_markets:,} files whose path says another market")
    _print_differences(summary.differences)
    return 0


def _print_differences(differences: "Differences") -> None:
    if not differences.candles:
        return
    fields = ", ".join(f"{name} {count:,}" for name, count in differences.fields.items())
    print(f"differences         {differences.candles:,} candles ({fields})")
    for one in differences.named[:PRINTED_DIFFERENCES]:
        when = datetime.fromtimestamp(one.open_time / 1_000, UTC).strftime("%Y-%m-%dT%H:%MZ")
        print(
            f"  {one.symbol} {one.interval} {when} {one.field}: {one.stored} from {one.stored_from}, "
            f"{one.brought} from {one.brought_from}"
        )
    left = sum(differences.fields.values()) - PRINTED_DIFFERENCES
    if left > 0:
        print(f"  and {left:,} more: --json names the first {len(differences.named):,}")
