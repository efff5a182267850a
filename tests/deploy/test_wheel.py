"""The wheel is what `pipx install klagg` and `uvx klagg demo` get: it is built, installed by itself, and does its main job."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

import klagg

ROOT = Path(__file__).parents[2]
NOBODY = 65_534


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from what the image's build sees, and nothing else."""
    if find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed")
    folder = tmp_path_factory.mktemp("build")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder / "dist")]
    subprocess.run(command, cwd=folder, capture_output=True, check=True)
    (built,) = (folder / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `klagg` of an environment that has the wheel, and this one's libraries in place of a download."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    python = folder / "venv" / "bin" / "python"
    purelib = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        str(wheel),
    ]
    subprocess.run(command, check=True)
    # A plain line is a folder to search; what makes this checkout importable here is no plain line, so it stays out.
    Path(purelib, "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "venv" / "bin" / "klagg"


def test_the_wheel_ships_all_that_is_not_code(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    source = ROOT / "src"
    skipped = {".pyc"}
    there = {
        str(path.relative_to(source)) for path in source.rglob("*") if path.is_file() and path.suffix not in skipped
    }
    assert {name for name in there if "__pycache__" not in name} <= names
    assert {"klagg/py.typed", "klagg/__init__.pyi"} <= names
    assert not [name for name in names if not name.startswith(("klagg/", "klagg-"))]
    assert [name for name in names if name.endswith("LICENSE")]


def test_it_is_installed_by_itself(installed: Path, tmp_path: Path) -> None:
    said = subprocess.run([installed, "--version"], capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert said == f"klagg {klagg.__version__}\n"
    code = "import klagg, pathlib; print(pathlib.Path(klagg.__file__).resolve())"
    found = subprocess.run(
        [installed.with_name("python"), "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert str(ROOT) not in found


def is_open_to_all(path: Path) -> bool:
    """Whether every user can come to it."""
    return all(parent.stat().st_mode & 0o001 for parent in path.resolve().parents)


@pytest.mark.slow
def test_the_demo_runs_with_nothing_but_a_folder(installed: Path, tmp_path: Path) -> None:
    """The kernels are compiled into it. By root it is run as nobody, where nobody can come to the interpreter."""
    work = tmp_path / "work"
    work.mkdir()
    as_nobody = os.geteuid() == 0 and all(map(is_open_to_all, (Path(sys.executable), installed, work)))
    if as_nobody:
        os.chown(work, NOBODY, NOBODY)
    environment = {"PATH": os.environ["PATH"], "HOME": str(work), "XDG_CACHE_HOME": str(work / "cache")}
    done = subprocess.run(
        [installed, "demo", "--seconds", "5", "--symbols", "5"],
        cwd=work,
        env=environment,
        user=NOBODY if as_nobody else None,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (work / "klagg-demo.db").is_file()
    assert any((work / "cache").rglob("*.nbc"))
