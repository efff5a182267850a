from klagg.client import Barrier as Barrier
from klagg.client import BarrierEvent as BarrierEvent
from klagg.client import CandleEvent as CandleEvent
from klagg.client import CandleKind as CandleKind
from klagg.client import Candles as Candles
from klagg.client import CutEvent as CutEvent
from klagg.client import Event as Event
from klagg.client import Feed as Feed
from klagg.client import Gap as Gap
from klagg.client import GapEvent as GapEvent
from klagg.client import Kind as Kind
from klagg.client import MarketStatus as MarketStatus
from klagg.client import Missing as Missing
from klagg.client import Reader as Reader
from klagg.client import Status as Status
from klagg.client import Symbol as Symbol
from klagg.client import SymbolEvent as SymbolEvent
from klagg.client import open as open
from klagg.errors import BarrierTimeout as BarrierTimeout
from klagg.errors import KlaggError as KlaggError
from klagg.errors import MalformedRow as MalformedRow
from klagg.errors import NumberError as NumberError
from klagg.errors import ServiceError as ServiceError
from klagg.errors import StoreError as StoreError
from klagg.errors import StoreUnavailable as StoreUnavailable
from klagg.errors import UsageError as UsageError

__version__: str
