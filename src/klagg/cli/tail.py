"""`klagg tail`."""

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, cast

from cyclopts import Parameter

from klagg.cli.options import AsJson, CommonDb, Market1, list_option, load_settings, market_flag

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.text import Text

    from klagg.client.events import Event, Kind


def tail(
    *,
    url: Annotated[
        str | None,
        Parameter(
            help="The address of a running klagg. [default: that of --serve, http://127.0.0.1:8420; --db reads a file instead]"
        ),
    ] = None,
    since: Annotated[
        int | None, Parameter(help="Begin after this sequence number; 0 is all that is kept. [default: from now on]")
    ] = None,
    symbols: Annotated[
        list[str] | None,
        list_option("--symbols", "--symbol", help="Only events of these: names, globs, ccxt's names. [default: all]"),
    ] = None,
    intervals: Annotated[
        list[str] | None,
        list_option("--intervals", "--interval", help="Only candles of these intervals. [default: all]"),
    ] = None,
    kinds: Annotated[
        list[str] | None,
        list_option(
            "--kinds",
            help="Only these: candle_closed, candle_revised, candle_verified, barrier_durable, barrier_verified, symbol_added, "
            "symbol_retired, gap. [default: all]",
        ),
    ] = None,
    market: Market1 = None,
    json_: AsJson = False,
    common: CommonDb | None = None,
) -> int:
    """Print what becomes durable, one line an event, until Ctrl-C: candles closed, revised and verified, barriers, symbols, gaps.

    A connection that breaks is opened again and nothing is lost; the last line tells with which --since to go on.
    """
    settings = load_settings(common, usual_level="error", market=market_flag(market))
    from klagg.client.events import KINDS
    from klagg.client.opening import open as open_reader
    from klagg.config import DEFAULT_SERVE, split_list
    from klagg.config.values import one_of

    wanted = cast("list[Kind]", [one_of(kind, KINDS, "kind of event") for kind in split_list(kinds or ())])
    target = settings.db if common is not None and common.db is not None and url is None else url
    reader = open_reader(
        target or f"http://{settings.serve or DEFAULT_SERVE}", market=market, token=settings.serve_token
    )
    feed = reader.feed(since, symbols=split_list(symbols or ()), intervals=split_list(intervals or ()), kinds=wanted)
    show = _show_json if json_ else _shown_by_rich()
    try:
        with reader:
            for event in feed:
                show(event)
    except KeyboardInterrupt:
        after = (
            "before the first event" if feed.seq is None else f"after event {feed.seq}: go on with --since {feed.seq}"
        )
        print(f"klagg tail: ended {after}", file=sys.stderr)
        from klagg.cli import EXIT_INTERRUPTED

        return EXIT_INTERRUPTED
    return 0


def _show_json(event: "Event") -> None:
    told = {name: value for name, value in asdict(event).items() if value is not None}
    print(json.dumps(told, ensure_ascii=False, separators=(",", ":")), flush=True)


def _shown_by_rich() -> "Callable[[Event], None]":
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)

    def show(event: "Event") -> None:
        console.print(line_of(event))

    return show


def line_of(event: "Event") -> "Text":
    """An event in one line: sequence number, time, what, of what."""
    from rich.text import Text

    from klagg.client.events import BarrierEvent, CandleEvent, CutEvent, GapEvent
    from klagg.export import iso

    if isinstance(event, CutEvent):
        return Text(
            f"{event.to_seq:>10}  events after {event.from_seq} are not there ({event.reason}): going on", style="red"
        )
    line = Text(f"{event.seq:>10}  {_clock(event.at_ms)}  {event.market:<4}  ", style="dim")
    style, word = _LOOK[event.kind]
    line.append(f"{word:<9} ", style=f"not dim {style}")
    match event:
        case CandleEvent():
            more = f" revision {event.revision}" if event.revision else ""
            more += " verified" if event.verified and event.kind != "candle_verified" else ""
            told = f"{event.symbol} {event.interval} {iso(event.open_time_ms)}{more}"
        case BarrierEvent():
            count = f"{event.unverified} unverified" if event.symbols is None else f"{event.symbols} symbols"
            told = f"{'durable' if event.kind == 'barrier_durable' else 'verified'} {iso(event.boundary_ms)}, {count}"
        case GapEvent():
            told = f"{event.symbol or 'all symbols'} {iso(event.start_ms)} to {iso(event.end_ms)}: {event.reason}"
        case _:
            told = event.symbol
    return line.append(told, style="not dim")


_LOOK = {
    "candle_closed": ("green", "closed"),
    "candle_revised": ("yellow", "revised"),
    "candle_verified": ("cyan", "verified"),
    "barrier_durable": ("bold blue", "barrier"),
    "barrier_verified": ("bold cyan", "barrier"),
    "symbol_added": ("magenta", "added"),
    "symbol_retired": ("magenta", "retired"),
    "gap": ("bold red", "gap"),
}


def _clock(at_ms: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%H:%M:%S")
