"""What a seed decides, as plain data: it can be printed, cut down and run again."""

import random
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from judge.lies import AGG_TRADES, KLINES, LISTS

MINUTE_S = 60.0
STARTS = (
    "2026-03-03T09:57:20",
    "2026-03-03T00:03:40",
    "2026-03-01T23:55:10",  # a Monday begins
    "2026-03-31T23:56:30",  # a month ends
    "2026-02-28T23:54:05",
    "2025-12-31T23:57:50",
    "2026-03-05T07:58:59",
    "2026-03-05T11:28:00.2",
    "2026-03-05T03:56:00",
)
INTERVALS = (
    "1m",
    "1m,5m",
    "1m,3m,15m,1h",
    "1m,5m,30m,1h,4h,1d,1w",
    "1m,15m,2h,1d,1M",
    "1m,3m,5m,15m,30m,1h,2h,4h,6h,8h,12h,1d,3d,1w,1M",
)


@dataclass(frozen=True)
class SymbolPlan:
    """One symbol: trades a second, digits, age at the start in minutes (fractions count), its sizes' unit."""

    name: str
    rate: float
    price: int
    price_digits: int
    qty_digits: int
    age_min: float
    qty_unit: int = 1
    status: str = "TRADING"


@dataclass(frozen=True)
class Happening:
    """One thing that goes wrong, or just happens: from `at_s` on, for `span_s` where it lasts; `value` is its measure."""

    at_s: float
    kind: str
    span_s: float = 0.0
    value: float = 0.0
    name: str = ""

    def __str__(self) -> str:
        lasts = f" for {self.span_s:.1f} s" if self.span_s else ""
        measure = f" ({self.value:g})" if self.value else ""
        return f"{self.at_s:8.2f} s  {self.kind}{' ' + self.name if self.name else ''}{lasts}{measure}"


@dataclass(frozen=True)
class Plan:
    """A world before it begins."""

    seed: int
    market: str
    start_ms: int
    symbols: tuple[SymbolPlan, ...]
    intervals: str
    history: str
    workers: int
    margin: int | str
    drift_ppm: float
    lag_ms: float
    memory_bytes: int
    renew_h: float
    """Age at which a connection is renewed."""
    audit_share: float
    """Mostly 0: an audit that repairs would mend what the verdict is to find."""
    happenings: tuple[Happening, ...]
    end_s: float
    """When the last fault is over; after that all must settle."""
    world: str = ""
    """What kind of world it is, of `WORLDS`; "" for an ordinary one."""
    other: "Plan | None" = None
    """The second market of the process, in a world of both."""

    def without(self, index: int) -> "Plan":
        """The same with one happening less."""
        return replace(self, happenings=(*self.happenings[:index], *self.happenings[index + 1 :]))


LASTING = {
    # streams
    "refuse_connects": (2, 40),
    "cut_at_subscribe": (5, 60),
    "silent": (5, 120),
    "silent_no_pong": (5, 90),
    "deaf": (5, 100),
    "unacknowledged": (5, 60),
    "duplicate": (10, 120),
    "reorder": (10, 120),
    "late": (10, 120),
    "lose": (5, 120),
    "garbage": (10, 120),
    "slow_stream": (5, 90),
    "no_closing_push": (30, 240),
    "late_closing_push": (30, 240),
    # REST
    "rest_down": (5, 150),
    "rest_timeout": (5, 90),
    "rest_5xx": (5, 120),
    "rest_firewall": (5, 60),
    "rest_torn_body": (5, 120),
    "rest_429": (1, 30),
    "rest_418": (20, 120),
    "rest_slow": (10, 120),
    "rest_missing_rows": (10, 200),
    "rest_wrong_weight": (10, 120),
    "list_shrunk": (5, 30),
    "time_down": (20, 400),
    "time_asymmetric": (30, 200),
    # the disk
    "disk_locked": (1, 90),
    "disk_full": (1, 150),
    "disk_slow": (5, 120),
    "commit_fails": (5, 60),
    "commit_lost_answer": (5, 60),
    "statement_fails": (5, 60),
}
"""Faults that last, with the shortest and longest span in seconds."""
LIES = tuple(f"rest_{kind}" for kind in (*KLINES, *AGG_TRADES, *LISTS))
"""Faults that last in which REST's answers are well-formed and wrong."""
PUSHES = ("wrong_push", "wrong_push_agreed")
LAST = {*LASTING, *LIES, *PUSHES}
"""All that lasts."""
WORLDS = (
    "revised",
    "wrong_push",
    "wrong_push_agreed",
    "both_markets",
    "power_normal",
    "power_full",
    "take_over",
)
"""Kinds of worlds: an exchange that changes what was settled; one that pushes a wrong closing kline, and its REST says otherwise, or
the same; both markets in one process; a power failure with either way of writing; a second process that takes over."""
AUDIT_S = 420.0
"""In this time the audit must have seen what the exchange has changed."""
OTHER_SEEDS = 10**9
INSTANT = (
    "cut",
    "cut_all",
    "shutdown_notice",
    "crash",
    "crash",
    "crash_in_store",
    "crash_in_store",
    "crash_at_frame",
    "crash_at_request",
    "crash_loop",
    "stop",
    "suspend",
    "pause",
    "wall_clock_jump",
    "list_symbol",
    "list_symbol_shy",
    "delist",
    "vanish",
    "halt",
    "rename",
    "finer",
    "renumber",
    "oversized",
    "lacking_row",
)


