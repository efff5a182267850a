"""`klagg backfill`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from klagg.cli.options import (
    AsJson,
    CommonDb,
    End,
    Intervals,
    Market1,
    RestUrl,
    Start,
    Symbols,
    host_now_ms,
    list_option,
    load_settings,
    market_flag,
)
from klagg.cli.progress import progress_bar
from klagg.errors import UsageError

if TYPE_CHECKING:
    from klagg.backfill import BackfillSummary, FileSummary
    from klagg.config import Settings


def backfill(
    *,
    symbols: Symbols = None,
    intervals: Intervals = None,
    start: Start = None,
    end: End = None,
    from_: Annotated[
        list[str] | None,
        list_option("--from", help="rest, or archive files of klines (csv, zip, gz, zst). [default: rest]"),
    ] = None,
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
    if from_ is None or from_ == ["rest"]:
        return _by_rest(settings, start or f"-{settings.history}", end, as_json=json_)
    return _from_files(settings, [Path(name) for name in from_], start, end, as_json=json_)


def _by_rest(settings: "Settings", start: str, end: str | None, *, as_json: bool) -> int:
    from klagg.config import parse_range_ms
    from klagg.service.history import backfill_by_rest

    parse_range_ms(start, end, host_now_ms())  # what is no time is said before anything is connected
    with progress_bar("history (days of symbols)") as tell:

        def progress(done: int, total: int, weight_per_min: float, left_s: float) -> None:
            if tell is not None:
                tell(done, total, f"about {left_s / 60:.0f} min at {weight_per_min:.0f} weight/min")

        summary: BackfillSummary = backfill_by_rest(settings, start, end, progress)
    if as_json:
        print(json.dumps(asdict(summary)))
        return 0
    print(f"candles written     {summary.written:,} ({summary.changed:,} changed what was there)")
    print(f"candles folded      {summary.folded:,}")
    print(f"unmatched minutes   {summary.unmatched:,}")
    print(f"days of symbols     {summary.requested_days:,} fetched, {summary.skipped_days:,} were there already")
    if summary.refused_symbols:
        print(f"refused symbols     {', '.join(summary.refused_symbols)}")
    return 1 if summary.refused_symbols else 0


def _from_files(settings: "Settings", files: list[Path], start: str | None, end: str | None, *, as_json: bool) -> int:
    if start is not None or end is not None:
        raise UsageError("--start and --end are for --from rest: archive files are read whole")
    for file in files:
        if not file.is_file():
            raise UsageError(f"--from {file}: there is no such file (or write --from rest)")
    from klagg.service.history import backfill_from_files

    names = [name for name in settings.symbols if name != "all"]
    symbol = names[0] if len(names) == 1 else None
    if symbol is not None:
        from klagg.config import parse_symbol

        symbol = parse_symbol(symbol, settings.one_market)
    summary: FileSummary = backfill_from_files(settings, files, symbol, host_now_ms())
    if as_json:
        print(json.dumps(asdict(summary)))
        return 0
    print(f"files               {summary.files:,}")
    print(f"rows                {summary.rows:,} ({summary.off_grid:,} off the grid left out)")
    print(f"candles written     {summary.written:,}")
    print(f"candles folded      {summary.folded:,}")
    return 0
