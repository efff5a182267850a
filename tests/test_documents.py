"""What the documents say is so: links lead somewhere, commands exist, snippets run, the translation has kept up."""

import os
import re
import runpy
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest

from klagg.cli.reference import commands, option_rows
from klagg.config import Settings
from klagg.config.settings import NAMES
from klagg.model import Market
from klagg.service.demo import offline_exchange
from klagg.service.history import backfill_by_rest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)|<img[^>]* src=\"([^\"]+)\"")
COMMANDS = dict(commands())
READING = ("klagg status", "klagg export", "klagg check", "klagg config")
"""Commands that only read a database: the documents' calls of them are run."""


def blocks(page: Path, *languages: str) -> list[tuple[str, str]]:
    return [(language, text) for language, text in BLOCK.findall(page.read_text("utf-8")) if language in languages]


def shell_lines(page: Path) -> list[str]:
    text = "\n".join(text for _, text in blocks(page, "sh")).replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


# Links and pictures


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    found = [link or image for link, image in LINK.findall(page.read_text("utf-8"))]
    local = [target.partition("#")[0] for target in found if not target.startswith(("http:", "https:", "#"))]
    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("picture", sorted((ROOT / "docs" / "images").glob("*.svg")), ids=lambda path: path.name)
def test_pictures_load_nothing_from_elsewhere(picture: Path) -> None:
    text = picture.read_text("utf-8")
    assert not re.search(r"(url\(|href=|src=)['\"]?(https?:)?//|@import|@font-face|<script|<image", text)


# Commands


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_targets_and_options_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for line in shell_lines(page):
        words = [word for word in shlex.split(line, comments=True) if not re.fullmatch(r"[A-Z_]+=.*", word)]
        if words[:1] == ["make"]:
            assert set(words[1:]) <= targets, line
        if words[:1] == ["klagg"]:
            path = " ".join(words[:3]) if words[1] == "config" else " ".join(words[:2])
            assert path in COMMANDS, line
            known = {name for names, _ in option_rows(COMMANDS[path]) for name in re.findall(r"--[a-z-]+", names)}
            given = {word.partition("=")[0] for word in words if word.startswith("--")}
            assert given <= known, line


def test_the_readme_names_every_command() -> None:
    for name in ("README.md", "README.zh-CN.md"):
        text = (ROOT / name).read_text("utf-8")
        for path in COMMANDS:
            group = " ".join(path.split()[:2])
            assert path == "klagg install-completion" or f"`{group}" in text, f"{name}: {path}"