def make(seed: int, *, plain: bool = False) -> Plan:
    """The plan of a seed; `plain`: an ordinary world without lies."""
    chance = random.Random(seed)
    market = chance.choice(("usdm", "usdm", "spot"))
    start_ms = int(datetime.fromisoformat(chance.choice(STARTS)).replace(tzinfo=UTC).timestamp() * 1000)
    symbols = _symbols(chance, market)
    busy_s = chance.choice((60.0, 150.0, 240.0, 400.0))
    found = _happenings(chance, symbols, busy_s)
    world = "" if plain else random.Random(f"{seed} kind").choice((*WORLDS, *[""] * len(WORLDS)))
    if not plain:
        found += _lies(random.Random(f"{seed} lies"), busy_s)
        found += _of_world(random.Random(f"{seed} world"), world, symbols, busy_s)
    happenings = sorted(found, key=lambda one: one.at_s)
    end_s = max((one.at_s + one.span_s for one in happenings), default=busy_s)
    plan = Plan(
        seed=seed,
        market=market,
        start_ms=start_ms,
        symbols=symbols,
        intervals=chance.choice(INTERVALS),
        history=chance.choice(("0", "0", "0", "1h", "3h")),
        workers=chance.choice((1, 1, 1, 2, 3)),
        margin=chance.choice((10, 250, 250, "auto")) if market == "usdm" else chance.choice((10, 10, 60)),
        drift_ppm=chance.uniform(-60, 60),
        lag_ms=chance.choice((5, 30, 150, 150, 400)),
        memory_bytes=chance.choice((64 << 20, 64 << 20, 6_000)),
        renew_h=chance.choice((23.0, 23.0, 0.02)),
        audit_share=chance.choice((0.0, 0.0, 0.0, 0.0, 0.0, 0.02)),
        happenings=tuple(happenings),
        end_s=max(end_s, busy_s) + (AUDIT_S if world == "revised" else 0.0),
        world=world,
    )
    if world == "revised":
        return replace(plan, audit_share=0.05)
    return replace(plan, other=_other(plan)) if world == "both_markets" else plan


def _other(plan: Plan) -> Plan:
    """The other market of the same process, with symbols of its own; what goes wrong goes wrong on both."""
    market = "spot" if plan.market == "usdm" else "usdm"
    chance = random.Random(f"{plan.seed} {market}")
    lasting = tuple(one for one in plan.happenings if one.kind in LAST)
    return replace(
        plan, seed=plan.seed + OTHER_SEEDS, market=market, symbols=_symbols(chance, market)[:3], happenings=lasting
    )


def _of_world(chance: random.Random, world: str, symbols: tuple[SymbolPlan, ...], busy_s: float) -> list[Happening]:
    """What only happens in this kind of world."""
    at_s = round(chance.uniform(60, busy_s + 60), 2)
    if world == "revised":
        names = [one.name for one in symbols if one.rate >= 0.3]
        return [
            Happening(
                round(chance.uniform(180, busy_s + 240), 2), "revise", 0.0, chance.randrange(1, 4), chance.choice(names)
            )
            for _ in range(chance.randrange(1, 4))
        ]
    if world.startswith("wrong_push"):
        return [Happening(at_s / 2, world, round(chance.uniform(70, 300), 2), round(chance.uniform(0.1, 1.0), 3))]
    if world.startswith("power"):
        return [
            Happening(
                round(_instant(chance, busy_s), 2),
                "power_loss",
                round(chance.uniform(3, 90), 2),
                chance.randrange(1, 60),
            )
            for _ in range(chance.randrange(1, 4))
        ]
    if world == "take_over":
        # A repair begins some ten seconds after the minutes of a silence have closed.
        return [
            Happening(at_s, "silent", 40.0, 1.0),
            Happening(round(at_s + chance.uniform(30, 70), 2), "take_over", 0.0, chance.randrange(1, 60)),
        ]
    return []


