"""The Python API: `klagg.open` reads a database or a running service, and both give the same answers.

Candles come as columns (Arrow, and from there pandas and polars), the feed as an iterator, plain or asynchronous. Nothing here
writes, and nothing is needed of a service but its address.
"""

from klagg.client.events import (
    BarrierEvent,
    CandleEvent,
    CandleKind,
    CutEvent,
    Event,
    GapEvent,
    Kind,
    SymbolEvent,
)
from klagg.client.facts import Barrier, Gap, MarketStatus, Missing, Status, Symbol
from klagg.client.feed import Feed
from klagg.client.frame import Candles
from klagg.client.opening import open  # noqa: A004 - the verb people expect, as of gzip and sqlite
from klagg.client.reader import Reader

__all__ = [
    "Barrier",
    "BarrierEvent",
    "CandleEvent",
    "CandleKind",
    "Candles",
    "CutEvent",
    "Event",
    "Feed",
    "Gap",
    "GapEvent",
    "Kind",
    "MarketStatus",
    "Missing",
    "Reader",
    "Status",
    "Symbol",
    "SymbolEvent",
    "open",
]
