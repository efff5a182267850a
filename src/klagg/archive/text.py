"""The decompressed text of a file in bounded blocks of whole lines, whatever it is packed with.

Packing is known by the first bytes, never by the name.
"""

import codecs
import zipfile
import zlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final

import zstandard

from klagg.errors import FileFormatError, UsageError

BLOCK_BYTES: Final = 4 << 20
"""Text is handed on in blocks of about this size: large beside the cost of a call, small beside memory."""
_PACKED_BYTES: Final = 256 << 10
"""Packed bytes fed to a decompressor at once."""
MAX_LINE_BYTES: Final = 64 << 20
"""A line longer than this (a whole symbol list is 1 MiB) is not a recording's; reading stops with an error."""

_FOREIGN: Final = (
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"BZh", "packed with bzip2"),
    (b"\xfd7zXZ\0", "packed with xz"),
    (b"7z\xbc\xaf'\x1c", "packed with 7-Zip"),
    (b"\x04\x22\x4d\x18", "packed with lz4"),
)
"""First bytes of files that people may well hand over, and what to call them."""

_HEAD_BYTES: Final = 64 << 10
"""So much of a file tells whether it is text; what is odd further on is a broken line."""


def _gzip_blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        packed = b""
        while packed or (packed := file.read(_PACKED_BYTES)):
            member = zlib.decompressobj(wbits=31)
            while not member.eof:
                packed = packed or file.read(_PACKED_BYTES)
                # Without input it may still hold output that had no room before.
                block = member.decompress(packed, BLOCK_BYTES)
                if not (packed or block or member.eof):
                    raise FileFormatError(f"{path}: the gzip data end too early: the file is truncated, fetch it again")
                yield block
                packed = member.unconsumed_tail
            # Zero bytes after a member are padding; another member may follow.
            packed = member.unused_data.lstrip(b"\0")


def _zstd_blocks(path: Path) -> Iterator[bytes]:
    unpacker = zstandard.ZstdDecompressor()
    with path.open("rb") as file:
        packed = b""
        while packed or (packed := file.read(_PACKED_BYTES)):
            frame = unpacker.decompressobj()
            while not frame.eof:
                packed = packed or file.read(_PACKED_BYTES)
                if not packed:
                    raise FileFormatError(f"{path}: the zstd data end too early: the file is truncated, fetch it again")
                yield frame.decompress(packed)
                packed = frame.unused_data


def _zip_blocks(path: Path) -> Iterator[bytes]:
    with zipfile.ZipFile(path) as pack:
        names = [
            entry.filename
            for entry in pack.infolist()
            if not entry.is_dir() and not entry.filename.startswith("__MACOSX/")
        ]
        if len(names) != 1:
            raise FileFormatError(
                f"{path}: the zip holds {len(names)} files, expected one: unpack it and name the files"
            )
        with pack.open(names[0]) as file:
            while block := file.read(BLOCK_BYTES):
                yield block


def member_name(path: Path) -> str:
    """The name of the one file in a zip; nothing where it is none."""
    try:
        if not zipfile.is_zipfile(path):
            return ""
        with zipfile.ZipFile(path) as pack:
            names = pack.namelist()
    except (OSError, zipfile.BadZipFile):
        return ""
    return names[0] if len(names) == 1 else ""


def _plain_blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            yield block


def unpacked_blocks(path: Path) -> Iterator[bytes]:
    """The bytes of a file, unpacked where it is gzip, zip or zstd.

    Raises:
        UsageError: there is no such file, or it cannot be read.
        FileFormatError: it is empty, truncated, broken, or packed with something else.

    """
    try:
        with path.open("rb") as file:
            head = file.read(16)
        if not head:
            raise FileFormatError(f"{path}: the file is empty")
        for magic, what in _FOREIGN:
            if head.startswith(magic):
                raise FileFormatError(
                    f"{path}: the file is {what}; klagg reads CSV and JSON lines, also in gz, zip, zst"
                )
        if head.startswith(b"\x1f\x8b"):
            yield from _gzip_blocks(path)
        elif head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            yield from _zip_blocks(path)
        elif head.startswith(b"\x28\xb5\x2f\xfd"):
            yield from _zstd_blocks(path)
        else:
            yield from _plain_blocks(path)
    except (zlib.error, zipfile.BadZipFile, zstandard.ZstdError, EOFError, NotImplementedError) as error:
        raise FileFormatError(f"{path}: broken or truncated packed data ({error}): fetch it again") from error
    except RuntimeError as error:
        # zipfile's way to say that a member is encrypted.
        raise FileFormatError(f"{path}: the zip cannot be read ({error}): unpack it first") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from error


def _refuse_binary(path: Path, block: bytes) -> None:
    head = block[:_HEAD_BYTES]
    if b"\0" in head:
        raise FileFormatError(f"{path}: the file is binary, not text; klagg reads CSV and JSON lines of trades")
    try:
        # Not final: a character may be cut at the end.
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError as error:
        raise FileFormatError(
            f"{path}: the file is not UTF-8 text; klagg reads CSV and JSON lines of trades"
        ) from error


def _with_head(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The blocks that hold something; the first is large enough to tell by it what the file is, however it was packed."""
    head = b""
    for block in blocks:
        head += block
        if len(head) >= _HEAD_BYTES:
            yield head
            break
    else:
        if head:
            yield head
    yield from filter(None, blocks)


def line_blocks(path: Path) -> Generator[bytes]:
    """The text of a file in blocks of whole lines, each ending in a newline, the first without a byte-order mark.

    Raises:
        UsageError: there is no such file, or it cannot be read.
        FileFormatError: it is empty, binary, truncated or broken.

    """
    rest: list[bytes] = []
    rest_bytes = 0
    started = False
    for block in _with_head(unpacked_blocks(path)):
        text = block
        if not started:
            _refuse_binary(path, block)
            text = block.removeprefix(b"\xef\xbb\xbf")
            started = bool(text)
        cut = text.rfind(b"\n") + 1
        if cut:
            yield b"".join((*rest, text[:cut]))
            rest, rest_bytes = [], 0
        rest.append(text[cut:])
        rest_bytes += len(text) - cut
        if rest_bytes > MAX_LINE_BYTES:
            raise FileFormatError(f"{path}: a line is longer than {MAX_LINE_BYTES >> 20} MiB: not a recording")
    last = b"".join(rest)
    if last:
        yield last + b"\n"
    if not started:
        raise FileFormatError(f"{path}: the file is empty")
