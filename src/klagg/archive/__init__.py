"""Readers of trade and kline files: archives of the exchange, and recordings of its streams.

`open_trades` and `read_klines` are the ways in.
"""

from klagg.archive.chunk import CHUNK_ROWS, TradeChunk, TradeFile
from klagg.archive.klines import KlineReader, read_klines
from klagg.archive.recognise import recognise
from klagg.archive.trades import TradeReader, open_trades

__all__ = [
    "CHUNK_ROWS",
    "KlineReader",
    "TradeChunk",
    "TradeFile",
    "TradeReader",
    "open_trades",
    "read_klines",
    "recognise",
]
