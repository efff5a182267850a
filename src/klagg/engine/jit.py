"""How kernels are compiled, and where the compiled code is kept.

Numba's cache does not notice a change in a function that a kernel calls from another module, so the cache's folder is named after a
digest of everything the kernels are made of: a changed source never meets stale machine code.
"""

import hashlib
from pathlib import Path
from typing import Any, Final

import numba
import platformdirs
from numba.core import config

_PACKAGE: Final = Path(__file__).parent.parent


def _digest() -> str:
    digest = hashlib.blake2b(numba.__version__.encode(), digest_size=8)
    for source in [*sorted((_PACKAGE / "engine").glob("*.py")), _PACKAGE / "interval.py", _PACKAGE / "model.py"]:
        digest.update(source.read_bytes())
    return digest.hexdigest()


CACHE_FOLDER: Final = Path(platformdirs.user_cache_dir("klagg")) / f"kernels-{_digest()}"
config.CACHE_DIR = str(CACHE_FOLDER)  # type: ignore[attr-defined]

kernel: Any = numba.njit(cache=True, error_model="numpy", _nrt=False)  # type: ignore[call-overload]
"""Compiles a function over arrays; cached on disk.

Kernels allocate nothing, so they are compiled without Numba's reference counts: those cost more than the work of a quiet minute, and
half of a call's overhead.
"""


def is_cached() -> bool:
    """Whether compiled kernels lie on disk, so that a start need not compile."""
    return CACHE_FOLDER.is_dir() and any(CACHE_FOLDER.rglob("*.nbc"))
