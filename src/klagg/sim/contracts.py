"""The symbols of a synthetic market: their grids, prices, trade rates and lives."""

import hashlib
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from klagg.sim.calendar import DAY_MS, HOUR_MS
from klagg.sim.settings import ExchangeSettings

PERPETUAL_DELIVERY_MS: Final = 4_133_404_800_000
"""The delivery date the exchange writes for a perpetual that has no end."""

_KNOWN: Final = (
    ("BTC", 85_000.0), ("ETH", 3_200.0), ("SOL", 180.0), ("XRP", 2.3), ("BNB", 640.0), ("DOGE", 0.21),
    ("币安人生", 0.15), ("ADA", 0.7), ("1000SHIB", 0.0125), ("LINK", 18.0), ("TSLA", 410.0), ("TRX", 0.28),
    ("AVAX", 24.0), ("SUI", 3.1), ("LTC", 95.0), ("DOT", 4.9), ("NEAR", 2.9), ("APT", 6.0), ("UNI", 8.8),
    ("ETC", 19.0), ("FIL", 2.6), ("ATOM", 4.4), ("ARB", 0.41), ("OP", 0.73), ("INJ", 12.0), ("AAVE", 270.0),
    ("SEI", 0.29), ("TIA", 1.7), ("ALGO", 0.23), ("VET", 0.024), ("HBAR", 0.22), ("XLM", 0.38), ("ICP", 5.2),
    ("GALA", 0.016), ("SAND", 0.28), ("AXS", 2.4), ("CHZ", 0.041), ("ENJ", 0.066), ("CRV", 0.74), ("ZEC", 52.0),
    ("DASH", 23.0), ("XTZ", 0.71), ("EGLD", 13.5), ("KSM", 15.0), ("YFI", 5_100.0), ("MKR", 1_650.0), ("COMP", 44.0),
    ("SNX", 0.63), ("RUNE", 1.3), ("CELR", 0.0075),
)  # fmt: skip
TOP_RATE: Final = 6.0
"""Aggregates a second of the busiest symbol at rate 1."""


@dataclass(slots=True)
class Contract:
    """One instrument. `tick` and `step` are in its smallest written units (10^-price_decimals, 10^-qty_decimals).

    It trades in `[listed_ms, retired_ms)`. `status` overrides what would follow from these times.
    """

    symbol: str
    base: str
    quote: str
    price_decimals: int
    tick: int
    qty_decimals: int
    step: int
    base_price: float
    per_day: int
    """Aggregates on each full UTC day."""
    listed_ms: int
    retired_ms: int | None = None
    contract_type: str = "PERPETUAL"
    status: str | None = None
    visible_from_ms: int = 0
    """Before this the exchange's symbol list does not have it."""
    numbered_from_listing: bool = False
    """Whether aggregate ids begin with 1 at the listing, as a fresh symbol's do."""
    pauses: tuple[tuple[int, int, str], ...] = ()
    """Times `[start_ms, end_ms)` in which it has another status, and no trades."""
    finer_from_ms: int = 0
    """When its grid became, or becomes, as fine as `tick` and `step` are; 0 for always."""
    coarse_tick: int = 0
    coarse_step: int = 0
    """The grid before that."""

    @property
    def stream(self) -> str:
        """The symbol as stream names have it."""
        return self.symbol.lower()

    def trades_at(self, t_ms: int) -> bool:
        """Whether it trades at an instant."""
        return self.listed_ms <= t_ms and (self.retired_ms is None or t_ms < self.retired_ms)

    def grid_at(self, t_ms: int) -> tuple[int, int]:
        """Tick and step at an instant."""
        return (self.coarse_tick, self.coarse_step) if t_ms < self.finer_from_ms else (self.tick, self.step)


def _grid(price: float, *, spot: bool, coarse: bool) -> tuple[int, int, int, int]:
    """Price decimals, tick, quantity decimals and step that suit a price, all in written units."""
    magnitude = math.floor(math.log10(price))
    price_decimals = max(2, min(8 if spot else 7, 4 - magnitude))
    # A tenth of a thousand dollars is a common smallest order; the sum of both decimals stays within the 8 of spot.
    qty_decimals = max(0, min(5 if spot else 3, magnitude + 1, 8 - price_decimals))
    tick = 10 if coarse and price * 10**price_decimals > 20_000 else 1
    return price_decimals, tick, qty_decimals, 1


def _per_second(rank: int, count: int) -> float:
    """Aggregates a second of the symbol of a rank: a power law, and a quiet tail where most minutes are empty."""
    tail = math.ceil(count * 0.6)
    if rank < max(tail, 3):
        return float(TOP_RATE * (1 + rank / 3) ** -1.5)
    share = (rank - tail) / max(1, count - 1 - tail)
    return float(0.03 * (0.003 / 0.03) ** share)


