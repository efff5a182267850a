"""Options that several commands share, and the settings made from them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Group, Parameter

if TYPE_CHECKING:
    from klagg.config import Settings

COMMON_GROUP = Group("Common options", sort_key=9)


def list_option(*names: str, help: str, consume: bool = True) -> Parameter:  # noqa: A002 - as cyclopts calls it
    """A list: with commas, by repeating the option and, where `consume`, as several words."""
    return Parameter(name=names, help=help, consume_multiple=consume, negative_iterable=())


def flag(*names: str, help: str) -> Parameter:  # noqa: A002 - as cyclopts calls it
    """A switch: off unless it is given."""
    return Parameter(name=names or None, help=help, negative="", show_default=False)


MARKET_HELP = "usdm or spot. [default: usdm]"
Market1 = Annotated[str | None, Parameter(help=MARKET_HELP)]
Markets = Annotated[
    list[str] | None, list_option("--market", help="usdm, spot, or usdm,spot for both. [default: usdm]")
]
SYMBOLS_HELP = "Names, globs such as '*USDT', ccxt's BTC/USDT:USDT, or all. [default: all]"
INTERVALS_HELP = (
    "Of 1m 3m 5m 15m 30m 1h 2h 4h 6h 8h 12h 1d 3d 1w 1M; 1m is always kept. [default: 1m 5m 30m 1h 4h 1d 1w]"
)
Symbols = Annotated[list[str] | None, list_option("--symbols", "--symbol", help=SYMBOLS_HELP)]
Intervals = Annotated[list[str] | None, list_option("--intervals", "--interval", help=INTERVALS_HELP)]
RestUrl = Annotated[
    list[str] | None,
    list_option("--rest-url", help="The exchange's REST base URL (spot=URL and usdm=URL for both markets)."),
]
WsUrl = Annotated[
    list[str] | None,
    list_option("--ws-url", help="The exchange's WebSocket base URL (spot=URL and usdm=URL for both markets)."),
]
Start = Annotated[
    str | None,
    Parameter(help="From when: ISO 8601 (UTC), milliseconds, -7d, today.", allow_leading_hyphen=True),
]
End = Annotated[
    str | None,
    Parameter(help="Until when, not included: as --start. [default: now]", allow_leading_hyphen=True),
]
Serve = Annotated[str | None, Parameter(help="HOST:PORT where the candles are served. [default: 127.0.0.1:8420]")]
ServeOpen = Annotated[
    bool,
    flag(
        "--serve-open",
        help="Everybody who can reach the address may read; else one that others can reach needs KLAGG_SERVE_TOKEN.",
    ),
]
AsJson = Annotated[bool, flag("--json", help="JSON on stdout.")]


@Parameter(name="*", group=COMMON_GROUP)
@dataclass(frozen=True, kw_only=True)
class Common:
    """What every command takes that reads settings."""

    config: Annotated[
        Path | None,
        Parameter(help="The settings file. [default: $KLAGG_CONFIG, or klagg.toml in the working directory]"),
    ] = None
    log_format: Annotated[
        Literal["json", "console"] | None,
        Parameter(help="How logs are written to stderr. [default: console on a terminal, else json]"),
    ] = None
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None,
        Parameter(
            help="The lowest level that is logged. [default: info; warning for demo, error where a command ends by itself]"
        ),
    ] = None


@Parameter(name="*", group=COMMON_GROUP)
@dataclass(frozen=True, kw_only=True)
class CommonDb(Common):
    """What every command takes that touches a database."""

    db: Annotated[str | None, Parameter(help="The database: a path, or sqlite:///relative.db. [default: klagg.db]")] = (
        None
    )


def load_settings(
    common: Common | None, *, usual_level: Literal["warning", "error"] | None = None, **flags: object
) -> "Settings":
    """The settings from the flags, the environment and the file; logging is set up by them.

    A command that itself says what happens logs from its `usual_level` on, unless a level is asked for.

    Raises:
        UsageError: a setting that is wrong, or not known.

    """
    from klagg import logs
    from klagg.config import load

    common = common or Common()
    named: dict[str, object] = {"log_format": common.log_format, "log_level": common.log_level}
    if isinstance(common, CommonDb):
        named["db"] = common.db
    loaded = load({**named, **_as_tuples(flags)}, config=common.config)
    settings = loaded.settings
    asked_for = loaded.sources["log_level"] != "default"
    logs.set_up(settings.log_format, settings.log_level if asked_for or usual_level is None else usual_level)
    return settings


def _as_tuples(flags: dict[str, object]) -> dict[str, object]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in flags.items()}


def market_flag(market: str | None) -> tuple[str, ...] | None:
    """The flag of a command that works on one market, as the setting."""
    return None if market is None else (market,)


def host_now_ms() -> int:
    """The host's wall clock, UTC ms: what `-7d` on a command line is counted from."""
    import time

    return time.time_ns() // 1_000_000