def _symbols(chance: random.Random, market: str) -> tuple[SymbolPlan, ...]:
    digits = (8, 5) if market == "spot" else (2, 3)
    found = [SymbolPlan("BTCUSDT", 1.5, 8_530_000, *digits, 60 * 7 + 3.2)]
    kinds = (
        SymbolPlan("MIDUSDT", 0.4, 7_000, *digits, 60 * 30.0),
        SymbolPlan("QUIETUSDT", 0.008, 12_345, *digits, 200.0),
        SymbolPlan("DEADUSDT", 0.0, 500, *digits, 500.0),
        SymbolPlan("YOUNGUSDT", 0.6, 900, 4, 0, 17.37),
        SymbolPlan("币安人生USDT", 0.3, 4_242, *digits, 95.0),
        SymbolPlan("HUGEUSDT", 0.4, 7_000, 8, 0, 300.0, qty_unit=10**13),
        SymbolPlan("BURSTUSDT", 4.0, 31_000, *digits, 130.0),
    )
    found += chance.sample(kinds, chance.choice((1, 2, 3, 4)))
    return tuple(found)


def _happenings(chance: random.Random, symbols: tuple[SymbolPlan, ...], busy_s: float) -> list[Happening]:
    count = chance.choice((0, 1, 1, 2, 3, 3, 5, 5, 8, 12))
    found: list[Happening] = []
    for _ in range(count):
        at_s = round(_instant(chance, busy_s), 3)
        if chance.random() < 0.6:
            kind = chance.choice(tuple(LASTING))
            shortest, longest = LASTING[kind]
            value = round(chance.uniform(0.05, 1.0), 3)
            found.append(Happening(at_s, kind, round(chance.uniform(shortest, longest), 2), value))
        else:
            kind = chance.choice(INSTANT)
            found += _instants(chance, kind, at_s, symbols)
    return found


def _lies(chance: random.Random, busy_s: float) -> list[Happening]:
    """What REST tells wrong, in two of three worlds."""
    found: list[Happening] = []
    for _ in range(chance.choice((0, 0, 1, 1, 2, 4))):
        kind = chance.choice(LIES)
        at_s = round(_instant(chance, busy_s), 3)
        span_s = round(chance.uniform(5, 250), 2)
        found.append(Happening(at_s, kind, span_s, round(chance.uniform(0.05, 1.0), 3)))
        if kind.startswith("rest_agg"):
            # Aggregate trades are only asked for where some are missing.
            found.append(Happening(at_s, "lose", span_s, 0.1))
    return found


def _instant(chance: random.Random, busy_s: float) -> float:
    """Anywhere, but more often where it hurts: at the very start, and about the turn of a minute."""
    way = chance.random()
    if way < 0.15:
        return chance.uniform(0.0, 3.0)
    at_s = chance.uniform(0.0, busy_s)
    return at_s if way < 0.6 else max(round(at_s / MINUTE_S) * MINUTE_S + chance.uniform(-2.0, 4.0), 0.0)


def _instants(chance: random.Random, kind: str, at_s: float, symbols: tuple[SymbolPlan, ...]) -> list[Happening]:
    others = [one.name for one in symbols if one.name != "BTCUSDT"]
    name = chance.choice(others)
    down_s = round(chance.choice((0.5, 5.0, 20.0, 70.0, 200.0, 500.0)) * chance.uniform(0.5, 1.5), 2)
    if kind == "crash_loop":
        times = sorted(at_s + chance.uniform(0, 40) for _ in range(chance.randrange(3, 8)))
        return [
            Happening(round(at, 3), "crash", round(chance.uniform(0.2, 3), 2), chance.randrange(40)) for at in times
        ]
    if kind.startswith("crash"):
        return [Happening(at_s, kind, down_s, chance.randrange(1, 60))]
    if kind == "stop":
        return [Happening(at_s, kind, down_s)]
    if kind == "suspend":
        return [
            Happening(at_s, kind, 0.0, round(chance.choice((2.0, 40.0, 150.0, 400.0)) * chance.uniform(0.5, 1.5), 2))
        ]
    if kind == "pause":
        return [
            Happening(at_s, kind, 0.0, round(chance.choice((0.4, 1.5, 8.0, 70.0, 190.0)) * chance.uniform(0.5, 1.5), 2))
        ]
    if kind == "wall_clock_jump":
        return [Happening(at_s, kind, 0.0, round(chance.uniform(-4_000_000, 4_000_000), 1))]
    if kind in {"list_symbol", "list_symbol_shy"}:
        return [Happening(at_s, kind, 0.0, chance.randrange(1, 900), f"NEW{chance.randrange(100)}USDT")]
    if kind == "halt":
        return [Happening(at_s, kind, round(chance.uniform(20, 200), 2), 0, name)]
    if kind == "rename":
        return [Happening(at_s, kind, 0.0, 0, name)]
    if kind in {"cut", "cut_all", "shutdown_notice"}:
        return [Happening(at_s, kind, 0.0, chance.randrange(10))]
    return [Happening(at_s, kind, 0.0, chance.randrange(1, 100), name)]
