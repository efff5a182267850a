"""The page: docs/PERFORMANCE.md, made from the measurements."""

import os
import platform
import sqlite3
import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.core import CHECKOUT, Figure, Measurement, Yardstick, number
from klagg import __version__

LIBRARIES = ("numpy", "numba", "nautilus_trader")
TITLE = "# Performance"
MISSING = "-"
INTRODUCTION = """
Made by `make bench`; do not edit. Each figure stands beside a peer (another tool doing the same work) or a limit (what the work cannot
be faster than here), measured in the same run: times move from machine to machine and from minute to minute, ratios much less. A value is
a median, unless it says p99. No test asserts a time.
"""


def page(figures: Sequence[Figure], measured: Sequence[Measurement], *, quick: bool) -> str:
    shown = [figure for figure in figures if any(m.id == figure.id for m in measured)]
    parts = [TITLE, INTRODUCTION.strip()]
    if quick:
        parts.append("**This run was `--quick`: it shows that the harness works, its figures mean little.**")
    parts += ["## Where", table(("", ""), where()), "## Goals", goals(measured)]
    for figure in shown:
        parts += [f"## {figure.id}: {figure.title}", " ".join(figure.how.split())]
        parts.append(details([m for m in measured if m.id == figure.id]))
    return "\n\n".join(parts) + "\n"


def where() -> list[tuple[str, str]]:
    rows = [
        ("date", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")),
        ("klagg", " ".join(filter(None, (__version__, commit())))),
        ("processor", f"{processor()}, {os.cpu_count()} logical cores"),
        ("other load when it began", LOAD_BEFORE),
        ("memory", memory()),
        ("system", f"{platform.system()} {platform.release()}, {platform.machine()}"),
        ("Python", f"{platform.python_implementation()} {platform.python_version()}"),
        ("SQLite", sqlite3.sqlite_version),
    ]
    return [*((name, value) for name, value in rows if value), *((name, installed(name)) for name in LIBRARIES)]


def goals(measured: Iterable[Measurement]) -> str:
    rows = [
        (
            m.id,
            m.name,
            m.goal.text(m.unit),
            MISSING if m.value is None else f"{number(m.value)} {m.unit}",
            against(m, m.peer),
            against(m, m.limit),
            verdict(m),
        )
        for m in measured
        if m.goal is not None
    ]
    return table(("", "figure", "goal", "measured", "peer", "limit", "verdict"), rows)


def details(measured: Iterable[Measurement]) -> str:
    rows = [
        (
            m.name,
            MISSING if m.value is None else f"{number(m.value)} {m.unit}",
            f"{number(m.spread[0])} to {number(m.spread[1])}" if m.spread else "",
            str(m.samples),
            against(m, m.peer),
            against(m, m.limit),
            m.note,
        )
        for m in measured
    ]
    return table(("line", "measured", "spread", "samples", "peer", "limit", "note"), rows)


def against(measured: Measurement, other: Yardstick | None) -> str:
    if other is None:
        return ""
    ratio = measured.ratio(other)
    return f"{other.name}: {number(other.value)}{'' if ratio is None else f' ({number(ratio)} times)'}"


def verdict(measured: Measurement) -> str:
    return {True: "met", False: "**not met**", None: "not measured"}[measured.met]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def commit() -> str:
    """The commit measured, with a + where files have changed since; nothing outside a repository."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        ended = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return ended.stdout.strip()


def processor() -> str:
    for line in read(Path("/proc/cpuinfo")).splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def memory() -> str:
    for line in read(Path("/proc/meminfo")).splitlines():
        if line.startswith("MemTotal"):
            return f"{int(line.split()[1]) / 2**20:.0f} GiB"
    return ""


def load() -> str:
    """How busy the machine is with other work, as long as nothing is measured yet: 1 is one core."""
    if not hasattr(os, "getloadavg"):
        return ""
    busy = os.getloadavg()[0]
    return f"{busy:.1f} cores busy{'' if busy < 0.5 else ': times are longer than they need be, ratios hold better'}"


def read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


LOAD_BEFORE = load()
