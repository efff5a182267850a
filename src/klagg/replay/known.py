"""The instruments that files name, as the database knows them."""

from klagg.model import Candles, Instrument, Market, Status
from klagg.store import SqliteStore


class Known:
    """Identifiers of a market's symbols; unknown ones are made, and scales widened to what their candles need."""

    def __init__(self, store: SqliteStore, market: Market, at_ms: int = 0) -> None:
        self._store = store
        self._market = market
        self._at_ms = at_ms
        self._ids: dict[str, tuple[int, int, int]] = {}

    def forget(self) -> None:
        """A transaction was rolled back: what it made is gone."""
        self._ids.clear()

    def id_of(self, symbol: str, candles: Candles) -> int:
        """The identifier of a symbol whose candles are to be written."""
        number, price_scale, qty_scale = self._ids.get(symbol, (0, -1, -1))
        wanted = int(candles["price_scale"].max()), int(candles["qty_scale"].max())
        if wanted[0] <= price_scale and wanted[1] <= qty_scale:
            return number
        price_scale, qty_scale = max(price_scale, wanted[0]), max(qty_scale, wanted[1])
        for stored in self._store.instruments(self._market):
            if stored.instrument.symbol == symbol:
                number = stored.id
                self._store.widen_scales(number, price_scale, qty_scale)
                break
        else:
            instrument = Instrument(self._market, symbol, Status.TRADING, price_scale, qty_scale)
            number = self._store.put_instruments([instrument], self._at_ms)[symbol]
        self._ids[symbol] = number, price_scale, qty_scale
        return number
