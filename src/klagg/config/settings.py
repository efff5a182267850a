"""The settings of the service: one frozen dataclass, whose fields are what people write in `klagg.toml`."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from klagg.config import values
from klagg.errors import UsageError
from klagg.interval import DEFAULT_INTERVALS, Interval, parse_intervals
from klagg.model import VIRTUAL_SHARDS, Market

LogFormat = Literal["json", "console"]

DEFAULT_SERVE: Final = "127.0.0.1:8420"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a command is to do; built whole by `klagg.config.load`, or by hand, and valid once it exists.

    The fields are as written; the properties are what they mean.

    Raises:
        UsageError: a value is out of range or not understood.

    """

    db: Annotated[str, Meta(description="The database: a path, or sqlite:///relative.db, sqlite:////absolute.db.")] = (
        "klagg.db"
    )
    market: Annotated[tuple[str, ...], Meta(description="The markets: usdm, spot.")] = (Market.USDM.value,)
    symbols: Annotated[
        tuple[str, ...], Meta(description="The symbols: names, globs such as *USDT, ccxt's BTC/USDT:USDT, or all.")
    ] = (values.ALL,)
    intervals: Annotated[tuple[str, ...], Meta(description="The intervals kept; 1m is always among them.")] = tuple(
        interval.name for interval in DEFAULT_INTERVALS
    )
    rest_url: Annotated[
        tuple[str, ...], Meta(description="The exchange's REST base URL; spot=URL, usdm=URL when both markets run.")
    ] = ()
    ws_url: Annotated[
        tuple[str, ...],
        Meta(description="The exchange's WebSocket base URL; spot=URL, usdm=URL when both markets run."),
    ] = ()
    serve: Annotated[
        str | None,
        Meta(
            description="HOST:PORT where candles are served; klagg run and klagg serve use 127.0.0.1:8420; empty: none."
        ),
    ] = None
    serve_token: Annotated[
        str | None, Meta(description="The token that readers must send; needed where others can reach the address.")
    ] = None
    serve_open: Annotated[bool, Meta(description="Whether everybody who can reach the address may read.")] = False
    margin_ms: Annotated[
        int | str | None,
        Meta(description="Milliseconds a tick waits after its minute, or auto; default 10 on spot, auto on usdm."),
    ] = None
    history: Annotated[str, Meta(description="How far back the first start fills the history (2d, 12h, 0).")] = "2d"
    take_over: Annotated[bool, Meta(description="Take the database over from an owner whose lease is still fresh.")] = (
        False
    )
    log_format: Annotated[
        LogFormat | None, Meta(description="Logs as json or console; default console on a terminal, else json.")
    ] = None
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="The lowest level that is logged.")
    ] = "info"
    workers: Annotated[int, Meta(ge=1, le=VIRTUAL_SHARDS, description="Shards of symbols in this process.")] = 1
    memory_mib: Annotated[
        int, Meta(ge=1, le=65_536, description="MiB of candles that may wait for a database that does not take them.")
    ] = 64
    weight_share: Annotated[
        float, Meta(gt=0, le=1, description="Share of the request weight that backfill and repair may use.")
    ] = 0.5
    audit_weight_share: Annotated[
        float,
        Meta(ge=0, le=0.5, description="Share of the request weight for the audit that runs all the time; 0 for none."),
    ] = 0.02
    audit_repair: Annotated[
        bool, Meta(description="Whether the audit that runs all the time repairs what it finds.")
    ] = True
    stream_watchdog_s: Annotated[
        float, Meta(gt=0, le=3_600, description="Seconds of silence after which a stream connection is replaced.")
    ] = 30.0
    loop_watchdog_ms: Annotated[
        int, Meta(ge=10, le=60_000, description="A stall of the process longer than this counts as blindness.")
    ] = 1_000
    renew_hours: Annotated[
        float, Meta(gt=0, lt=24, description="Age in hours at which a stream connection is renewed; 24 is its life.")
    ] = 23.0
    clock_speed: Annotated[
        float,
        Meta(gt=0, le=10_000, description="Time runs this much faster: for an accelerated offline exchange only."),
    ] = 1.0

    def __post_init__(self) -> None:
        for name in NAMES:
            check(name, getattr(self, name))
        if not self.markets:
            raise UsageError("no market is given: use --market usdm, spot or usdm,spot")
        for market in self.markets:
            self.symbol_filter(market)
        _ = self.interval_set, self.rest_urls, self.ws_urls, self.history_ms
        if isinstance(self.margin_ms, int | str):
            values.parse_margin(self.margin_ms)
        if self.serve:
            values.parse_endpoint(self.serve)

    @property
    def markets(self) -> tuple[Market, ...]:
        """The markets, each once, in the order written."""
        return tuple(dict.fromkeys(values.parse_market(name) for name in values.split_list(self.market)))

    @property
    def one_market(self) -> Market:
        """The market of a command that works on one.

        Raises:
            UsageError: several are set.

        """
        if len(self.markets) != 1:
            raise UsageError(f"this command works on one market, not {', '.join(self.markets)}: choose by --market")
        return self.markets[0]

    def symbol_filter(self, market: Market) -> values.SymbolFilter:
        """Which symbols of a market are wanted."""
        return values.SymbolFilter.parse(self.symbols, market)

    @property
    def interval_set(self) -> tuple[Interval, ...]:
        """The intervals, shortest first, `1m` always among them."""
        return parse_intervals(values.split_list(self.intervals))

    @property
    def rest_urls(self) -> Mapping[Market, str]:
        """The REST base URLs that were set, by market."""
        return values.parse_urls(self.rest_url, self.markets, "rest_url", ("http", "https"))

    @property
    def ws_urls(self) -> Mapping[Market, str]:
        """The WebSocket base URLs that were set, by market."""
        return values.parse_urls(self.ws_url, self.markets, "ws_url", ("ws", "wss"))

    @property
    def history_ms(self) -> int:
        """The depth of the first backfill."""
        return values.parse_duration_ms(self.history)

    @property
    def margin(self) -> int | Literal["auto"] | None:
        """The margin as `klagg.clock.Margin.of` takes it: ms, `auto`, or None for the market's default."""
        if self.margin_ms is None:
            return None
        fixed_ms = values.parse_margin(self.margin_ms)
        return "auto" if fixed_ms is None else fixed_ms

    @property
    def memory_bytes(self) -> int:
        """The bound of what waits for the database."""
        return self.memory_mib * 2**20


