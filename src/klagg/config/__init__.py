"""Frozen settings, where they come from, and how the values people write are read."""

from klagg.config.settings import DEFAULT_SERVE, LogFormat, Settings, json_schema
from klagg.config.sources import Loaded, example, load
from klagg.config.values import (
    SymbolFilter,
    parse_duration_ms,
    parse_endpoint,
    parse_market,
    parse_range_ms,
    parse_symbol,
    parse_time_ms,
    split_list,
)

__all__ = [
    "DEFAULT_SERVE",
    "Loaded",
    "LogFormat",
    "Settings",
    "SymbolFilter",
    "example",
    "json_schema",
    "load",
    "parse_duration_ms",
    "parse_endpoint",
    "parse_market",
    "parse_range_ms",
    "parse_symbol",
    "parse_time_ms",
    "split_list",
]
