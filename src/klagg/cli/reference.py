"""The reference of the command line, `docs/CLI.md`, made from the commands themselves.

python -m klagg.cli.reference > docs/CLI.md
"""

import inspect
import re
import sys
from collections.abc import Iterator

from cyclopts import App

from klagg.cli.app import app

HEAD = """# The command line

Made by `python -m klagg.cli.reference`; do not edit.

Settings come from flags, then `KLAGG_*` environment variables (`KLAGG_DB`, `KLAGG_SYMBOLS`, …), then `klagg.toml`; `klagg
config show` tells which. Lists are written with commas, with several words, or by repeating the option.

Commands exit 0 on success, 1 on failure, 2 on wrong usage (with one line on stderr that says what, where and what to do),
130 after Ctrl-C. Data goes to stdout, everything else to stderr. `KLAGG_DEBUG=1` adds a traceback.

Shell completion: `klagg install-completion` (bash, zsh, fish)."""


def reference() -> str:
    """The whole page."""
    parts = [HEAD]
    for path, command in commands():
        parts.append(f"## {path}\n\n{_about(command)}\n\n{_options(command)}".rstrip())
    return "\n\n".join(parts) + "\n"


def commands() -> Iterator[tuple[str, App]]:
    """Every command that does something, with its path (`klagg config show`)."""
    for name in app:
        if name.startswith("-"):
            continue
        command = app[name]
        if not command.show:
            continue
        below = [inner for inner in command if not inner.startswith("-")]
        if not below:
            yield f"klagg {name}", command
        for inner in below:
            yield f"klagg {name} {inner}", command[inner]


def option_rows(command: App) -> list[tuple[str, str]]:
    """The names and the help of each option and argument of a command."""
    rows = []
    for argument in command.assemble_argument_collection(parse_docstring=True):
        if not argument.show or not argument.parse:
            continue
        names = ", ".join(f"`{name}`" for name in argument.names)
        text = argument.parameter.help or ""
        default = argument.field_info.default
        if default not in (None, inspect.Parameter.empty, False) and "[default:" not in text and not argument.required:
            text = f"{text} [default: {default}]"
        rows.append((names, f"{text} [required]" if argument.required else text))
    return rows


def _about(command: App) -> str:
    return re.sub(r"\s*\n\s*\n\s*", "\n\n", inspect.cleandoc(command.help or ""))


def _options(command: App) -> str:
    rows = option_rows(command)
    if not rows:
        return ""
    table = ["| option | |", "|---|---|", *(f"| {names} | {_cell(text)} |" for names, text in rows)]
    return "\n".join(table)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")


if __name__ == "__main__":
    sys.stdout.write(reference())
