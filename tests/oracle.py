"""The engine's naive twin: plain Python, plain `Decimal`, everything recomputed from scratch, nothing clever.

It remembers what happened to each instrument (its trades, where its clock stands, when its feed was alive, which
ids were given up), and works every candle out of that when asked. Rules: the design, sections 1, 2.3 and 2.4.
"""

from collections import defaultdict, namedtuple
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from decimal import Decimal, getcontext
from itertools import pairwise

import numpy as np

from klagg.interval import MINUTE, MINUTE_MS, Interval
from klagg.model import CANDLE, TRADE, Candles, Origin, TradeKind, Trades

getcontext().prec = 60

AMENDABLE_MINUTES = 3
"""Closed minutes that a late trade may still change."""
HOLE_MS = 5_000
"""How long late arrivals may fill a hole in the ids."""
WINDOW = 256
"""How far above the unbroken ids an id may lie before the hole below it is given up at once."""
FUTURE_MS = 60_000
RENUMBERING_MS = 60_000
"""A lower id dated this much after the last trade begins a new numbering."""
FOREVER = 2**62
"""A trade from further ahead than this is invalid."""


@dataclass(frozen=True, slots=True)
class Trade:
    """A trade or aggregate, in exact numbers."""

    agg_id: int
    time_ms: int
    price: Decimal
    qty: Decimal
    buyer_is_maker: bool = False
    first_id: int = 0
    last_id: int = 0
    market: bool = True


@dataclass(frozen=True, slots=True)
class Candle:
    """A candle in exact numbers."""

    open_ms: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal = Decimal(0)
    quote: Decimal = Decimal(0)
    taker_volume: Decimal = Decimal(0)
    taker_quote: Decimal = Decimal(0)
    trades: int = 0
    first_id: int = -1
    last_id: int = -1
    origin: Origin = Origin.FILLED


