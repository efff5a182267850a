"""The market: what was traded, when, and the exchange's candles of it. Nothing here depends on who asks when.

The sums and the calendar are the judge's (`judge.truth`), which shares nothing with klagg.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from judge.truth import MINUTE, Minute, Symbol, text
from simulation.plan import Plan, SymbolPlan


@dataclass
class Traded(Symbol):
    """A symbol whose trades come by their own chance, at their own times."""

    chance: random.Random = field(default_factory=random.Random)
    told: dict[int, Minute] = field(default_factory=dict)
    """The minutes as the aggregate trades add up to; the exchange's own (`minutes`) differ from it in rare cases."""
    retired_ms: int = 0
    """Since when it does not trade for good; 0 for it does."""
    ends: bool = False
    """Whether its candles end with it, as on spot; settled contracts go on without trades."""
    silent: list[tuple[int, int]] = field(default_factory=list)
    revised: dict[int, int] = field(default_factory=dict)
    """Minutes that were changed after they had settled, and when."""
    next_ms: float = 0.0
    agg: list[tuple[int, int, dict]] = field(default_factory=list)
    """Every aggregate trade: id, time, and its message's fields."""

    def is_silent(self, t_ms: int) -> bool:
        """Whether an instant lies in an outage."""
        return any(start_ms <= t_ms < end_ms for start_ms, end_ms in self.silent)

    def flow(self, now_ms: int) -> None:
        super().flow(min(now_ms, self.retired_ms) if self.retired_ms and self.ends else now_ms)

    def finer(self) -> None:
        super().finer()
        for one in self.told.values():
            for name in ("open", "high", "low", "close", "quote", "taker_quote"):
                setattr(one, name, getattr(one, name) * 10)

    def told_minute(self, open_ms: int) -> Minute:
        """The minute as its trades say."""
        return self.told.get(open_ms) or self.minutes[open_ms]


class Market:
    """All symbols; `traded` is told of each aggregate trade as it is made."""

    def __init__(self, plan: Plan, traded: Callable[[Traded, dict], None]) -> None:
        self.plan = plan
        self.symbols: dict[str, Traded] = {}
        self.now_ms = plan.start_ms
        self._traded = traded
        for one in plan.symbols:
            self.add(one, plan.start_ms, born_ms=plan.start_ms - int(one.age_min * MINUTE))

    def add(self, what: SymbolPlan, now_ms: int, born_ms: int) -> Traded:
        """List a symbol; what it traded before now is its history."""
        chance = random.Random(f"{self.plan.seed} {what.name}")
        one = Traded(
            what.name,
            what.rate,
            what.price,
            what.price_digits,
            what.qty_digits,
            born_ms,
            what.status,
            what.qty_unit,
            chance=chance,
            ends=self.plan.market == "spot",
        )
        if born_ms < now_ms - MINUTE:
            one.make_history(now_ms - now_ms % MINUTE, chance)
        one.flow(now_ms)
        one.next_ms = now_ms + self._pause_ms(one)
        self.symbols[what.name] = one
        return one

    @staticmethod
    def _pause_ms(one: Traded) -> float:
        return one.chance.expovariate(one.rate) * 1_000 if one.rate else float("inf")

    def advance(self, to_ms: int) -> None:
        """Make all trades up to an instant."""
        self.now_ms = max(self.now_ms, to_ms)
        for one in self.symbols.values():
            while one.next_ms <= self.now_ms:
                t_ms = int(one.next_ms)
                one.next_ms += self._pause_ms(one)
                if one.status == "TRADING" and not one.retired_ms and not one.is_silent(t_ms):
                    self._trade(one, t_ms)
            one.flow(self.now_ms)

    def _trade(self, one: Traded, t_ms: int) -> None:
        chance = one.chance
        one.flow(t_ms)
        before = one.price
        one.price = max(one.price + chance.randrange(-3, 4), 2)
        qty = chance.randrange(1, 3_000) * one.qty_unit + chance.randrange(one.qty_unit)
        count, maker = chance.choice((1, 1, 1, 2, 7)), chance.random() < 0.5
        fate = chance.random()
        if fate < 0.002:
            # The exchange counts a trade that no aggregate tells of.
            open_ms = t_ms - t_ms % MINUTE
            if open_ms not in one.told:
                one.told[open_ms] = copied(one.minutes[open_ms])
            one.trade(t_ms, qty, count, maker=maker)
            one.trade_id += count
            one.price = before
            one.minutes[open_ms].close = before
            return
        one.agg_id += 1
        first_id = one.trade_id
        fields = {
            "a": one.agg_id,
            "p": text(one.price, one.price_digits),
            "q": text(qty, one.qty_digits),
            "f": first_id,
            "l": first_id + count - 1,
            "T": t_ms,
            "m": maker,
        }
        if fate > 0.997:
            one.price = before  # what is no market trade moves no candle
            fields |= {"X": "INSURANCE_FUND"} if fate > 0.9985 else {"p": "0", "q": "0"}
        else:
            told = one.told.get(t_ms - t_ms % MINUTE)
            if told is not None:
                told.add(one.price, qty, count, first_id, maker=maker)
            one.trade(t_ms, qty, count, maker=maker)
        one.trade_id += count + (5 if fate > 0.99 else 0)
        one.agg.append((one.agg_id, t_ms, fields))
        self._traded(one, fields)


def copied(one: Minute) -> Minute:
    """The same sums once more."""
    return Minute(**vars(one))
