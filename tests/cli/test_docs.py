"""The reference names every command and option, and nothing that is not there."""

import re
from pathlib import Path

import pytest

from klagg.cli import main
from klagg.cli.reference import commands, option_rows, reference

PAGE = Path(__file__).parents[2] / "docs" / "CLI.md"
NAMED_IN_THE_DESIGN = {
    "run": "market symbols intervals db rest-url ws-url serve no-serve margin-ms history take-over log-format",
    "exchange": "port market symbols seed rate history replay faults",
    "replay": "market symbol intervals db",
    "backfill": "symbols intervals start end db market from",
    "check": "db market json",
    "export": "symbol interval start end format full out unmatched db market",
    "status": "json db market",
    "demo": "",
    "bench": "",
    "config init": "",
    "config show": "",
    "config schema": "",
}


def test_the_page_is_what_the_commands_say() -> None:
    assert PAGE.read_text("utf-8") == reference(), "run: python -m klagg.cli.reference > docs/CLI.md"


def test_every_option_is_explained() -> None:
    for path, command in commands():
        for names, text in option_rows(command):
            assert text.strip(), f"{path} {names} has no help"


def test_every_command_and_option_of_the_contract_is_there() -> None:
    there = {path.removeprefix("klagg "): command for path, command in commands()}
    assert NAMED_IN_THE_DESIGN.keys() <= there.keys()
    for name, options in NAMED_IN_THE_DESIGN.items():
        listed = " ".join(names for names, _ in option_rows(there[name]))
        for option in options.split():
            assert f"`--{option}`" in listed, f"klagg {name} --{option}"


def test_lists_take_the_singular_form_too() -> None:
    for path, command in commands():
        listed = " ".join(names for names, _ in option_rows(command))
        for plural in ("--symbols", "--intervals"):
            if f"`{plural}`" in listed and path not in {"klagg exchange", "klagg demo"}:
                assert f"`{plural[:-1]}`" in listed, f"{path} {plural}"


@pytest.mark.parametrize("path", [path for path, _ in commands()])
def test_help_shows_every_option(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = dict(commands())[path]
    assert main([*path.split()[1:], "--help"]) == 0
    shown = capsys.readouterr().out
    for names, _ in option_rows(command):
        for name in re.findall(r"`(--[a-z-]+)`", names):
            assert name in shown
