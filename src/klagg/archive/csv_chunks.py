"""CSV of trades into chunks: the kernel takes the plain rows, the plain parser every other."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from klagg.archive import kernels
from klagg.archive.chunk import CHUNK_ROWS, OTHER_SYMBOL, Counts, TradeChunk, blank_rows
from klagg.archive.layout import Layout, Role
from klagg.archive.rows import BadRow, Row, parse_row
from klagg.archive.text import line_blocks
from klagg.errors import FileFormatError
from klagg.model import Ints, Trades

_NAME_BYTES: Final = 64
"""The longest symbol the kernel compares; a longer one is read by the plain parser."""


class CsvRows:
    """Reads one CSV of trades; `counts` runs along."""

    def __init__(self, path: Path, layout: Layout, symbol: str, counts: Counts) -> None:
        self._path = path
        self._layout = layout
        self._wanted = symbol
        self._counts = counts
        self._header = layout.header.decode()
        self._roles = np.array(layout.roles, np.uint8)
        self._names = np.zeros((len(kernels.WORDS) + 8, _NAME_BYTES), np.uint8)
        self._lengths = np.full(len(self._names), -1, np.int64)
        self._known = 0
        self._slots: dict[str, int] = {}
        for word in kernels.WORDS:
            self._name(word)
        if symbol:
            self._add_symbol(symbol)

    def chunks(self) -> Iterator[TradeChunk]:
        """The file's trades.

        Raises:
            FileFormatError: a broken row: file, line and reason.

        """
        state = np.zeros(kernels.STATE_WORDS, np.int64)
        trades, receive_ms, lines = blank_rows()
        slot = 0
        for block in line_blocks(self._path):
            buf = np.frombuffer(block, np.uint8)
            state[kernels.POSITION] = 0
            while state[kernels.POSITION] < len(buf):
                odd = kernels.parse_rows(
                    trades, receive_ms, lines, state, buf, self._roles, self._names, self._lengths, self._known, slot
                )
                if odd:
                    self._take_odd(trades, receive_ms, lines, state, block)
                rows = int(state[kernels.ROWS])
                slot = int(trades["slot"][rows - 1]) if rows else slot
                if rows == CHUNK_ROWS:
                    yield self._chunk(trades, receive_ms, lines)
                    trades, receive_ms, lines = blank_rows()
                    state[kernels.ROWS] = 0
        rows = int(state[kernels.ROWS])
        if rows:
            yield self._chunk(trades[:rows], receive_ms[:rows], lines[:rows])

    def _chunk(self, trades: Trades, receive_ms: Ints, lines: Ints) -> TradeChunk:
        self._counts.take(trades)
        has_receive = Role.RECEIVE in self._layout.roles
        return TradeChunk(self._counts.symbol_names, trades, receive_ms if has_receive else None, lines)

    def _take_odd(self, trades: Trades, receive_ms: Ints, lines: Ints, state: Ints, block: bytes) -> None:
        """Read the row at `state` plainly, and move on past it."""
        start = int(state[kernels.POSITION])
        end = block.index(b"\n", start)
        line = block[start:end].decode(errors="replace").removesuffix("\r")
        state[kernels.POSITION] = end + 1
        state[kernels.LINES] += 1
        if not line.strip() or (self._header and line == self._header):
            return
        try:
            row = parse_row(line, self._layout, self._wanted)
        except BadRow as error:
            raise FileFormatError(f"{self._path}: line {state[kernels.LINES]}: {error}") from error
        if isinstance(row, str):
            self._counts.passed_over[row] += 1
        elif self._wanted and row.symbol != self._wanted:
            self._counts.passed_over[OTHER_SYMBOL] += 1
        else:
            at = int(state[kernels.ROWS])
            self._put(trades, at, row)
            receive_ms[at] = row.receive_ms
            lines[at] = state[kernels.LINES]
            state[kernels.ROWS] = at + 1

    def _put(self, trades: Trades, at: int, row: Row) -> None:
        trades[at] = (
            self._slots[row.symbol] if row.symbol in self._slots else self._add_symbol(row.symbol),
            row.price_scale,
            row.qty_scale,
            row.buyer_is_maker,
            row.kind,
            row.agg_id,
            row.price,
            row.qty,
            row.first_id,
            row.last_id,
            row.time_ms,
        )

    def _add_symbol(self, symbol: str) -> int:
        slot = len(self._counts.symbol_names)
        self._counts.symbol_names.append(symbol)
        self._slots[symbol] = slot
        self._name(symbol)
        return slot

    def _name(self, text: str) -> None:
        if self._known == len(self._names):
            self._names = np.concatenate([self._names, np.zeros_like(self._names)])
            self._lengths = np.concatenate([self._lengths, np.full_like(self._lengths, -1)])
        encoded = np.frombuffer(text.encode(), np.uint8)
        if len(encoded) <= _NAME_BYTES:
            self._names[self._known, : len(encoded)] = encoded
            self._lengths[self._known] = len(encoded)
        self._known += 1
