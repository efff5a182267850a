"""`klagg bench`."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from klagg.errors import KlaggError

INSTALLED_FROM: Final = Path(__file__).parents[3]
"""The source tree, where klagg is installed in place."""


def bench(
    *arguments: Annotated[
        str,
        Parameter(allow_leading_hyphen=True, help="Handed on to the benchmarks, which tell their own by -- --help."),
    ],
) -> int:
    """Measure the figures of docs/PERFORMANCE.md on this machine, one JSON line each.

    The benchmarks are part of the source tree, not of the package.
    """
    folder = _checkout()
    return subprocess.call([sys.executable, "-m", "benchmarks", *arguments], cwd=folder)  # noqa: S603 - our own module


def _checkout() -> Path:
    """The source tree: the working directory, or where klagg is installed from in place.

    Raises:
        KlaggError: neither has the benchmarks.

    """
    for folder in (Path.cwd(), INSTALLED_FROM):
        # Many projects have a folder of that name: only beside klagg's source is it klagg's.
        if (folder / "benchmarks" / "__main__.py").is_file() and (folder / "src" / "klagg").is_dir():
            return folder
    raise KlaggError("the benchmarks are not here: run klagg bench, or make bench, in a checkout of klagg's source")
