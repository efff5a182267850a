"""What klagg is built on, audited without a network: locks, licences, and that what is declared is what is used.

Whether a locked version was yanked or has an advisory against it cannot be known here: no database of them comes with the project.
"""

import ast
import json
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution, packages_distributions
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CHECKOUT: Final = Path(__file__).parents[1]
LOCKS: Final = ("run", "dev", "bench", "fuzz")
ALLOWED: Final = frozenset(
    {
        "0BSD",
        "Apache-2.0",
        "Apache-2.0 WITH LLVM-exception",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "CC0-1.0",
        "ISC",
        "MIT",
        "MPL-2.0",
        "PSF-2.0",
        "Python-2.0",
        "Unlicense",
        "Zlib",
    }
)
"""Licences that ask for no more than their notice, or (MPL) for the sources of changed files of their own."""
SPELLINGS: Final = {
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "MIT License": "MIT",
    "The MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
"""What metadata older than SPDX expressions says, and the first lines of licence files."""
GIVEN_BY_THE_USER: Final = frozenset({"pandas"})
"""Imported only where a caller asks for an object of it, and so has it."""
PLACES: Final = [
    {"sys_platform": system, "platform_system": name, "os_name": os_name, "python_version": python}
    | {
        "python_full_version": f"{python}.1",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    for system, name, os_name in (
        ("linux", "Linux", "posix"),
        ("darwin", "Darwin", "posix"),
        ("win32", "Windows", "nt"),
    )
    for python in ("3.11", "3.12", "3.13", "3.14")
]
"""Where klagg may be installed."""


class Pin(NamedTuple):
    name: str
    version: str
    marker: str
    hashes: frozenset[str]


def project() -> dict[str, Any]:
    return tomllib.loads((CHECKOUT / "pyproject.toml").read_text())


def declared() -> dict[str, Requirement]:
    """What running klagg needs, by name."""
    requirements = map(Requirement, project()["project"]["dependencies"])
    return {canonicalize_name(one.name): one for one in requirements}


@cache
def pins(lock: str) -> tuple[Pin, ...]:
    """The lines of a lock; whatever is no pinned version with its hashes fails here."""
    found = []
    for line in (CHECKOUT / f"requirements/{lock}.txt").read_text().replace("\\\n", " ").splitlines():
        match = re.fullmatch(r"([a-z0-9-]+)==([^\s;]+)(?: ; ([^\\]+?))?((?:\s+--hash=sha256:[0-9a-f]{64})+)\s*", line)
        assert match, f"requirements/{lock}.txt: neither a pinned version nor its hashes: {line[:80]}"
        found.append(Pin(match[1], match[2], match[3] or "", frozenset(match[4].split())))
    return tuple(found)


def applies(marker: str, place: dict[str, str]) -> bool:
    return not marker or Marker(marker).evaluate(place)


@pytest.mark.parametrize("lock", LOCKS)
def test_every_requirement_is_locked_once_with_hashes_and_no_address(lock: str) -> None:
    assert len(pins(lock)) > 10
    assert "://" not in (CHECKOUT / f"requirements/{lock}.txt").read_text()
    for place in PLACES:
        names = [pin.name for pin in pins(lock) if applies(pin.marker, place)]
        twice = {name for name in names if names.count(name) > 1}
        assert not twice, f"requirements/{lock}.txt: two versions at once on {place}"


def test_what_runs_is_what_is_tested() -> None:
    tested = {(pin.name, pin.version, pin.hashes) for pin in pins("dev")}
    others = [pin.name for pin in pins("run") if (pin.name, pin.version, pin.hashes) not in tested]
    assert not others, "run.txt and dev.txt lock other versions of these: make lock"


def test_the_locks_hold_what_is_declared_and_nothing_that_nobody_needs() -> None:
    locked = {pin.name: pin.version for pin in pins("run")}
    for name, requirement in declared().items():
        assert name in locked, f"{name} is declared and not locked: make lock"
        assert requirement.specifier.contains(locked[name])
    assert set(locked) == set(needed()), "run make lock"


def needed() -> dict[str, set[str]]:
    """What the declared packages need, and what those need, with the extras that are asked for."""
    found: dict[str, set[str]] = {}
    waiting = list(declared().values())
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in found and requirement.extras <= found[name]:
            continue
        extras = found.setdefault(name, set())
        extras |= requirement.extras
        package = installed(name)
        for text in (package.requires if package else None) or ():
            wanted = Requirement(text)
            given = [place | {"extra": extra} for place in PLACES for extra in ("", *extras)]
            if wanted.marker is None or any(wanted.marker.evaluate(place) for place in given):
                waiting.append(wanted)
    return found


def installed(name: str) -> Distribution | None:
    """None: this system does not need it."""
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def licences(package: Distribution) -> Iterator[str]:
    """Each place where a package says its licence, the best first."""
    said = package.metadata
    if said["License-Expression"]:
        yield said["License-Expression"]
    classifiers = [
        line.rpartition(" :: ")[2] for line in said.get_all("Classifier", []) if line.startswith("License ::")
    ]
    if classifiers:
        yield " OR ".join(SPELLINGS.get(name, name) for name in classifiers)
    texts = [said["License"] or ""]
    texts += [file.read_text() for file in package.files or () if file.name.upper().startswith("LICEN")]
    for text in texts:
        first = text.strip().partition("\n")[0].strip()
        if first:
            yield SPELLINGS.get(first, first)


def is_allowed(expression: str) -> bool:
    """Whether an SPDX expression without brackets leaves a way to use what it covers."""
    return all(any(one in ALLOWED for one in part.split(" OR ")) for part in expression.split(" AND "))


@pytest.mark.parametrize(
    "expression", ["GPL-3.0-only", "MIT AND GPL-3.0-only", "(MIT)", "Proprietary", "AGPL-3.0-only OR SSPL-1.0"]
)
def test_a_licence_that_is_not_known_is_not_allowed(expression: str) -> None:
    assert not is_allowed(expression)
    assert is_allowed("MIT AND GPL-3.0-only OR ISC")


def test_the_licences_of_what_runs_are_allowed() -> None:
    for pin in pins("run"):
        package = installed(pin.name)
        if package is None:
            assert pin.marker, f"{pin.name} is locked for every system and not installed"
            continue
        licence = next(licences(package), "")
        assert is_allowed(licence), f"{pin.name} {pin.version}: its licence is {licence!r}"


@cache
def imports() -> dict[str, set[str]]:
    """The packages that klagg's modules import, wherever in them, with one of the modules that do."""
    found = defaultdict(set)
    for path in sorted((CHECKOUT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0
                names.append(node.module or "")
            for name in names:
                found[name.partition(".")[0]].add(str(path.relative_to(CHECKOUT)))
    return {name: where for name, where in found.items() if name != "klagg" and name not in sys.stdlib_module_names}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    brought = packages_distributions()
    used = {canonicalize_name(one): where for name, where in imports().items() for one in brought.get(name, [name])}
    extras = project()["project"]["optional-dependencies"]
    optional = {canonicalize_name(Requirement(text).name) for text in extras["frames"]} | GIVEN_BY_THE_USER
    for name, where in used.items():
        assert name in declared() or name in optional, f"{name} is not declared, and {min(where)} imports it"
    assert set(declared()) <= set(used), "declared, and imported nowhere"


def test_the_page_is_locked_with_hashes_no_address_and_one_version_of_each() -> None:
    lock = json.loads((CHECKOUT / "page/package-lock.json").read_text())
    packages = {path: package for path, package in lock["packages"].items() if path}
    asked = json.loads((CHECKOUT / "page/package.json").read_text())
    assert lock["packages"][""]["devDependencies"] == asked["devDependencies"]
    assert lock["packages"][""].get("dependencies") == asked.get("dependencies")
    names = [path.rpartition("node_modules/")[2] for path in packages]
    assert len(names) == len(set(names)), "two versions of one package"
    for path, package in packages.items():
        assert package["integrity"].startswith("sha512-"), path
        assert "resolved" not in package, (
            f"{path} names where it was fetched: npm install --omit-lockfile-registry-resolved"
        )
        # What is not for building alone goes into the built page.
        assert package.get("dev") or is_allowed(package["license"]), f"{path}: its licence is {package['license']}"
