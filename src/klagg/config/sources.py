"""Where settings come from: flags, then `KLAGG_*` environment variables, then `klagg.toml`, then the defaults."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from klagg.config.settings import DEFAULT_SERVE, DEFAULTS, LISTS, NAMES, Settings, check, description
from klagg.config.values import nearest, split_list
from klagg.errors import UsageError

FILE_NAME: Final = "klagg.toml"
ENVIRONMENT_PREFIX: Final = "KLAGG_"
CONFIG_VARIABLE: Final = "KLAGG_CONFIG"


_EXAMPLES: Final[Mapping[str, object]] = {
    "rest_url": ("https://fapi.binance.com",),
    "ws_url": ("wss://fstream.binance.com",),
    "serve": DEFAULT_SERVE,
    "serve_token": "sixteen characters or more",
    "margin_ms": "auto",
    "log_format": "json",
}
"""What the written file shows for settings that have no default."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings and, for each, where its value came from (`default`, `klagg.toml`, `KLAGG_DB`, `--db`)."""

    settings: Settings
    sources: Mapping[str, str]


def load(
    flags: Mapping[str, object] | None = None,
    *,
    config: Path | None = None,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Loaded:
    """Settings from all their sources.

    `flags` holds what the command line gave (None: not given); `config` is a settings file named there. Without one,
    `KLAGG_CONFIG` or `klagg.toml` in `folder` (the working directory) is read. Other `KLAGG_*` variables than those of
    settings are left alone: container platforms set their own.

    Raises:
        UsageError: a value of the wrong type or out of range, an unknown setting in the file, an unreadable file.

    """
    environment = os.environ if environment is None else environment
    chosen: dict[str, Any] = dict(DEFAULTS)
    sources = dict.fromkeys(NAMES, "default")
    path = _file(config, environment, folder or Path())
    if path is not None:
        for name, value in _read(path).items():
            chosen[name], sources[name] = value, str(path)
    for name in NAMES:
        variable = ENVIRONMENT_PREFIX + name.upper()
        if environment.get(variable):
            chosen[name], sources[name] = _from_text(name, environment[variable], variable), variable
    for name, flag in (flags or {}).items():
        assert name in NAMES, name
        if flag is not None:
            chosen[name], sources[name] = flag, "--" + name.replace("_", "-")
    for name in LISTS:
        chosen[name] = tuple(chosen[name])
    return Loaded(_built(chosen, sources), sources)


def _built(chosen: Mapping[str, Any], sources: Mapping[str, str]) -> Settings:
    """The settings; an error is told with the sources that may be at fault, if they are not the command line."""
    try:
        return Settings(**chosen)
    except UsageError as error:
        others = sorted({source for source in sources.values() if source != "default" and not source.startswith("--")})
        where = f" (settings were read from {', '.join(others)})" if others else ""
        raise UsageError(f"{error}{where}") from None


def _file(config: Path | None, environment: Mapping[str, str], folder: Path) -> Path | None:
    named = config or (Path(environment[CONFIG_VARIABLE]) if environment.get(CONFIG_VARIABLE) else None)
    if named is not None:
        if not named.is_file():
            raise UsageError(f"settings file {named} does not exist: write one with klagg config init {named}")
        return named
    usual = folder / FILE_NAME
    return usual if usual.is_file() else None


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from None
    try:
        written = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # Not only TOML's own error: a number of thousands of digits, tables within tables without end.
        raise UsageError(f"{path}: not valid TOML: {error}") from None
    settings: dict[str, Any] = {}
    for key, value in written.items():
        name = key.replace("-", "_")
        if name not in NAMES:
            raise UsageError(f"{path}: unknown setting {key!r}{nearest(name, NAMES)}; klagg config schema lists them")
        settings[name] = _from_file(name, value, path)
    return settings


def _from_file(name: str, value: object, path: Path) -> object:
    if name in LISTS and isinstance(value, str):
        value = list(split_list([value]))
    if name in {"rest_url", "ws_url"} and isinstance(value, dict):
        value = [f"{market}={url}" for market, url in value.items()]
    try:
        return check(name, value)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def _from_text(name: str, text: str, variable: str) -> object:
    value: object = list(split_list([text])) if name in LISTS else text
    try:
        return check(name, value, lax=True)
    except UsageError as error:
        raise UsageError(f"environment variable {variable}: {error}") from None


def example() -> str:
    """A `klagg.toml` that names every setting, commented out, with its default or an example."""
    lines = ["# Settings of klagg. Flags and KLAGG_* environment variables come before this file."]
    for name in NAMES:
        value = DEFAULTS[name] or _EXAMPLES.get(name, DEFAULTS[name])
        lines += ["", f"# {description(name)}", f"# {name} = {_toml(value)}"]
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"'
    return str(value)