NAMES: Final = tuple(field.name for field in fields(Settings))
TYPES: Final[Mapping[str, Any]] = {field.name: field.type for field in fields(Settings)}
DEFAULTS: Final[Mapping[str, Any]] = {field.name: field.default for field in fields(Settings)}
LISTS: Final = frozenset(name for name in NAMES if isinstance(DEFAULTS[name], tuple))
"""The settings that are lists; a file may give them as one string too."""


def check(name: str, value: object, *, lax: bool = False) -> object:
    """The value of one setting, converted to its type; `lax` reads numbers and booleans from text.

    Raises:
        UsageError: it is of another type or out of range.

    """
    try:
        return msgspec.convert(value, TYPES[name], strict=not lax)
    except msgspec.ValidationError as error:
        expected = str(error).partition(" - at ")[0].replace("`", "")
        raise UsageError(f"setting {name} = {value!r}: {expected[:1].lower()}{expected[1:]}") from None


def description(name: str) -> str:
    """What a setting is, in one line."""
    meta = next(extra for extra in TYPES[name].__metadata__ if isinstance(extra, Meta))
    assert meta.description is not None
    return meta.description


def json_schema() -> dict[str, Any]:
    """The JSON schema of `klagg.toml`."""
    (schema,), components = msgspec.json.schema_components([Settings])
    body: dict[str, Any] = components["Settings"]
    assert schema["$ref"].endswith("Settings")
    for name in LISTS:
        of_list = body["properties"][name]
        about = {key: of_list.pop(key) for key in ("description", "default") if key in of_list}
        body["properties"][name] = {"anyOf": [of_list, {"type": "string"}], **about}
    for name in ("rest_url", "ws_url"):
        body["properties"][name]["anyOf"].append({"type": "object", "additionalProperties": {"type": "string"}})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **body,
        "title": "klagg.toml",
        "description": "The settings of klagg.",
        "additionalProperties": False,
    }