def _quarter_end(after_ms: int) -> tuple[str, int]:
    """The next quarterly delivery at least 30 days on: its code (YYMMDD) and its instant, the last Friday at 08:00."""
    day = datetime.fromtimestamp(after_ms / 1000, UTC) + timedelta(days=30)
    quarter = (day.month - 1) // 3
    while True:
        year, month = day.year + (quarter + 1) // 4, (quarter + 1) % 4 * 3 + 1
        last = datetime(year, month, 1, 8, tzinfo=UTC) - timedelta(days=1)
        friday = last - timedelta(days=(last.weekday() - 4) % 7)
        if friday > day:
            return friday.strftime("%y%m%d"), int(friday.timestamp() * 1000)
        quarter += 1


def _make(settings: ExchangeSettings, base: str, price: float, per_second: float, listed_ms: int) -> Contract:
    coarse = hashlib.blake2b(base.encode(), digest_size=1).digest()[0] % 3 == 0 or base == "BTC"
    price_decimals, tick, qty_decimals, step = _grid(price, spot=settings.is_spot, coarse=coarse)
    return Contract(
        symbol=f"{base}USDT",
        base=base,
        quote="USDT",
        price_decimals=price_decimals,
        tick=tick,
        qty_decimals=qty_decimals,
        step=step,
        base_price=price,
        per_day=max(4, round(per_second * settings.rate * 86_400)),
        listed_ms=listed_ms,
    )


def fresh_contract(settings: ExchangeSettings, symbol: str, listed_ms: int) -> Contract:
    """The contract of a symbol that is listed while the exchange runs; its ids begin with 1."""
    base = symbol.removesuffix("USDT") or symbol
    draw = int.from_bytes(hashlib.blake2b(symbol.encode(), digest_size=4).digest(), "big") / 2**32
    contract = _make(settings, base, 0.05 * 400**draw, 1.5, listed_ms)
    contract.symbol = symbol
    contract.numbered_from_listing = True
    return contract


def history_start_ms(settings: ExchangeSettings, start_ms: int) -> int:
    """The first instant of the synthetic market: the UTC midnight at or before the wanted depth."""
    return (start_ms - settings.history_ms) // DAY_MS * DAY_MS


def synthetic_contracts(settings: ExchangeSettings, start_ms: int) -> list[Contract]:
    """All instruments of the synthetic market, in the order of the symbol list: the trading ones, then the others."""
    begin_ms = history_start_ms(settings, start_ms)
    contracts = []
    for rank in range(settings.symbols):
        base, price = _KNOWN[rank] if rank < len(_KNOWN) else (f"K{rank:03d}", 0.02 * 1.7 ** (rank % 17))
        if settings.is_spot and base == "1000SHIB":
            base, price = "SHIB", 0.0000125
        contract = _make(settings, base, price, _per_second(rank, settings.symbols), begin_ms)
        if not settings.is_spot and base == "TSLA":
            contract.contract_type = "TRADIFI_PERPETUAL"
        if not settings.is_spot and base == "ETC":
            code, delivery_ms = _quarter_end(start_ms)
            contract = _make(settings, "BTC", 86_100.0, 0.05, begin_ms)
            contract.symbol, contract.contract_type = f"BTCUSDT_{code}", "CURRENT_QUARTER"
            contract.retired_ms = delivery_ms
        contracts.append(contract)
    contracts += _not_trading(settings, begin_ms, start_ms)
    for event in settings.listings:
        at_ms = start_ms + event.at_offset_ms
        if event.kind == "list":
            contract = fresh_contract(settings, event.symbol, at_ms)
            # Futures are announced before they trade; on spot a symbol appears with its first trade.
            contract.visible_from_ms = at_ms if settings.is_spot else 0
            contracts.append(contract)
        else:
            next(c for c in contracts if c.symbol == event.symbol).retired_ms = at_ms
    return contracts


def _not_trading(settings: ExchangeSettings, begin_ms: int, start_ms: int) -> list[Contract]:
    """Instruments in other statuses: gone, halted, not yet open, and in one that nobody knows yet."""
    hour_ms = start_ms // HOUR_MS * HOUR_MS
    gone = _make(settings, "LUNA2", 0.45, 0.2, begin_ms)
    gone.retired_ms = hour_ms - 6 * HOUR_MS
    odd = _make(settings, "ODD", 1.25, 0.02, begin_ms)
    odd.status, odd.retired_ms = "UNDER_REVIEW", hour_ms - 3 * HOUR_MS
    coming = _make(settings, "SOON", 3.3, 0.5, start_ms + 7 * DAY_MS)
    if not settings.is_spot:
        return [gone, coming, odd]
    halted = _make(settings, "WAVES", 1.1, 0.1, begin_ms)
    halted.status, halted.retired_ms = "HALT", hour_ms - 2 * HOUR_MS
    cancel = _make(settings, "BTS", 0.009, 0.1, begin_ms)
    cancel.status, cancel.retired_ms = "CANCEL_ONLY", hour_ms - 4 * HOUR_MS
    return [gone, halted, cancel, odd]
