"""The judge's market: what was traded, and the klines that follow from it. Written from the exchange's documents alone.

It shares nothing with klagg: plain integers and text, its own calendar, its own sums.
"""

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime

MINUTE = 60_000
DAY = 86_400_000
HOURS = {f"{hours}h": 60 * hours for hours in (1, 2, 4, 6, 8, 12)}
STEPS = {"1m": 1, "3m": 3, "5m": 5, "15m": 15, "30m": 30, **HOURS, "1d": 1_440, "3d": 4_320, "1w": 10_080}
ANCHORS = {"3d": DAY, "1w": 4 * DAY}


def opening(interval: str, t_ms: int) -> int:
    """The open of the candle that holds an instant."""
    if interval == "1M":
        at = datetime.fromtimestamp(t_ms / 1_000, UTC)
        return int(datetime(at.year, at.month, 1, tzinfo=UTC).timestamp()) * 1_000
    return t_ms - (t_ms - ANCHORS.get(interval, 0)) % (STEPS[interval] * MINUTE)


def following(interval: str, open_ms: int) -> int:
    """The open of the next candle."""
    if interval != "1M":
        return open_ms + STEPS[interval] * MINUTE
    at = datetime.fromtimestamp(open_ms / 1_000, UTC)
    year, month = (at.year + 1, 1) if at.month == 12 else (at.year, at.month + 1)
    return int(datetime(year, month, 1, tzinfo=UTC).timestamp()) * 1_000


@dataclass
class Minute:
    """One minute's sums; without trades all prices are the close before it."""

    open: int
    high: int
    low: int
    close: int
    volume: int = 0
    quote: int = 0
    taker: int = 0
    taker_quote: int = 0
    trades: int = 0
    first_id: int = -1
    last_id: int = -1

    def add(self, price: int, qty: int, count: int, first_id: int, *, maker: bool) -> None:
        if self.trades == 0:
            self.open = self.high = self.low = price
            self.first_id = first_id
        self.high, self.low, self.close = max(self.high, price), min(self.low, price), price
        self.last_id = first_id + count - 1
        self.trades += count
        self.volume += qty
        self.quote += qty * price
        if not maker:
            self.taker += qty
            self.taker_quote += qty * price


@dataclass
class Symbol:
    """A symbol, its trades a second, and every minute of its life."""

    name: str
    rate: float
    price: int
    price_digits: int
    qty_digits: int
    born_ms: int
    status: str = "TRADING"
    qty_unit: int = 1
    refused_until_ms: int = 0
    """Klines are answered -1122 until then, as a fresh listing's are."""
    minutes: dict[int, Minute] = field(default_factory=dict)
    lacking: set[int] = field(default_factory=set)
    """Minutes that the exchange has no row for (an outage)."""
    traded_ms: int = 0
    """Up to where its trades have been made."""
    agg_id: int = 1_000_000
    trade_id: int = 5_000_000
    _next_ms: int = 0
    _cache: dict[tuple[str, int], list | None] = field(default_factory=dict)

    def make_history(self, upto_ms: int, chance: random.Random) -> None:
        """Minutes from birth up to now, one or a few trades each, at the price that the live market goes on from."""
        for open_ms in range(self.born_ms - self.born_ms % MINUTE, upto_ms, MINUTE):
            minute = self.minutes[open_ms] = Minute(*[self.price] * 4)
            self._next_ms = open_ms + MINUTE
            for _ in range(chance.choice((0, 1, 3)) if self.rate < 1 else 2):
                self.price = max(self.price + chance.randrange(-3, 4), 2)
                qty = chance.randrange(1, 5_000) * self.qty_unit
                minute.add(self.price, qty, 1, self.trade_id, maker=chance.random() < 0.5)
                self.trade_id += 1

    def flow(self, now_ms: int) -> None:
        """Every minute up to now exists, traded in or not."""
        for open_ms in range(self._next_ms or self.born_ms - self.born_ms % MINUTE, now_ms + 1, MINUTE):
            self.minutes[open_ms] = Minute(*[self.price] * 4)
            self._next_ms = open_ms + MINUTE

    def trade(self, t_ms: int, qty: int, count: int, *, maker: bool) -> None:
        self.flow(t_ms)
        self.minutes[t_ms - t_ms % MINUTE].add(self.price, qty, count, self.trade_id, maker=maker)

    def finer(self) -> None:
        """The price gets one more digit."""
        self.price_digits, self.price = self.price_digits + 1, self.price * 10
        for one in self.minutes.values():
            for name in ("open", "high", "low", "close", "quote", "taker_quote"):
                setattr(one, name, getattr(one, name) * 10)
        self._cache.clear()

    def row(self, interval: str, open_ms: int, now_ms: int) -> list | None:
        """One kline row of twelve elements, None where the exchange has none."""
        end_ms = following(interval, open_ms)
        key = interval, open_ms
        if end_ms <= now_ms - 1_000 and key in self._cache:
            return self._cache[key]
        opens = range(open_ms, min(end_ms, now_ms + 1), MINUTE)
        found = [self.minutes[at] for at in opens if at in self.minutes and at not in self.lacking]
        made = self._sum(found, open_ms, end_ms) if found else None
        if end_ms <= now_ms - 1_000:
            self._cache[key] = made
        return made

    def _sum(self, found: list[Minute], open_ms: int, end_ms: int) -> list:
        traded = [one for one in found if one.trades] or found[-1:]
        prices = traded[0].open, max(m.high for m in traded), min(m.low for m in traded), found[-1].close
        p, q = self.price_digits, self.qty_digits
        totals = {
            name: sum(getattr(one, name) for one in found) for name in ("volume", "quote", "taker", "taker_quote")
        }
        return [
            open_ms,
            *(text(price, p) for price in prices),
            text(totals["volume"], q),
            end_ms - 1,
            text(totals["quote"], p + q),
            sum(one.trades for one in found),
            text(totals["taker"], q),
            text(totals["taker_quote"], p + q),
            "0",
        ]

    def rows(self, interval: str, start_ms: int, end_ms: int, limit: int, now_ms: int) -> list[list]:
        """The rows whose open lies in `[start_ms, end_ms]`, as the klines endpoint selects them."""
        if not self.minutes:
            return []
        open_ms = opening(interval, max(start_ms, next(iter(self.minutes))))
        if open_ms < start_ms:
            open_ms = following(interval, open_ms)
        found: list[list] = []
        while open_ms <= min(end_ms, now_ms) and len(found) < limit:
            row = self.row(interval, open_ms, now_ms)
            if row is not None:
                found.append(row)
            open_ms = following(interval, open_ms)
        return found


def text(value: int, digits: int) -> str:
    """A mantissa as decimal text."""
    if digits == 0:
        return str(value)
    padded = str(value).rjust(digits + 1, "0")
    return f"{padded[:-digits]}.{padded[-digits:]}"
