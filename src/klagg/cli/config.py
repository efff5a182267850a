"""`klagg config init|show|schema`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from klagg.cli.options import AsJson, flag
from klagg.errors import KlaggError, UsageError


def init(
    path: Annotated[Path, Parameter(help="The file to write.")] = Path("klagg.toml"),
    /,
    *,
    force: Annotated[bool, flag(help="Replace a file that is there.")] = False,
) -> int:
    """Write a settings file that names every setting with its default."""
    from klagg.config import example

    if path.exists() and not force:
        raise UsageError(f"{path} exists: name another file, or replace it with --force")
    try:
        path.write_text(example(), "utf-8")
    except OSError as error:
        raise KlaggError(f"{path} cannot be written: {error.strerror or error}") from None
    print(path)
    return 0


def show(
    *,
    json_: AsJson = False,
    config: Annotated[
        Path | None,
        Parameter(help="The settings file. [default: $KLAGG_CONFIG, or klagg.toml in the working directory]"),
    ] = None,
) -> int:
    """Show each setting, its value and where that came from."""
    from klagg.config import load

    loaded = load(config=config)
    values = asdict(loaded.settings)
    if values["serve_token"] is not None:
        values["serve_token"] = "(set)"  # noqa: S105 - what is shown in its place
    if json_:
        rows = {name: {"value": value, "source": loaded.sources[name]} for name, value in values.items()}
        print(json.dumps(rows, indent=2))
        return 0
    texts = {name: _text(value) for name, value in values.items()}
    names, widest = max(map(len, texts)), max(map(len, texts.values()))
    for name, text in texts.items():
        print(f"{name:{names}}  {text:{widest}}  {loaded.sources[name]}")
    return 0


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(value) or "-"
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def schema() -> int:
    """Print the JSON schema of klagg.toml."""
    from klagg.config import json_schema

    print(json.dumps(json_schema(), indent=2))
    return 0
