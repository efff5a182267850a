"""The files that people name: folders and globs opened out, checksums, what each file holds."""

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from glob import glob
from os import PathLike
from pathlib import Path
from typing import Final

from klagg.archive import KlineReader, TradeReader, open_trades, read_klines, recognise
from klagg.archive.names import archive_name, market_of_path
from klagg.errors import FileFormatError, UsageError
from klagg.model import Market

SUFFIXES: Final = (".csv", ".json", ".jsonl", ".txt", ".gz", ".zip", ".zst")
"""What is taken of a folder; a file that is named itself may be called anything."""
CHECKSUM: Final = ".CHECKSUM"
"""What the exchange adds to the name of an archive file for that of its checksum (the format of sha256sum)."""

_DIGEST: Final = re.compile(r"(?P<digest>[0-9a-fA-F]{64})\b")


def find_files(names: Iterable[str]) -> list[Path]:
    """The files that are meant: files, all trade and kline files under a folder, or what a glob matches; each once.

    Raises:
        UsageError: a name stands for nothing.

    """
    found: dict[Path, None] = {}
    for name in names:
        path = Path(name)
        if path.is_file():
            files = [path]
        else:
            # Path.glob takes no absolute pattern.
            inside = path.rglob("*") if path.is_dir() else map(Path, glob(name, recursive=True))  # noqa: PTH207
            files = sorted(file for file in inside if file.suffix in SUFFIXES and file.is_file())
        if not files:
            missing = "there is no archive file in it" if path.is_dir() else "there is no such file"
            raise UsageError(f"--from {name}: {missing} (or write --from rest)")
        found.update(dict.fromkeys(files))
    return list(found)


@dataclass(slots=True)
class Sources:
    """Readers of the files; those whose name is of a symbol not wanted, or whose path is of another market, are passed over and counted."""

    klines: list[KlineReader] = field(default_factory=list)
    trades: list[TradeReader] = field(default_factory=list)
    other_symbols: int = 0
    other_markets: int = 0


def open_sources(
    files: Iterable[str | PathLike[str]],
    *,
    market: Market,
    symbol: str | None,
    wants: Callable[[str], bool],
    insists: bool,
) -> Sources:
    """Look at the first lines of every file.

    Args:
        files: the files.
        market: what they are taken for; a file that says it is of another is refused.
        symbol: of files that do not say it.
        wants: which symbols are wanted.
        insists: whether somebody chose the market.

    Raises:
        FileFormatError | UsageError: one cannot be read, does not say what is needed, or is of another market (where all are).

    """
    sources = Sources()
    paths = list(map(Path, files))
    others = [path for path in paths if market_of_path(path) not in {None, market}]
    if len(others) < len(paths):
        # A mirror of the archive has the markets side by side.
        sources.other_markets = len(others)
        paths = [path for path in paths if path not in others]
    for path in paths:
        name = archive_name(path)
        if name is not None and not wants(name.symbol):
            sources.other_symbols += 1
            continue
        said = name.symbol if name is not None else symbol
        if recognise(path).file.kind == "klines":
            sources.klines.append(read_klines(path, market=market, symbol=said, insists=insists))
        else:
            sources.trades.append(open_trades(path, market=market, symbol=said, insists=insists))
    return sources


def verify_checksum(path: Path) -> bool:
    """Whether a checksum lies beside a file; the file is what it says.

    Raises:
        FileFormatError: the file is not what its checksum says, or that cannot be read.
        UsageError: one of the two cannot be read.

    """
    beside = path.with_name(path.name + CHECKSUM)
    try:
        text = beside.read_bytes().decode(errors="replace")
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UsageError(f"{beside}: cannot be read: {error.strerror or error}") from error
    said = _DIGEST.match(text.lstrip())
    if said is None:
        raise FileFormatError(f"{beside}: it begins with no SHA-256 (64 hexadecimal digits): fetch it again")
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from error
    if digest != said["digest"].lower():
        raise FileFormatError(
            f"{path}: the file is damaged or was replaced: its SHA-256 is {digest[:12]}…, {beside.name} says "
            f"{said['digest'][:12].lower()}…: fetch both again"
        )
    return True
