"""A power failure: what of SQLite's write-ahead log reached the disk (https://www.sqlite.org/fileformat2.html#walformat).

With `synchronous = NORMAL` the log is synced only before it is moved into the database, so any of its end may be lost; with `FULL` after
each commit. A log that ends in the middle of a frame is as if that frame were not there.
"""

import random
from pathlib import Path

HEADER = 32
FRAME_HEADER = 24


class Log:
    """The write-ahead log as it lies there: its salts, where its last commit ends, and where it ends."""

    def __init__(self, path: Path) -> None:
        self.content = path.read_bytes() if path.exists() else b""
        self.salts = self.content[16:24]
        self.committed = self.end = min(HEADER, len(self.content))
        if len(self.content) < HEADER:
            return
        size = int.from_bytes(self.content[8:12], "big") + FRAME_HEADER
        at = HEADER
        while at + size <= len(self.content) and self.content[at + 8 : at + 16] == self.salts:
            at += size
            self.end = at
            if self.content[at - size + 4 : at - size + 8] != bytes(4):
                self.committed = at


class Synced:
    """What is known to be on the disk of a database."""

    def __init__(self, path: Path, *, full: bool) -> None:
        self._wal = Path(f"{path}-wal")
        self._path = path
        self._full = full
        self._salts = b""
        self._upto = 0

    def checkpointed(self) -> None:
        """The log has been synced, and moved into the database as far as it went."""
        log = Log(self._wal)
        self._salts, self._upto = log.salts, log.end

    def lose(self, chance: random.Random) -> dict[Path, bytes]:
        """The files as they are found after a power failure, by path."""
        log = Log(self._wal)
        least = log.committed if self._full else self._upto if log.salts == self._salts else HEADER
        least = min(least, len(log.content))
        kept = chance.randint(least, max(log.end, least))
        return {self._path: self._path.read_bytes(), self._wal: log.content[:kept]}


def found_after(path: Path, files: dict[Path, bytes]) -> None:
    """Put the files there as they were found; the shared memory beside them was only memory."""
    for suffix in ("-shm", "-wal"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    for each, content in files.items():
        each.write_bytes(content)
