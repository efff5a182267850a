"""Files that are there whole or not at all, whatever ends the process that writes them."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from klagg.errors import UsageError


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes its name only when it is whole and on disk; what a killed process left beside it goes.

    Raises:
        UsageError: it cannot be written.

    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        _forsaken(path)
        with temporary.open("wb") as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UsageError(f"{path}: cannot be written: {error.strerror or error}") from error


def _forsaken(path: Path) -> None:
    """Remove the beginnings of this file whose process is gone."""
    with suppress(OSError):
        for other in path.parent.iterdir():
            match = re.fullmatch(rf"\.{re.escape(path.name)}\.(\d+)\.part", other.name)
            if match and not _runs(int(match[1])):
                other.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
