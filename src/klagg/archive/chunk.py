"""What a trade file is read into: chunks of columns, and counts of what was passed over."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import numpy as np

from klagg.archive.layout import FileMarket
from klagg.model import TRADE, Ints, TradeKind, Trades

CHUNK_ROWS: Final = 65_536
"""Trades handed on at once: large beside the cost of a call, 4 MiB of memory."""
OTHER_SYMBOL: Final = "other symbol"
"""What a trade is counted as in `passed_over` that is not of the one symbol asked for."""

FileKind = Literal["trades", "aggTrades", "klines", "ws", "rest"]
"""What a file holds: CSV of trades, of aggregate trades or of klines, WebSocket messages, REST rows."""


@dataclass(frozen=True, slots=True)
class TradeFile:
    """A trade file as far as its first lines and its name tell.

    `market` is None where nothing tells it (REST rows and CSV of futures look alike on both futures markets); `symbols`
    are those seen in the first lines, or the one in the file's name.
    """

    path: Path
    kind: FileKind
    market: FileMarket | None
    symbols: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TradeChunk:
    """Some trades in the order of the file.

    `slot` of `trades` is an index into `symbol_names`, which only grows from chunk to chunk. `receive_ms` (UTC ms, of the
    recorder's clock, -1 where a line has none) lies beside the trades where the file has receive times, `lines` are their
    line numbers (of the unpacked text).
    """

    symbol_names: list[str]
    trades: Trades
    receive_ms: Ints | None
    lines: Ints


@dataclass(slots=True)
class Counts:
    """What was read so far.

    `rows` are trades handed on, `not_market` those among them that are no market trades, `unproven` those of a kind that klagg does
    not know or with an amount missing, `passed_over` the messages of each other type.
    """

    rows: int = 0
    not_market: int = 0
    unproven: int = 0
    passed_over: Counter[str] = field(default_factory=Counter)
    symbol_names: list[str] = field(default_factory=list)

    def take(self, trades: Trades) -> None:
        """Count trades that are handed on."""
        self.rows += len(trades)
        self.not_market += int(np.count_nonzero(trades["kind"] == TradeKind.OTHER))
        self.unproven += int(np.count_nonzero(trades["kind"] == TradeKind.UNPROVEN))


def blank_rows() -> tuple[Trades, Ints, Ints]:
    """Room for one chunk: trades, their receive times and their lines."""
    return np.zeros(CHUNK_ROWS, TRADE), np.full(CHUNK_ROWS, -1, np.int64), np.zeros(CHUNK_ROWS, np.int64)
