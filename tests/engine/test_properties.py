"""The engine and its naive twin are told the same, whatever that is, and must say the same."""

import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klagg.engine.engine import Engine
from klagg.interval import BY_NAME, INTERVALS, MINUTE, MINUTE_MS, parse_intervals
from klagg.model import Flag, Origin
from oracle import Instrument, Trade, ends_at, exact_candles, mantissa_of, trade_rows

SECOND_MS = 1_000


def ms(*when):
    return int(datetime(*when, tzinfo=UTC).timestamp()) * 1_000


STARTS = {
    "an ordinary minute": ms(2024, 8, 7, 10, 1),
    "the last minute of a day": ms(2024, 8, 7, 23, 59),
    "before a Monday": ms(2024, 8, 11, 23, 57),
    "before a leap day": ms(2024, 2, 28, 23, 57),
    "before the month after a leap day": ms(2024, 2, 29, 23, 57),
    "before March of a common year": ms(2023, 2, 28, 23, 57),
    "before a year": ms(2024, 12, 31, 23, 57),
    "before a year that begins on a Monday": ms(2029, 1, 1) - 3 * MINUTE_MS,
}
SEED_PRICE = Decimal("100.5")


class Twins:
    """An engine and its oracle, told the same; `check` holds them equal."""

    def __init__(self, start_ms, names, batch=64):
        self.now_ms = start_ms
        self.boundary_ms = start_ms // MINUTE_MS * MINUTE_MS
        self.intervals = parse_intervals(names)
        self.by_code = {interval.code: interval for interval in self.intervals}
        self.engine = Engine(self.intervals, capacity=2)
        self.twins = {}
        self.live = []
        self.batch = batch
        self.waiting = []
        self.came_out = {}
        self.rows = {}
        self.fates = Counter()

    def add(self, price=SEED_PRICE, origin=Origin.SEED):
        self.flush()
        mantissa, scale = mantissa_of(price)
        slot = self.engine.add(scale, 0, self.boundary_ms, mantissa, origin)
        self.twins[slot] = Instrument(self.boundary_ms, price, seeded=origin == Origin.SEED)
        self.live.append(slot)
        return slot

    def retire(self, slot):
        self.flush()
        self.engine.retire(slot)
        self.live.remove(slot)

    def trade(self, slot, trade):
        self.waiting.append((slot, trade))
        if len(self.waiting) >= self.batch:
            self.flush()

    def flush(self):
        if self.waiting:
            slots, trades = zip(*self.waiting, strict=True)
            self.engine.apply(trade_rows(trades, slots), self.now_ms)
            for slot, trade in self.waiting:
                fate = self.twins[slot].apply(trade, self.now_ms) if slot in self.live else "invalid"
                self.fates[fate] += 1
            self.waiting = []

    def wait(self, wait_ms):
        self.flush()
        self.now_ms += wait_ms

    def tick(self, boundary_ms=None):
        """The clock passes a boundary: the one that now lies behind, unless told."""
        self.flush()
        self.boundary_ms = max(self.boundary_ms, boundary_ms or self.now_ms // MINUTE_MS * MINUTE_MS)
        self.now_ms = max(self.now_ms, self.boundary_ms)
        while not self.engine.advance(self.boundary_ms):
            pass
        for slot in self.live:
            self.twins[slot].advance(self.boundary_ms)

    def expire_holes(self):
        self.flush()
        self.engine.expire_holes(self.now_ms)
        for slot in self.live:
            self.twins[slot].expire_holes(self.now_ms)

    def sight(self):
        self.flush()
        self.engine.sight(self.live, self.now_ms)
        for slot in self.live:
            self.twins[slot].sight(self.now_ms)

    def blind(self, since_ms):
        self.flush()
        self.engine.blind(self.live, since_ms)
        for slot in self.live:
            self.twins[slot].blind(since_ms)

    def collect(self):
        self.flush()
        rows = self.engine.collect()
        found = exact_candles(rows)
        assert len({key for key, _ in found}) == len(found), "a candle came out twice at once"
        assert (rows["flags"] & Flag.CLOSED).all()
        self.came_out.update(found)

    def check(self, *, origins=False):
        """Everything that ever came out, in its newest state, is every closed candle there is; so are the open ones."""
        self.collect()
        expected = {}
        expected_open = {}
        for slot, twin in self.twins.items():
            minutes = twin.minutes()
            for interval in self.intervals:
                closed, running = twin.candles(interval, minutes)
                expected.update(((slot, interval.code, candle.open_ms), candle) for candle in closed)
                expected_open[slot, interval.code, running.open_ms] = running
        self.same(self.came_out, expected, origins=origins)
        live_open = {key: candle for key, candle in expected_open.items() if key[0] in self.live}
        self.same(dict(exact_candles(self.engine.open_candles(self.live))), live_open, origins=False)
        self.check_snapshots(live_open, origins=origins)
        self.check_tally()

    def check_snapshots(self, live_open, *, origins):
        """What goes to the store at a tick: longer candles folded to the boundary; the minute without what it has yet."""
        snapshots = dict(exact_candles(self.engine.snapshots()))
        longer = {key: candle for key, candle in live_open.items() if key[1] != MINUTE.code}
        self.same({key: candle for key, candle in snapshots.items() if key[1] != MINUTE.code}, longer, origins=origins)
        assert {key for key in snapshots if key[1] == MINUTE.code} == live_open.keys() - longer.keys()
        for key, minute in snapshots.items():
            if key[1] == MINUTE.code:
                assert minute.trades == minute.volume == minute.quote == 0
                twin = self.twins[key[0]]
                closed = twin.candles(MINUTE)[0]
                if closed:
                    assert minute.open == minute.high == minute.low == minute.close == closed[-1].close

    def check_tally(self):
        tally = self.engine.tally
        for fate in ("applied", "late", "duplicate", "too_old", "invalid", "not_market"):
            assert getattr(tally, fate) == self.fates[fate], fate
        assert tally.holes + tally.renumbered == sum(max(0, len(twin.runs) - 1) for twin in self.twins.values())

    def same(self, actual, expected, *, origins):
        missing = expected.keys() - actual.keys()
        extra = actual.keys() - expected.keys()
        assert not missing, f"did not come out: {self.named(missing)}"
        assert not extra, f"should not have come out: {self.named(extra)}"
        if not origins:
            actual = {key: replace(candle, origin=Origin.FILLED) for key, candle in actual.items()}
            expected = {key: replace(candle, origin=Origin.FILLED) for key, candle in expected.items()}
        wrong = {key for key, candle in expected.items() if actual[key] != candle}
        assert not wrong, "\n".join(
            f"{self.named([key])}: engine {actual[key]}, oracle {expected[key]}" for key in sorted(wrong)[:4]
        )

    def named(self, keys):
        return [
            f"slot {slot} {self.by_code[code]} {datetime.fromtimestamp(open_ms / 1_000, UTC):%Y-%m-%d %H:%M}"
            for slot, code, open_ms in sorted(keys)[:4]
        ]


class Market:
    """Makes trades as an exchange does (ids and times rise together) and hands them over as a network might."""

    def __init__(self, twins):
        self.twins = twins
        self.next_id = Counter()
        self.next_trade_id = Counter()
        self.latest_ms = Counter()
        self.held_back = []
        self.handed_over = []

    def make(self, slot, lag_ms, price, qty, count, maker, market=True):
        time_ms = max(self.latest_ms[slot], self.twins.now_ms - lag_ms)
        self.latest_ms[slot] = time_ms
        first_id = self.next_trade_id[slot] + 1
        self.next_trade_id[slot] += count
        self.next_id[slot] += 1
        agg_id = self.next_id[slot]
        return Trade(agg_id, time_ms, price, qty, maker, first_id, first_id + count - 1, market)

    def hand_over(self, slot, trade):
        self.handed_over.append((slot, trade))
        self.twins.trade(slot, trade)


PRICES = [Decimal(text) for text in ("100.5", "100.4", "101", "99.123", "0.00000001", "99999999.99", "123.4567891")]
QUANTITIES = [Decimal(text) for text in ("1", "0.3", "12.5", "0.00001", "900000000", "7", "0.120")]
LAGS_MS = [0, 0, 1, 150, 2_000, 59_999, 60_000, 61_000]
WAITS_MS = [1, 700, 5_000, 20_000, 60_000, 130_000]
FATES = ["hand over"] * 6 + ["hold back"] * 2 + ["lose"]


def steps_of(pick, whole):
    """What can happen, by name; `pick` chooses from a list and `whole` a small number (of strategies, or at random)."""
    return {
        "trade": lambda: (
            pick(FATES),
            whole(),
            pick(LAGS_MS),
            pick(PRICES),
            pick(QUANTITIES),
            pick([1, 1, 2, 5]),
            pick([True, False]),
            pick([True] * 7 + [False]),
        ),
        "late": lambda: ("late", whole()),
        "again": lambda: ("again", whole()),
        "invalid": lambda: ("invalid", whole(), pick(["price", "qty", "future"])),
        "wait": lambda: ("wait", pick(WAITS_MS)),
        "tick": lambda: ("tick",),
        "expire": lambda: ("expire",),
        "collect": lambda: ("collect",),
        "sight": lambda: ("sight",),
        "blind": lambda: ("blind", pick([0, 10_000, 70_000])),
        "add": lambda: ("add", pick(PRICES)),
        "retire": lambda: ("retire", whole()),
    }


OFTEN = {"trade": 12, "late": 4, "again": 2, "wait": 4, "tick": 3, "expire": 1, "collect": 2}
"""How often each thing happens, where not once."""


def any_step():
    """A strategy for one thing that happens."""
    of = steps_of(st.sampled_from, lambda: st.integers(0, 7))
    return st.one_of(
        [
            st.tuples(*(part if isinstance(part, st.SearchStrategy) else st.just(part) for part in make()))
            for name, make in of.items()
            for _ in range(min(3, OFTEN.get(name, 1)))
        ]
    )


def random_steps(seed, count, **others):
    """`count` things that happen, the same ones for the same seed; `others` says how often what else happens."""
    rng = random.Random(seed)
    makers = steps_of(rng.choice, lambda: rng.randrange(8)) | {"jump": lambda: ("jump", rng.choice(JUMPS))}
    often = dict.fromkeys(makers, 1) | {"jump": 0} | OFTEN | others
    names = rng.choices(list(often), list(often.values()), k=count)
    return [makers[name]() for name in names]


JUMPS = [2, 4, 30, 61, 64, 65, 130]
"""Minutes that the clock may pass at once; the engine holds 64."""


def take(twins, market, step):
    """Let one thing happen."""
    match step:
        case ("tick",):
            twins.tick()
        case ("expire",):
            twins.expire_holes()
        case ("collect",):
            twins.collect()
        case ("sight",):
            twins.sight()
        case ("blind", ago_ms):
            twins.blind(twins.now_ms - ago_ms)
        case ("wait", wait_ms):
            twins.wait(wait_ms)
        case ("jump", minutes):
            twins.wait(minutes * MINUTE_MS)
            twins.tick()
        case ("add", price):
            if len(twins.twins) < 5:
                twins.add(price)
        case ("retire", index):
            if len(twins.live) > 1:
                twins.retire(twins.live[index % len(twins.live)])
        case ("late", index):
            if market.held_back:
                market.hand_over(*market.held_back.pop(index % len(market.held_back)))
        case ("again", index):
            if market.handed_over:
                twins.trade(*market.handed_over[-1 - index % len(market.handed_over)])
        case ("invalid", index, why):
            slot = twins.live[index % len(twins.live)]
            trade = Trade(market.next_id[slot] + 1, twins.now_ms, Decimal(1), Decimal(1))
            wrong = {
                "price": replace(trade, price=Decimal(0)),
                "qty": replace(trade, qty=Decimal(0)),
                "future": replace(trade, time_ms=twins.now_ms + 60_001),
            }
            twins.flush()
            twins.trade(slot, wrong[why])
            twins.flush()
        case (fate, index, *what):
            slot = twins.live[index % len(twins.live)]
            trade = market.make(slot, *what)
            if fate == "hand over":
                market.hand_over(slot, trade)
            elif fate == "hold back":
                market.held_back.append((slot, trade))


def play(start_ms, names, events, *, batch=64, origins=False, check_each=0):
    """Twins that lived through the events, compared at the end (and after every `check_each` of them)."""
    twins = Twins(start_ms, names, batch)
    twins.add()
    twins.add(Decimal(7))
    market = Market(twins)
    for number, step in enumerate(events, 1):
        take(twins, market, step)
        if check_each and number % check_each == 0:
            twins.check(origins=origins)
    twins.check(origins=origins)
    twins.wait(MINUTE_MS)
    twins.tick()
    twins.check(origins=origins)
    return twins


intervals = st.sets(st.sampled_from(list(BY_NAME)), max_size=8)
starts = st.sampled_from(list(STARTS)).map(STARTS.get)
many = settings(deadline=None, max_examples=60)


@many
@given(starts, intervals, st.lists(any_step(), max_size=60), st.integers(1, 9))
def test_whatever_happens_every_closed_candle_comes_out_with_the_right_numbers(start_ms, names, events, batch):
    play(start_ms + 1_234, names, events, batch=batch)


@pytest.mark.parametrize("seed", range(16))
def test_long_lives_have_the_right_numbers(seed):
    start_ms = list(STARTS.values())[seed % len(STARTS)]
    names = random.Random(seed).sample(list(BY_NAME), seed % 8)
    play(start_ms, names, random_steps(seed, 300), batch=1 + seed % 70, check_each=100)


@pytest.mark.parametrize("seed", range(12))
def test_numbers_are_right_across_jumps_of_hours(seed):
    start_ms = list(STARTS.values())[seed % len(STARTS)]
    play(start_ms, ["3m", "5m", "30m", "1h", "1d"], random_steps(seed, 200, jump=2))


@pytest.mark.parametrize("weeks", [1, 2, 5])
def test_numbers_are_right_across_jumps_of_weeks(weeks):
    start_ms = STARTS["before the month after a leap day"]
    jump = ("jump", weeks * 7 * 1_440 + 3)
    events = [*random_steps(weeks, 40), jump, *random_steps(weeks + 100, 40)]
    play(start_ms, ["5m", "1h", "3d", "1w", "1M"], events)


@pytest.mark.parametrize("seed", range(24))
def test_origins_are_what_the_evidence_says(seed):
    """Intervals whose last two candles surely reach back to whatever is proven or doubted late."""
    start_ms = list(STARTS.values())[seed % len(STARTS)]
    play(start_ms, ["1h", "4h", "1d", "1w", "1M"], random_steps(seed, 150), origins=True)


@pytest.mark.parametrize("seed", range(3))
def test_how_trades_are_batched_does_not_matter(seed):
    start_ms = list(STARTS.values())[seed]
    lives = [play(start_ms, ["5m", "1h", "1d"], random_steps(seed, 600, trade=60), batch=b) for b in (1, 7, 256)]
    assert lives[0].fates["applied"] > 100
    for other in lives[1:]:
        assert other.came_out == lives[0].came_out
        assert other.engine.tally == lives[0].engine.tally
        assert (other.engine.snapshots() == lives[0].engine.snapshots()).all()
        assert (other.engine.last_trades() == lives[0].engine.last_trades()).all()


def closed_at_each(start_ms, end_ms):
    """By boundary in `[start_ms, end_ms)`: the names of the intervals that the engine closes there, of each instrument."""
    engine = Engine(INTERVALS)
    slots = [engine.add(1, 0, start_ms - MINUTE_MS, price) for price in (5, 6, 7)]
    for boundary_ms in range(start_ms, end_ms, MINUTE_MS):
        assert engine.advance(boundary_ms)
        closed = engine.collect()
        names = {slot: set() for slot in slots}
        for slot, code, open_ms in closed[["slot", "interval", "open_ms"]].tolist():
            assert INTERVALS[code].next_open(open_ms) == boundary_ms
            names[slot].add(INTERVALS[code].name)
        assert len(closed) == sum(map(len, names.values()))
        yield boundary_ms, names.values()


def test_every_minute_of_a_week_closes_just_what_ends_there():
    start_ms = ms(2024, 8, 8)
    for boundary_ms, names in closed_at_each(start_ms, start_ms + 7 * 24 * 60 * MINUTE_MS):
        assert all(found == ends_at(boundary_ms) for found in names)


@pytest.mark.parametrize("start", STARTS)
def test_mondays_month_ends_and_year_ends_close_just_what_ends_there(start):
    for boundary_ms, names in closed_at_each(STARTS[start], STARTS[start] + 8 * MINUTE_MS):
        assert all(found == ends_at(boundary_ms) for found in names)


def test_sums_are_exact_where_they_need_two_words():
    price, qty = Decimal("9999999.987654321"), Decimal("9999.123456789")
    twins = Twins(STARTS["an ordinary minute"], ["5m"])
    slot = twins.add(price)
    for number in range(1, 400):
        twins.trade(slot, Trade(number, twins.now_ms, price - number, qty - number, bool(number % 3)))
    twins.wait(10 * MINUTE_MS)
    twins.tick()
    twins.check()
    volumes = {candle.volume for candle in twins.came_out.values()}
    assert max(volumes) == 399 * qty - sum(range(400))
    assert max(candle.quote.scaleb(18) for candle in twins.came_out.values()) > 2**63


def test_an_amount_that_could_overflow_a_sum_is_no_trade_and_leaves_its_minute_unproven(one):
    huge = {"price": Decimal("999999999.99999999"), "qty": Decimal("99999999.99999999")}
    one.hear(trade_at(1, one.now_ms), trade_at(2, one.now_ms))
    one.flush()
    rows = trade_rows([Trade(3, one.now_ms, **huge)], one.slot)
    one.engine.apply(rows, one.now_ms)
    assert one.engine.tally.invalid == 1
    one.fates["invalid"] += 1
    one.hear(trade_at(4, one.now_ms), trade_at(5, one.now_ms + 2 * MINUTE_MS))
    one.wait(3 * MINUTE_MS)
    one.tick()
    one.expire_holes()
    one.check(origins=True)


def test_many_amounts_fill_a_minute_only_so_far(one):
    one.hear(trade_at(1, one.now_ms))
    one.flush()
    full = Trade(2, one.now_ms, Decimal("99999999.99999999"), Decimal("9999999.99999999"))
    numbers = 20
    rows = trade_rows([replace(full, agg_id=2 + number) for number in range(numbers)], one.slot)
    one.engine.apply(rows, one.now_ms)
    assert one.engine.tally.invalid + one.engine.tally.applied == numbers + 1
    minute = dict(exact_candles(one.engine.open_candles([one.slot])))[one.slot, 0, one.start_ms]
    assert minute.quote == 100 + (one.engine.tally.applied - 1) * full.price * full.qty


# --- cases found, or told, one by one ---------------------------------------------------------------------------------


def trade_at(number, time_ms, price="100", **others):
    return Trade(number, time_ms, Decimal(price), Decimal(1), first_id=number, last_id=number, **others)


@pytest.fixture
def one():
    """One instrument at 10:01 on a Wednesday, its feed alive, and `hear(trade, …)`."""
    twins = Twins(ms(2024, 8, 7, 10, 1), ["3m", "1h"])
    twins.slot = twins.add()
    twins.start_ms = twins.boundary_ms
    twins.sight()
    twins.hear = lambda *trades: [twins.trade(twins.slot, trade) for trade in trades]
    return twins


def minutes_after(one, minutes):
    """The clock comes to so many minutes after the start."""
    one.flush()
    one.now_ms = one.start_ms + minutes * MINUTE_MS
    one.tick()


@pytest.mark.parametrize("minutes", [3, 6, 60, 64, 65, 130])
def test_a_correction_comes_out_although_nobody_collected_before_its_place_was_needed(one, minutes):
    one.hear(trade_at(1, one.start_ms))
    minutes_after(one, 2)
    one.collect()
    one.hear(trade_at(2, one.start_ms + 1, "101"))
    minutes_after(one, 2 + minutes)
    one.check()


def test_each_hole_has_five_seconds_of_its_own(one):
    first_ms = one.now_ms
    one.hear(trade_at(1, first_ms), trade_at(3, first_ms))
    one.wait(4_000)
    one.hear(trade_at(5, one.now_ms))
    one.wait(900)
    one.hear(trade_at(2, first_ms))
    one.wait(200)
    one.expire_holes()
    one.hear(trade_at(4, first_ms + 4_000))
    one.flush()
    assert one.engine.tally.duplicate == 0, "the second hole was 1.1 s old"
    one.check()


def test_holes_that_appeared_together_are_given_up_together(one):
    one.hear(*(trade_at(number, one.now_ms) for number in (1, 3, 5, 7)))
    one.wait(5_000)
    one.expire_holes()
    one.check()
    assert one.engine.tally.holes == 3


def test_a_trade_too_late_for_its_minute_leaves_it_unproven_although_its_id_waits_behind_a_hole(one):
    minutes_after(one, 1)
    one.hear(trade_at(1, one.start_ms), trade_at(3, one.start_ms + 1), trade_at(5, one.start_ms + MINUTE_MS + 2))
    one.hear(trade_at(6, one.start_ms + 5 * MINUTE_MS - 59_999))
    minutes_after(one, 5)
    one.hear(trade_at(4, one.start_ms + MINUTE_MS + 1), trade_at(7, one.start_ms + 5 * MINUTE_MS))
    one.wait(5_000)
    one.expire_holes()
    one.check(origins=True)


def test_a_quiet_minute_that_holds_the_edge_of_a_hole_is_not_flat(one):
    minutes_after(one, 1)
    one.hear(*(trade_at(number, one.now_ms, market=False) for number in (1, 3)))
    one.wait(5_000)
    one.expire_holes()
    minutes_after(one, 2)
    one.check(origins=True)


@pytest.mark.xfail(
    strict=True, reason="the engine keeps the open and the last closed candle only: older parents are the repairer's"
)
def test_a_hole_takes_the_proof_from_every_parent_it_touches(one):
    one.hear(trade_at(1, one.now_ms))
    minutes_after(one, 20)
    one.hear(trade_at(3, one.now_ms))
    one.wait(5_000)
    one.expire_holes()
    one.check(origins=True)


@pytest.mark.xfail(
    strict=True, reason="the engine keeps 64 minutes: a hole that reaches further back is the repairer's"
)
def test_a_hole_of_hours_takes_the_proof_from_every_minute_it_touches(one):
    one.hear(trade_at(1, one.now_ms))
    minutes_after(one, 200)
    one.hear(trade_at(3, one.now_ms))
    one.wait(5_000)
    one.expire_holes()
    one.check(origins=True)
