"""What a file holds, told by its first lines and, where they do not say, by its name."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from klagg.archive.chunk import TradeFile
from klagg.archive.kline_layout import is_header, is_row
from klagg.archive.layout import FileMarket, Layout, Role, UnknownLayout, from_header, headerless
from klagg.archive.messages import PassedOver, decode_line, is_url, looks_like_message, market_of, market_of_url
from klagg.archive.names import archive_name
from klagg.archive.rows import BadRow
from klagg.archive.text import line_blocks
from klagg.errors import FileFormatError

_HEAD_LINES: Final = 1_000
"""How many lines of a recording are looked at for its market and symbols; other messages may come before trades."""


@dataclass(frozen=True, slots=True)
class Recognised:
    """A file, and how to read it: by the columns of a CSV, as one JSON array, or (neither) as JSON lines."""

    file: TradeFile
    layout: Layout | None = None
    is_array: bool = False
    first_time: str = ""
    """The time of the first row, as it is written, where there is no header above it."""


def recognise(path: Path) -> Recognised:
    """What a trade or kline file holds.

    Raises:
        UsageError: there is no such file.
        FileFormatError: it is empty, binary, broken, or nothing that klagg reads.

    """
    blocks = line_blocks(path)
    lines = next(blocks).split(b"\n", _HEAD_LINES)
    blocks.close()
    if len(lines) > 1:
        # What follows the last newline looked at: not looked at, or nothing.
        lines.pop()
    url_market: FileMarket | None = None
    first = None
    for index, line in enumerate(lines):
        if is_url(line):
            url_market = url_market or market_of_url(line)
        elif line.strip():
            first = index
            break
    if first is None:
        raise FileFormatError(f"{path}: there is nothing in it but blank lines or an address")
    if looks_like_message(lines[first]):
        return _messages(path, lines[first:], url_market)
    return _csv(path, lines[first].decode(errors="replace").rstrip("\r"), first + 1)


def _csv(path: Path, line: str, number: int) -> Recognised:
    name = archive_name(path)
    symbols = (name.symbol,) if name is not None else ()
    if is_header(line) or is_row(line):
        return Recognised(TradeFile(path, "klines", None, symbols))
    try:
        layout = headerless(line) if line.lstrip(' "')[:1].isdigit() else from_header(line)
    except UnknownLayout as error:
        raise FileFormatError(f"{path}: line {number}: {error}") from error
    if Role.SYMBOL in layout.roles:
        symbols = ()
    first_time = "" if layout.header else line.split(",")[layout.roles.index(Role.TIME)].strip(' "')
    return Recognised(TradeFile(path, layout.kind, layout.market, symbols), layout, first_time=first_time)


def _messages(path: Path, lines: list[bytes], market: FileMarket | None) -> Recognised:
    if lines[0].lstrip()[:1] == b"[" and not _is_json(lines[0]):
        name = archive_name(path)
        file = TradeFile(path, "rest", market, (name.symbol,) if name is not None else ())
        return Recognised(file, is_array=True)
    symbols: dict[str, None] = {}
    kind = None
    for line in lines:
        if not line.strip() or is_url(line):
            continue
        try:
            _, message = decode_line(line)
        except BadRow:
            # Named with its line when the file is read.
            break
        if isinstance(message, PassedOver):
            continue
        for payload in message if isinstance(message, list) else [message]:
            kind = kind or ("ws" if payload.event else "rest")
            symbols[payload.symbol] = None
            market = market or market_of(payload, payload.symbol)
    symbols.pop("", None)
    name = archive_name(path)
    if not symbols and name is not None:
        symbols[name.symbol] = None
    return Recognised(TradeFile(path, "rest" if kind == "rest" else "ws", market, tuple(symbols)))


def _is_json(line: bytes) -> bool:
    try:
        msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True
