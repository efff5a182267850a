"""JSON messages and REST rows into chunks."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from klagg.archive import kernels
from klagg.archive.chunk import CHUNK_ROWS, OTHER_SYMBOL, Counts, TradeChunk
from klagg.archive.messages import OTHER, PassedOver, Payload, array_rows, decode_line, is_url
from klagg.archive.rows import MAX_ID, BadRow, exact, time_ms_of, trade_kind
from klagg.archive.text import line_blocks
from klagg.errors import FileFormatError
from klagg.model import TRADE, Ints, TradeKind

_MAX_ARRAY_BYTES: Final = 256 << 20
"""One JSON array must be in memory whole; a larger one is refused."""


def _kind(order_type: str | msgspec.UnsetType | None) -> TradeKind:
    """What an order type says of a trade; spot and aggregate trades have none."""
    return TradeKind.MARKET if order_type is msgspec.UNSET else trade_kind(1, 1, order_type or "")


class _Columns:
    """The trades of the chunk being gathered, a list per column."""

    def __init__(self) -> None:
        self.lines: list[int] = []
        self.received_ms: list[int] = []
        self.prices: list[str] = []
        self.quantities: list[str] = []
        self.integers: list[tuple[int, int, int, int, int, bool, int]] = []

    def __len__(self) -> int:
        return len(self.lines)


class MessageRows:
    """Reads one file of messages or REST rows; `counts` runs along.

    `symbol` is that of rows that do not say, and the only one taken where they do.
    """

    def __init__(self, path: Path, symbol: str, counts: Counts) -> None:
        self._path = path
        self._wanted = symbol
        self._counts = counts
        self._slots: dict[str, int] = {}

    def chunks(self) -> Iterator[TradeChunk]:
        """The trades of JSON lines.

        Raises:
            FileFormatError: a broken line (file, line and reason), or no message of the exchange at all.

        """
        columns = _Columns()
        number = 0
        for block in line_blocks(self._path):
            lines = block.split(b"\n")
            # After the last newline nothing follows.
            lines.pop()
            for line in lines:
                number += 1
                if not line or line == b"\r":
                    continue
                self._take_line(columns, number, line)
                if len(columns) >= CHUNK_ROWS:
                    yield self._chunk(columns)
                    columns = _Columns()
        if len(columns):
            yield self._chunk(columns)
        if not self._counts.rows and self._counts.passed_over.keys() <= {OTHER}:
            raise FileFormatError(f"{self._path}: there are no trades in it, nor any other message of the exchange")

    def array_chunks(self) -> Iterator[TradeChunk]:
        """The trades of one JSON array of REST rows.

        Raises:
            FileFormatError: a broken row (file, line and reason), or an array too large to hold.

        """
        blocks = []
        size = 0
        for block in line_blocks(self._path):
            blocks.append(block)
            size += len(block)
            if size > _MAX_ARRAY_BYTES:
                raise FileFormatError(
                    f"{self._path}: one JSON array of more than {_MAX_ARRAY_BYTES >> 20} MiB: write one row a line"
                )
        columns = _Columns()
        number = 1
        try:
            for number, row in array_rows(b"".join(blocks)):
                self._add(columns, number, -1, row)
                if len(columns) >= CHUNK_ROWS:
                    yield self._chunk(columns)
                    columns = _Columns()
        except BadRow as error:
            raise FileFormatError(f"{self._path}: line {number}: {error}") from error
        if len(columns):
            yield self._chunk(columns)

    def _take_line(self, columns: _Columns, number: int, line: bytes) -> None:
        try:
            if line[:1] in b"wh" and is_url(line):
                return
            received_ms, message = decode_line(line)
            if isinstance(message, Payload):
                self._add(columns, number, received_ms, message)
            elif isinstance(message, PassedOver):
                self._counts.passed_over[message.event] += 1
            else:
                for payload in message:
                    self._add(columns, number, received_ms, payload)
        except BadRow as error:
            if not line.strip():
                return
            raise FileFormatError(f"{self._path}: line {number}: {error}") from error

    def _add(self, columns: _Columns, number: int, received_ms: int, row: Payload) -> None:
        symbol = row.symbol or self._wanted
        if symbol != self._wanted and self._wanted:
            self._counts.passed_over[OTHER_SYMBOL] += 1
            return
        if row.event == "trade":
            agg_id = first_id = last_id = row.trade_id
        else:
            agg_id = row.agg_id
            first_id = agg_id if row.first_id is None else row.first_id
            last_id = first_id if row.last_id is None else row.last_id
        if agg_id < 0 or row.buyer_is_maker is None or not (row.price and row.qty and symbol):
            raise BadRow(_what_lacks(row, agg_id, symbol))
        if max(agg_id, abs(first_id), abs(last_id)) > MAX_ID:
            raise BadRow(f"an id of {agg_id}, {first_id}, {last_id} has more digits than one can have")
        if last_id < first_id:
            raise BadRow(f"last trade id {last_id} is before the first, {first_id}")
        slot = self._slots.get(symbol)
        if slot is None:
            slot = self._slots[symbol] = len(self._counts.symbol_names)
            self._counts.symbol_names.append(symbol)
        time_ms = row.time if 10**12 <= row.time < 10**13 else time_ms_of(row.time, "time T")
        columns.integers.append((slot, agg_id, first_id, last_id, time_ms, row.buyer_is_maker, _kind(row.order_type)))
        columns.prices.append(row.price)
        columns.quantities.append(row.qty)
        columns.received_ms.append(received_ms)
        columns.lines.append(number)

    def _chunk(self, columns: _Columns) -> TradeChunk:
        trades = np.zeros(len(columns), TRADE)
        integers = np.array(columns.integers, np.int64)
        names = ("slot", "agg_id", "first_id", "last_id", "time_ms", "buyer_is_maker", "kind")
        for index, name in enumerate(names):
            trades[name] = integers[:, index]

        def fail(row: int, reason: str) -> FileFormatError:
            return FileFormatError(f"{self._path}: line {columns.lines[row]}: {reason}")

        trades["price"], trades["price_scale"] = _decimals(columns.prices, "price p", fail)
        trades["qty"], trades["qty_scale"] = _decimals(columns.quantities, "quantity q", fail)
        lacking = (trades["kind"] == TradeKind.MARKET) & ((trades["price"] == 0) | (trades["qty"] == 0))
        trades["kind"][lacking] = TradeKind.UNPROVEN
        self._counts.take(trades)
        received = np.array(columns.received_ms, np.int64)
        has_received = bool((received >= 0).any())
        lines = np.array(columns.lines, np.int64)
        return TradeChunk(self._counts.symbol_names, trades, received if has_received else None, lines)


def _decimals(
    texts: list[str], what: str, fail: Callable[[int, str], FileFormatError]
) -> tuple[Ints, npt.NDArray[np.uint8]]:
    """Mantissas and scales of many decimals at once."""
    mantissas = np.zeros(len(texts), np.int64)
    scales = np.zeros(len(texts), np.uint8)
    state = np.zeros(kernels.STATE_WORDS, np.int64)
    joined = "\n".join(texts).encode() + b"\n"
    buf = np.frombuffer(joined, np.uint8)
    if joined.count(b"\n") != len(texts):
        broken = next(row for row, text in enumerate(texts) if "\n" in text)
        raise fail(broken, f"{what} {texts[broken]!r} is not a plain decimal number")
    while kernels.parse_decimals(mantissas, scales, state, buf):
        row = int(state[kernels.ROWS])
        try:
            mantissas[row], scales[row] = exact(texts[row], what)
        except BadRow as error:
            raise fail(row, str(error)) from error
        state[kernels.POSITION] += len(texts[row].encode()) + 1
        state[kernels.ROWS] += 1
    return mantissas, scales


def _what_lacks(row: Payload, agg_id: int, symbol: str) -> str:
    if not symbol:
        return "the row names no symbol: give --symbol"
    event = row.event or "aggregate trade"
    lacks = [
        name
        for name, missing in (
            ("t" if row.event == "trade" else "a", agg_id < 0),
            ("p", not row.price),
            ("q", not row.qty),
            ("m", row.buyer_is_maker is None),
        )
        if missing
    ]
    return f"a broken {event}: it has no {', '.join(lacks)}"
