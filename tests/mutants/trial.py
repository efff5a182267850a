"""One defect, put into a copy of the sources, and its check run on them. The tree itself is never touched."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mutants.defects import Defect

ROOT = Path(__file__).parents[2]
LONGEST_S = 900.0
TESTS_FAILED = 1
"""What pytest ends with where tests ran and some failed; anything above says that they could not be run."""


@dataclass(frozen=True)
class Trial:
    """How it went. `caught` is None where the check could not be run."""

    defect: Defect
    caught: bool | None
    text: str
    """The end of what the check said."""


def applied(defect: Defect, folder: Path) -> Path:
    """A copy of the sources with the defect in it, below `folder`: the path to import from."""
    source = folder / "src"
    shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
    path = source / "klagg" / defect.file
    text = path.read_text("utf-8")
    assert text.count(defect.old) == 1, (
        f"{defect.name}: its text stands {text.count(defect.old)} times in {defect.file}"
    )
    path.write_text(text.replace(defect.old, defect.new), "utf-8")
    return source


def try_out(defect: Defect) -> Trial:
    """Whether the check of a defect catches it."""
    with tempfile.TemporaryDirectory(prefix="klagg-mutant-") as folder:
        source = applied(defect, Path(folder))
        # What changed kernels are compiled to is of no use to anybody else.
        cache = {"XDG_CACHE_HOME": folder} if defect.file.startswith(("engine/", "interval", "model")) else {}
        for check in defect.caught_by:
            code, text = _run(check, source, cache)
            if code not in {0, TESTS_FAILED}:
                return Trial(defect, None, text)
            if code == TESTS_FAILED:
                return Trial(defect, True, text)
    return Trial(defect, False, text)


def healthy(checks: Sequence[str]) -> Trial | None:
    """The first of the checks that fails without any defect, None where all pass."""
    tests = sorted({check for check in checks if not check.startswith("seed ")})
    seeds = sorted({check for check in checks if check.startswith("seed ")})
    for together in ([tests] if tests else []) + [[seed] for seed in seeds]:
        code, text = _run(" ".join(together), ROOT / "src", {})
        if code:
            return Trial(Defect("none", "", "", "", tuple(together)), None, text)
    return None


def _run(check: str, source: Path, more: dict[str, str]) -> tuple[int, str]:
    """The exit code of a check and the end of its output; tests with spaces between, or `seed N` of the simulation."""
    if check.startswith("seed "):
        command = ["-m", "simulation", "--seeds", "1", "--first", check.split()[1], "--jobs", "1", "--keep-going"]
        command += ["--plain"] if check.endswith("plain") else []
    else:
        command = ["-m", "pytest", "-n", "0", "-q", "-x", "-p", "no:cacheprovider", *check.split()]
    environment = os.environ | {"PYTHONPATH": f"{source}{os.pathsep}{ROOT / 'tests'}"} | more
    try:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return TESTS_FAILED + 1, f"not done after {LONGEST_S:.0f} s"
    if check.startswith("seed ") and done.returncode == 1 and "WRONG" not in done.stdout:
        return TESTS_FAILED + 1, done.stderr[-2_000:]
    return done.returncode, (done.stdout + done.stderr)[-2_000:]
