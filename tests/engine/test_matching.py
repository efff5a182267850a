"""What the exchange says, brought into the engine: in the end every candle is the exchange's own, whatever was lost before."""

import random
from collections import defaultdict
from decimal import Decimal

import numpy as np
import pytest

from klagg.engine import matching
from klagg.engine.engine import Engine
from klagg.engine.fold import fold
from klagg.interval import BY_NAME, MINUTE, MINUTE_MS, parse_intervals
from klagg.model import Candles, Flag, Origin, TradeKind, joined, no_candles
from oracle import Candle, Instrument, Trade, candle_of, exact_candles, flat, mantissa_of, trade_rows

START_MS = 1_723_420_620_000
"""Sunday, 11 August 2024, 23:57 UTC: the days and the week turn within the test."""
PRICES = [Decimal(text) for text in ("100.5", "99.123", "0.0001", "123456.7")]


def kline_row(candle: Candle, slot: int, code: int) -> Candles:
    """The exchange's settled kline as the adapter hands it over, at scales as narrow as it needs."""
    row = no_candles(1)
    scales = [mantissa_of(number)[1] for number in (candle.open, candle.high, candle.low, candle.close)]
    row["price_scale"] = price_scale = max(scales)
    row["qty_scale"] = qty_scale = 3 if candle.trades else 0
    sums = {"volume": qty_scale, "taker_volume": qty_scale, "quote": price_scale + qty_scale}
    for name, scale in (sums | {"taker_quote": price_scale + qty_scale}).items():
        row[f"{name}_hi"], row[f"{name}_lo"] = divmod(int(getattr(candle, name).scaleb(scale)), 10**18)
    for name in ("open", "high", "low", "close"):
        row[name] = int(getattr(candle, name).scaleb(price_scale))
    row["slot"], row["interval"], row["open_ms"], row["trades"] = slot, code, candle.open_ms, candle.trades
    row["first_id"] = row["last_id"] = -1
    row["origin"], row["flags"] = Origin.EXCHANGE, Flag.CLOSED | Flag.VERIFIED
    return row