def test_operations_names_every_setting() -> None:
    text = (ROOT / "docs" / "OPERATIONS.md").read_text("utf-8")
    text = text.partition("## Settings")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z_]+)` \|", text, re.MULTILINE)) == set(NAMES)


def test_the_architecture_names_every_part() -> None:
    text = (ROOT / "docs" / "ARCHITECTURE.md").read_text("utf-8")
    parts = [path.stem for path in (ROOT / "src" / "klagg").iterdir() if path.suffix == ".py" or path.is_dir()]
    assert [part for part in parts if part.isidentifier() and part[0] != "_" and f"`{part}`" not in text] == []


def test_the_bounds_of_the_architecture_stand_in_the_code() -> None:
    text = (ROOT / "docs" / "ARCHITECTURE.md").read_text("utf-8")
    named = re.findall(r"`([a-z_]+)\.([A-Z_]+)`", text)
    assert len(named) > 10
    for module, constant in named:
        sources = [path.read_text("utf-8") for path in (ROOT / "src").rglob(f"{module}.py")]
        assert any(re.search(rf"^{constant}\b", source, re.MULTILINE) for source in sources), f"{module}.{constant}"


def test_the_guarantees_name_tests_that_exist() -> None:
    text = (ROOT / "docs" / "GUARANTEES.md").read_text("utf-8")
    named = re.findall(r"`((?:tests/)?[\w/]+?(?:\.py)?)(?:::(\w+))?`", text.partition("## The faults")[0])
    tests = [(path, name) for path, name in named if path.startswith("tests/") or name]
    assert len(tests) >= 30
    for path, name in tests:
        found = [ROOT / path] if path.startswith("tests/") else list((ROOT / "tests").rglob(path))
        assert any(one.exists() for one in found), path
        assert not name or any(f"def {name}(" in one.read_text("utf-8") for one in found), f"{path}::{name}"


# The translation


def test_the_translation_has_kept_up() -> None:
    english, chinese = ROOT / "README.md", ROOT / "README.zh-CN.md"
    languages = ("sh", "python", "sql")
    assert blocks(english, *languages) == blocks(chinese, *languages)
    counts = [
        [len(re.findall(pattern, page.read_text("utf-8"), re.MULTILINE)) for pattern in (r"^#+ ", r"^\|", r"^- ")]
        for page in (english, chinese)
    ]
    assert counts[0] == counts[1], "headings, rows of tables, or items of lists"
    links = [
        {link or image for link, image in LINK.findall(page.read_text("utf-8"))} - {"README.md", "README.zh-CN.md"}
        for page in (english, chinese)
    ]
    assert links[0] == links[1]


# Snippets


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a `klagg.db` of some hours of a made market."""
    folder = tmp_path_factory.mktemp("documents")
    with offline_exchange(Market.USDM, 3, 1) as (rest_url, _), inside(folder):
        backfill_by_rest(Settings(rest_url=(rest_url,), symbols=("BTCUSDT",)), "-6h", None)
    return folder


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_snippets_run(page: Path, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    snippets = [snippet for snippet in blocks(page, "sh", "sql", "python") if "INSTALL sqlite" not in snippet[1]]
    for language, text in snippets:
        with inside(folder):
            if language == "python":
                exec(compile(text, str(page), "exec"), {"__name__": "snippet"})
                assert capfd.readouterr().out.strip(), text
            elif language == "sql":
                with sqlite3.connect("klagg.db") as connection:
                    assert connection.execute(text).fetchall(), text
            else:
                run_shell(text)


def run_shell(text: str) -> None:
    """Run what only reads the database."""
    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith(READING):
            command = [sys.executable, "-m", "klagg.cli", *shlex.split(line, comments=True)[1:]]
        elif line.startswith("sqlite3") and shutil.which("sqlite3"):
            command = shlex.split(line)
        else:
            continue
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stderr}"


def test_duckdb_attaches_the_database(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    try:
        duckdb.connect(config={"autoinstall_known_extensions": False}).execute("LOAD sqlite")
    except duckdb.Error:
        pytest.skip("DuckDB's sqlite extension is not installed (it is downloaded separately)")
    (text,) = [text for _, text in blocks(ROOT / "docs" / "DATABASE.md", "python") if "INSTALL sqlite" in text]
    with inside(folder):
        exec(compile(text.replace("INSTALL sqlite; ", ""), "DATABASE.md", "exec"), {"__name__": "snippet"})
    assert "BTCUSDT" in capfd.readouterr().out


# Examples


@pytest.mark.parametrize(
    ("example", "arguments", "shown"),
    [
        ("read_with_pandas.py", ["klagg.db", "BTCUSDT", "1h"], "100.0% verified"),
        ("read_with_duckdb.py", ["klagg.db", "BTCUSDT", "45"], " 45\n"),
    ],
)
def test_examples_run(folder: Path, example: str, arguments: list[str], shown: str) -> None:
    command = [sys.executable, str(ROOT / "examples" / example), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=True)
    assert shown in done.stdout


def test_a_terminal_is_drawn_as_it_was_left(tmp_path: Path) -> None:
    """Lines that a live display has rewritten stand there once, and the picture loads nothing from elsewhere."""
    tool = ROOT / "examples" / "draw_terminal.py"
    screen = runpy.run_path(str(tool))["Screen"]()
    screen.feed("above\r\nold\r\n\x1b[1mold\x1b[0m\r\x1b[2K\x1b[1A\x1b[2Knew\r\n\x1b[1mlast\x1b[0m\r\n")
    assert screen.rows == ["above", "new", "\x1b[1mlast\x1b[0m", ""]
    picture = tmp_path / "terminal.svg"
    subprocess.run([sys.executable, str(tool), str(picture), "echo", "shown"], check=True)
    assert "$&#160;echo&#160;shown" in picture.read_text("utf-8")
    test_pictures_load_nothing_from_elsewhere(picture)