def ends_at(boundary_ms: int) -> set[str]:
    """The names of the intervals of which a candle ends at a whole minute, as the calendar on the wall has it."""
    at = datetime.fromtimestamp(boundary_ms // 1_000, UTC)
    minute_of_day = at.hour * 60 + at.minute
    minutes = {"1m": 1, "3m": 3, "5m": 5, "15m": 15, "30m": 30, "1h": 60}
    hours = {"2h": 120, "4h": 240, "6h": 360, "8h": 480, "12h": 720, "1d": 1_440}
    names = {name for name, length in (minutes | hours).items() if minute_of_day % length == 0}
    if minute_of_day == 0:
        days = (at.date() - date(1970, 1, 2)).days
        names |= {
            name for name, ends in (("3d", days % 3 == 0), ("1w", at.weekday() == 0), ("1M", at.day == 1)) if ends
        }
    return names


def flat(open_ms: int, price: Decimal, origin: Origin) -> Candle:
    """A candle in which nobody traded."""
    return Candle(open_ms, price, price, price, price, origin=origin)


def candle_of(open_ms: int, trades: Iterable[Trade], origin: Origin) -> Candle:
    """The candle of at least one trade, in the order of the ids."""
    ordered = sorted(trades, key=lambda trade: trade.agg_id)
    takers_buy = [trade for trade in ordered if not trade.buyer_is_maker]
    return Candle(
        open_ms=open_ms,
        open=ordered[0].price,
        high=max(trade.price for trade in ordered),
        low=min(trade.price for trade in ordered),
        close=ordered[-1].price,
        volume=sum((trade.qty for trade in ordered), Decimal(0)),
        quote=sum((trade.price * trade.qty for trade in ordered), Decimal(0)),
        taker_volume=sum((trade.qty for trade in takers_buy), Decimal(0)),
        taker_quote=sum((trade.price * trade.qty for trade in takers_buy), Decimal(0)),
        trades=sum(trade.last_id - trade.first_id + 1 for trade in ordered),
        first_id=min(trade.first_id for trade in ordered),
        last_id=max(trade.last_id for trade in ordered),
        origin=origin,
    )


def fold_origin(children: Sequence[Candle], trades: int) -> Origin:
    """What a longer candle is, by what its pieces are."""
    if all(child.origin == Origin.EXCHANGE for child in children):
        return Origin.EXCHANGE
    lowest = min(child.origin for child in children)
    if trades == 0:
        return min(lowest, Origin.FLAT)
    return Origin.TRADES if lowest >= Origin.FLAT else Origin.PARTIAL


def fold(open_ms: int, children: Sequence[Candle]) -> Candle:
    """A longer candle from its pieces in order, of which there is at least one."""
    traded = [child for child in children if child.trades > 0]
    trades = sum(child.trades for child in traded)
    origin = fold_origin(children, trades)
    if not traded:
        return flat(open_ms, children[-1].close, origin)
    return Candle(
        open_ms=open_ms,
        open=traded[0].open,
        high=max(child.high for child in traded),
        low=min(child.low for child in traded),
        close=children[-1].close,
        volume=sum((child.volume for child in traded), Decimal(0)),
        quote=sum((child.quote for child in traded), Decimal(0)),
        taker_volume=sum((child.taker_volume for child in traded), Decimal(0)),
        taker_quote=sum((child.taker_quote for child in traded), Decimal(0)),
        trades=trades,
        first_id=min((child.first_id for child in traded if child.first_id >= 0), default=-1),
        last_id=max((child.last_id for child in traded), default=-1),
        origin=origin,
    )


@dataclass
class Instrument:
    """Everything that happened to one instrument since it was added at `seed_ms` with `seed_price`."""

    seed_ms: int
    seed_price: Decimal
    seeded: bool = True
    """Whether its first minute is one of activation."""
    open_ms: int = 0
    """The open of the minute that is running."""
    taken: list[Trade] = field(default_factory=list)
    """The market trades in candles."""
    runs: list[list[tuple[int, int]]] = field(default_factory=list)
    """Ids seen, as (id, time) in the order of the ids: runs without a hole; between two of them a hole was given up."""
    ahead: dict[int, int] = field(default_factory=dict)
    """The time of each id seen beyond the last run, whose hole late arrivals may still fill."""
    missed_since: dict[int, int] = field(default_factory=dict)
    """The ids that are missing before those ahead, and since when."""
    not_counted: list[int] = field(default_factory=list)
    """The times of trades that came too late for their minute."""
    latest_ms: int = 0
    """The latest time of any trade."""
    alive_since_ms: int = FOREVER
    """Since when the feed has been alive; FOREVER while it is blind."""
    alive: set[int] = field(default_factory=set)
    """The opens of the minutes that closed while the feed had been alive throughout."""

    def __post_init__(self) -> None:
        self.open_ms = self.seed_ms

    # --- what happens to it ---------------------------------------------------------------------------------------

    def advance(self, boundary_ms: int) -> None:
        """The clock says: every minute that ends at or before the boundary is over."""
        while self.open_ms + MINUTE_MS <= boundary_ms:
            if self.alive_since_ms <= self.open_ms:
                self.alive.add(self.open_ms)
            self.open_ms += MINUTE_MS

    def apply(self, trade: Trade, now_ms: int) -> str:
        """Take one trade; says what became of it."""
        if trade.time_ms > now_ms + FUTURE_MS or (trade.market and (trade.price <= 0 or trade.qty <= 0)):
            return "invalid"
        if not self._take_id(trade.agg_id, trade.time_ms, now_ms):
            return "duplicate"
        self.latest_ms = max(self.latest_ms, trade.time_ms)
        minute_ms = trade.time_ms // MINUTE_MS * MINUTE_MS
        self.advance(minute_ms)
        if not trade.market:
            return "not_market"
        if minute_ms < max(self.seed_ms, self.open_ms - AMENDABLE_MINUTES * MINUTE_MS):
            self.not_counted.append(trade.time_ms)
            return "too_old"
        self.taken.append(trade)
        return "applied" if minute_ms == self.open_ms else "late"

    def _take_id(self, number: int, time_ms: int, now_ms: int) -> bool:
        if not self.runs:
            self.runs.append([(number, time_ms)])
            return True
        newest = self.runs[-1][-1][0]
        if number <= newest:
            if time_ms <= self.latest_ms + RENUMBERING_MS:
                return False
            self._start_again(number, time_ms)
        elif number in self.ahead:
            return False
        elif number > newest + WINDOW:
            self._start_again(number, time_ms)
        else:
            self.ahead[number] = time_ms
            self.missed_since.pop(number, None)
            for missing in range(newest + 1, number):
                if missing not in self.ahead:
                    self.missed_since.setdefault(missing, now_ms)
            self._join()
        return True

    def _start_again(self, number: int, time_ms: int) -> None:
        """Everything between the last run and this id is given up."""
        self.runs.append([(number, time_ms)])
        self.ahead.clear()
        self.missed_since.clear()

    def _join(self) -> None:
        while (following := self.runs[-1][-1][0] + 1) in self.ahead:
            self.runs[-1].append((following, self.ahead.pop(following)))

    def expire_holes(self, now_ms: int) -> None:
        """Give up the holes that late arrivals did not fill in time."""
        while self.ahead:
            first = min(self.ahead)
            if now_ms - self.missed_since[first - 1] < HOLE_MS:
                return
            self.runs.append([(first, self.ahead.pop(first))])
            self.missed_since = {number: since for number, since in self.missed_since.items() if number > first}
            self._join()

    def sight(self, at_ms: int) -> None:
        """From now on the feed is alive."""
        self.alive_since_ms = min(self.alive_since_ms, at_ms)

    def blind(self, since_ms: int) -> None:
        """The feed was not alive since then, as is only known now."""
        self.alive_since_ms = FOREVER
        self.alive = {open_ms for open_ms in self.alive if open_ms + MINUTE_MS <= since_ms}

    # --- what its candles are -------------------------------------------------------------------------------------

    def minutes(self) -> list[Candle]:
        """Every minute from the first to the one that is running."""
        by_minute: dict[int, list[Trade]] = defaultdict(list)
        for trade in self.taken:
            by_minute[trade.time_ms // MINUTE_MS * MINUTE_MS].append(trade)
        minutes: list[Candle] = []
        close = self.seed_price
        for open_ms in range(self.seed_ms, self.open_ms + MINUTE_MS, MINUTE_MS):
            whole, doubted = self._evidence(open_ms, open_ms + MINUTE_MS)
            if open_ms in by_minute:
                minute = candle_of(open_ms, by_minute[open_ms], Origin.TRADES if whole else Origin.PARTIAL)
            else:
                minute = flat(open_ms, close, self._quiet_origin(open_ms, whole=whole, doubted=doubted))
            minutes.append(minute)
            close = minute.close
        return minutes

    def _evidence(self, open_ms: int, end_ms: int) -> tuple[bool, bool]:
        """Whether unbroken ids prove a minute whole, and whether something of it may be missing."""
        lacks = any(open_ms <= time_ms < end_ms for time_ms in self.not_counted)
        spans = [(run[0][1], run[-1][1]) for run in self.runs]
        whole = any(first_ms < open_ms and end_ms <= last_ms for first_ms, last_ms in spans)
        hole = any(before[1] < end_ms and open_ms <= after[0] for before, after in pairwise(spans))
        return whole and not lacks, hole or lacks

    def _quiet_origin(self, open_ms: int, *, whole: bool, doubted: bool) -> Origin:
        if whole:
            return Origin.FLAT
        if doubted:
            return Origin.FILLED
        if self.seeded and open_ms == self.seed_ms:
            return Origin.SEED
        return Origin.FLAT if open_ms in self.alive else Origin.FILLED

    def candles(self, interval: Interval, minutes: Sequence[Candle] = ()) -> tuple[list[Candle], Candle]:
        """Every closed candle of the interval, and the running one (a longer one: folded from closed minutes only).

        `minutes`: what `minutes()` says, where the caller already asked.
        """
        minutes = minutes or self.minutes()
        if interval is MINUTE:
            return list(minutes[:-1]), minutes[-1]
        groups: dict[int, list[Candle]] = defaultdict(list)
        for minute in minutes[:-1]:
            groups[interval.open_at(minute.open_ms)].append(minute)
        folded = {open_ms: self._folded(open_ms, group) for open_ms, group in groups.items()}
        running_ms = interval.open_at(self.open_ms)
        last_close = minutes[-2].close if len(minutes) > 1 else self.seed_price
        unknown_before = Origin.SEED if running_ms < self.seed_ms else Origin.FLAT
        running = folded.pop(running_ms, flat(running_ms, last_close, unknown_before))
        return list(folded.values()), running

    def _folded(self, open_ms: int, group: Sequence[Candle]) -> Candle:
        candle = fold(open_ms, group)
        if open_ms >= self.seed_ms:
            return candle
        # What lies before the seed is not known: it ranks as a seed.
        unknown = flat(open_ms, self.seed_price, Origin.SEED)
        return replace(candle, origin=fold_origin([unknown, *group], candle.trades))


# --- between the oracle's numbers and the engine's --------------------------------------------------------------------


def mantissa_of(number: Decimal) -> tuple[int, int]:
    """A decimal's digits and how many of them are fractional, as few as it needs."""
    exponent = int(number.normalize().as_tuple().exponent)
    scale = max(0, -exponent)
    return int(number.scaleb(scale)), scale


def trade_rows(trades: Sequence[Trade], slot: int | Sequence[int] = 0) -> Trades:
    """The trades as the engine takes them, of one slot or with a slot for each."""
    rows = np.zeros(len(trades), TRADE)
    rows["slot"] = slot
    for row, trade in zip(rows, trades, strict=True):
        row["price"], row["price_scale"] = mantissa_of(trade.price)
        row["qty"], row["qty_scale"] = mantissa_of(trade.qty)
        row["buyer_is_maker"] = trade.buyer_is_maker
        row["kind"] = TradeKind.MARKET if trade.market else TradeKind.OTHER
        for name in ("agg_id", "first_id", "last_id", "time_ms"):
            row[name] = getattr(trade, name)
    return rows


Row = namedtuple("Row", CANDLE.names)  # noqa: PYI024 (the columns have one home, which is the model)


def exact_candle(row: Row) -> Candle:
    """One of the engine's candles in exact numbers."""

    def price(mantissa: int) -> Decimal:
        return Decimal(mantissa).scaleb(-row.price_scale)

    def two_words(hi: int, lo: int, scale: int) -> Decimal:
        assert 0 <= lo < 10**18
        return Decimal(hi * 10**18 + lo).scaleb(-scale)

    return Candle(
        open_ms=row.open_ms,
        open=price(row.open),
        high=price(row.high),
        low=price(row.low),
        close=price(row.close),
        volume=two_words(row.volume_hi, row.volume_lo, row.qty_scale),
        quote=two_words(row.quote_hi, row.quote_lo, row.price_scale + row.qty_scale),
        taker_volume=two_words(row.taker_volume_hi, row.taker_volume_lo, row.qty_scale),
        taker_quote=two_words(row.taker_quote_hi, row.taker_quote_lo, row.price_scale + row.qty_scale),
        trades=row.trades,
        first_id=row.first_id,
        last_id=row.last_id,
        origin=Origin(row.origin),
    )


def exact_candles(rows: Candles) -> list[tuple[tuple[int, int, int], Candle]]:
    """The engine's candles in exact numbers, each under its slot, its interval's code and its open."""
    named = [Row(*row) for row in rows.tolist()]
    return [((row.slot, row.interval, row.open_ms), exact_candle(row)) for row in named]