class World:
    """An exchange that knows all its trades, an engine that hears some of them, and a store of what comes out."""

    def __init__(self, seed: int, names: list[str]) -> None:
        self.rng = random.Random(seed)
        self.intervals = parse_intervals(names)
        self.truth: dict[int, list[Trade]] = defaultdict(list)
        self.now_ms = START_MS
        self.next_id = 1
        self.engine = Engine(self.intervals, capacity=2)
        self.slot = self.engine.add(1, 0, START_MS, 1005)
        self.engine.sight([self.slot], START_MS)
        self.store: dict[tuple[int, int], Candles] = {}

    def trade(self) -> None:
        trade = Trade(
            self.next_id,
            self.now_ms,
            self.rng.choice(PRICES),
            Decimal(self.rng.randrange(1, 10_000)).scaleb(-self.rng.randrange(4)),
            self.rng.random() < 0.5,
            self.next_id,
            self.next_id,
        )
        self.next_id += 1
        self.truth[trade.time_ms // MINUTE_MS * MINUTE_MS].append(trade)
        if self.rng.random() < 0.8:
            self.engine.apply(trade_rows([trade], self.slot), self.now_ms)

    def wait(self, wait_ms: int) -> None:
        self.now_ms += wait_ms
        boundary_ms = self.now_ms // MINUTE_MS * MINUTE_MS
        while not self.engine.advance(boundary_ms):
            pass
        self.engine.expire_holes(self.now_ms)
        self.collect()

    def collect(self) -> None:
        rows = self.engine.collect()
        for index in range(len(rows)):
            self.store[int(rows["interval"][index]), int(rows["open_ms"][index])] = rows[index : index + 1]

    def true_minutes(self) -> list[Candle]:
        """The exchange's closed minutes."""
        minutes, close = [], Decimal("100.5")
        for open_ms in range(START_MS, self.engine.boundary_ms, MINUTE_MS):
            trades = self.truth.get(open_ms)
            minutes.append(
                candle_of(open_ms, trades, Origin.EXCHANGE) if trades else flat(open_ms, close, Origin.EXCHANGE)
            )
            close = minutes[-1].close
        return minutes

    def repair(self, opens: list[int], *, always: bool = True) -> None:
        """Bring the exchange's minutes in and hand the longer candles back, folded from the store, as the service does."""
        by_open = {minute.open_ms: minute for minute in self.true_minutes()}
        klines = joined([kline_row(by_open[open_ms], self.slot, MINUTE.code) for open_ms in opens])
        if self.rng.random() < 0.5:
            verdicts = self.engine.compare(klines)
            klines = klines[verdicts == matching.DIFFERS]
        verdicts = self.engine.replace(klines)
        assert (verdicts != matching.TOO_WIDE).all()
        self.collect()
        for open_ms in opens:
            self.store[MINUTE.code, open_ms] = kline_row(by_open[open_ms], self.slot, MINUTE.code)
        for interval in self.intervals[1:]:
            if always or self.rng.random() < 0.7:
                self.hand_back(interval, min(opens))
        self.check_vouched()

    def hand_back(self, interval, changed_ms: int) -> None:
        boundary_ms = self.engine.boundary_ms
        last_ms = interval.open_at(interval.open_at(boundary_ms) - 1)
        for open_ms in interval.opens(START_MS, last_ms):
            # Older ones the engine no longer has: they are folded again where they are stored.
            tiles = range(open_ms, interval.next_open(open_ms), MINUTE_MS)
            self.store[interval.code, open_ms] = fold(
                joined([self.store[MINUTE.code, at] for at in tiles]), interval
            ).candles
        for open_ms in {interval.open_at(boundary_ms), last_ms}:
            end_ms = min(interval.next_open(open_ms), boundary_ms)
            if open_ms < START_MS or end_ms <= max(changed_ms, open_ms):
                continue
            upto_ms = self.rng.randrange(open_ms + MINUTE_MS, end_ms + 1, MINUTE_MS)
            pieces = [self.store[MINUTE.code, at] for at in range(open_ms, upto_ms, MINUTE_MS)]
            folded = fold(joined(pieces), interval)
            base = folded.candles[:1]
            base["origin"], base["slot"] = folded.lowest[0], self.slot
            held_ms = max(START_MS, boundary_ms - 63 * MINUTE_MS)
            assert self.engine.rebase(base, upto_ms)[0] == (upto_ms >= held_ms)

    def check_vouched(self) -> None:
        """Whatever calls itself the exchange's is just that, whether or not its fold has been handed back."""
        twin = Instrument(START_MS, Decimal("100.5"), seeded=False)
        twin.open_ms = self.engine.boundary_ms
        minutes = [*self.true_minutes(), flat(twin.open_ms, Decimal(1), Origin.FLAT)]
        said = dict(exact_candles(self.engine.snapshots()))
        for (code, _), row in self.store.items():
            said |= {(self.slot, code, candle.open_ms): candle for _, candle in exact_candles(row)}
        for interval in self.intervals[1:]:
            closed, running = twin.candles(interval, minutes)
            for candle in (*closed, running):
                mine = said.get((self.slot, interval.code, candle.open_ms))
                if mine is not None and mine.origin == Origin.EXCHANGE:
                    assert numbers(mine) == numbers(candle), (interval.name, candle.open_ms)

    def check(self) -> None:
        """Every minute is the exchange's, and so is every longer candle that began after the start."""
        self.collect()
        twin = Instrument(START_MS, Decimal("100.5"), seeded=False)
        twin.open_ms = self.engine.boundary_ms
        minutes = [*self.true_minutes(), flat(twin.open_ms, Decimal(1), Origin.FLAT)]
        for interval in self.intervals:
            closed, running = twin.candles(interval, minutes)
            for candle in closed:
                if candle.open_ms < START_MS:
                    continue
                mine = dict(exact_candles(self.store[interval.code, candle.open_ms]))
                assert numbers(*mine.values()) == numbers(candle), (interval.name, candle.open_ms)
            if interval is not MINUTE and running.open_ms >= START_MS:
                mine = dict(exact_candles(self.engine.snapshots()))
                assert numbers(mine[self.slot, interval.code, running.open_ms]) == numbers(running), interval.name


def numbers(candle: Candle) -> tuple[Decimal | int, ...]:
    """What the exchange's kline also says."""
    names = ("open", "high", "low", "close", "volume", "quote", "taker_volume", "taker_quote", "trades")
    return tuple(getattr(candle, name) for name in names)


@pytest.mark.parametrize("seed", range(30))
def test_repaired_minutes_make_every_candle_the_exchanges_own(seed: int) -> None:
    world = World(seed, ["3m", "5m", "15m", "1h", "1d"])
    pending: set[int] = set()
    repaired_ms = START_MS
    for _ in range(220):
        roll = world.rng.random()
        if roll < 0.6:
            world.trade()
        elif roll < 0.9:
            world.wait(world.rng.choice([1, 500, 9_000, 31_000, 61_000]))
        else:
            pending |= set(range(repaired_ms, world.engine.boundary_ms, MINUTE_MS))
            repaired_ms = world.engine.boundary_ms
            chosen = sorted(world.rng.sample(sorted(pending), len(pending) // 2))
            if chosen:
                world.repair(chosen, always=False)
                pending -= set(chosen)
    pending |= set(range(repaired_ms, world.engine.boundary_ms, MINUTE_MS))
    if pending:
        world.repair(sorted(pending))
    # Once more, from the first minute on: a longer candle is handed back only when something of it has changed.
    world.repair([START_MS])
    world.check()


@pytest.mark.parametrize("seed", range(10))
def test_a_restart_between_goes_unnoticed(seed: int) -> None:
    """What the snapshots and last trades say is all that the next engine needs, however the scales have widened."""
    names = ["5m", "1h", "1d", "1w", "1M"]
    world = World(seed, names)
    for _ in range(80):
        world.trade()
        world.wait(world.rng.choice([1, 500, 9_000, 31_000]))
    world.wait(MINUTE_MS)
    before = world.engine
    snapshots, last = before.snapshots(), before.last_trades()
    after = Engine(world.intervals, capacity=2)
    minute = snapshots[snapshots["interval"] == MINUTE.code][0]
    slot = after.add(int(minute["price_scale"]), 0, before.boundary_ms, int(minute["open"]), Origin.FILLED)
    after.restore(slot, snapshots, last[0])
    assert dict(exact_candles(after.snapshots())) == dict(exact_candles(snapshots))
    assert after.last_trades()[0].tolist() == last[0].tolist()
    ahead_ms = before.boundary_ms + 3 * MINUTE_MS
    trades = [
        Trade(world.next_id + number, before.boundary_ms + number * 20_000, PRICES[number % 4], Decimal(3))
        for number in range(9)
    ]
    for engine in (before, after):
        engine.sight([slot], before.boundary_ms - MINUTE_MS)
        engine.apply(trade_rows(trades, slot), ahead_ms)
        engine.advance(ahead_ms)
    longer = [interval.code for interval in world.intervals if interval is not MINUTE]
    mine, theirs = (dict(exact_candles(rows)) for rows in (after.collect(), before.collect()))
    assert {key: numbers(candle) for key, candle in mine.items()} == {
        key: numbers(candle) for key, candle in theirs.items() if key in mine
    }
    assert {key for key in theirs if key[1] in longer} <= set(mine)
    assert [numbers(c) for _, c in exact_candles(after.snapshots())] == [
        numbers(c) for _, c in exact_candles(before.snapshots())
    ]


def test_a_kline_with_more_digits_widens_its_instrument() -> None:
    world = World(1, ["5m"])
    world.wait(2 * MINUTE_MS)
    kline = kline_row(flat(START_MS, Decimal("100.123456"), Origin.EXCHANGE), world.slot, MINUTE.code)
    assert world.engine.replace(kline).tolist() == [matching.EQUAL]
    assert world.engine.scales(world.slot) == (6, 0)
    assert world.engine.minute_origin(world.slot, START_MS) == Origin.EXCHANGE


def test_a_minute_not_closed_or_long_gone_is_said_to_be_so() -> None:
    world = World(1, ["5m"])
    world.wait(100 * MINUTE_MS)
    boundary_ms = world.engine.boundary_ms
    klines = joined(
        [
            kline_row(flat(open_ms, Decimal("100.5"), Origin.EXCHANGE), world.slot, MINUTE.code)
            for open_ms in (START_MS, boundary_ms - 63 * MINUTE_MS, boundary_ms - MINUTE_MS, boundary_ms)
        ]
    )
    verdicts = world.engine.compare(klines)
    assert verdicts.tolist() == [matching.GONE, matching.EQUAL, matching.EQUAL, matching.EARLY]
    assert (world.engine.collect()["flags"] & Flag.VERIFIED != 0).sum() == 2
    assert np.isin(world.engine.replace(klines), [matching.GONE, matching.EQUAL]).all()


def test_a_fold_that_ends_before_the_first_minute_here_is_refused() -> None:
    """Between its end and the first minute that the engine holds, something would be missing."""
    world = World(1, ["5m"])
    world.wait(MINUTE_MS)
    open_ms = BY_NAME["5m"].open_at(START_MS)
    assert open_ms < START_MS - MINUTE_MS
    base = kline_row(flat(open_ms, Decimal("100.5"), Origin.EXCHANGE), world.slot, BY_NAME["5m"].code)
    assert world.engine.rebase(base, START_MS - MINUTE_MS).tolist() == [False]
    assert world.engine.rebase(base, START_MS).tolist() == [True]


@pytest.mark.parametrize("price", [Decimal(0), Decimal(7)])
def test_ids_that_are_seen_before_any_market_trade_leave_a_last_trade_with_a_price(price: Decimal) -> None:
    """Otherwise the database would hold a last trade at price 0, which no start accepts (found by the simulation)."""
    engine = Engine(parse_intervals(["1m"]))
    slot = engine.add(1, 0, START_MS, 1_005)
    trades = trade_rows([Trade(5, START_MS + 1_000, price, Decimal(0))], slot)
    trades["kind"] = TradeKind.OTHER
    engine.apply(trades, START_MS + 1_100)
    last = engine.last_trades()[0]
    assert (int(last["agg_id"]), int(last["price"])) == (5, 1_005)
