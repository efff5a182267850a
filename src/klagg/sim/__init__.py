"""The offline exchange: Binance's REST and WebSocket market data for a market made from a seed, or from recordings.

It is an independent witness: it shares no wire code with `klagg.exchange` and computes its candles with its own plain
code, so that what klagg makes can be compared with it.
"""

from klagg.sim.exchange import OfflineExchange
from klagg.sim.faults import load_faults
from klagg.sim.settings import EmptyKlinePush, ExchangeSettings, ListingEvent
from klagg.sim.venue import Venue

__all__ = ["EmptyKlinePush", "ExchangeSettings", "ListingEvent", "OfflineExchange", "Venue", "load_faults"]
