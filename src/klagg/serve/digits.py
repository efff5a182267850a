"""Numbers as the exchange writes them: spot with eight places, futures with their symbol's precisions.

Many rows are written by one format string over whole columns of integers, a tenth of the time of row by row.
"""

from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Final

import numpy as np

from klagg.fixed import WORD
from klagg.interval import MONTH_STEP
from klagg.model import CANDLE, Candles, Instrument, Ints, Market
from klagg.serve.folding import SUMS, at_one_scale
from klagg.serve.source import Frame

SPOT_PLACES: Final = 8
_WORD_DIGITS: Final = 18
_LARGEST: Final = 9 * 10**18
PRICES: Final = ("open", "high", "low", "close")
_WORDS: Final = [f"{name}_{word}" for name in SUMS for word in ("hi", "lo")]
_NAMES: Final = ("price_scale", "qty_scale", *PRICES, *_WORDS)
_VALUES: Final = itemgetter(*(list(CANDLE.names or ()).index(name) for name in _NAMES))
"""The numbers of a candle that is a tuple: taken out of numpy at once, they cost a fifth of one by one."""


@dataclass(frozen=True, slots=True)
class Digits:
    """The places of one instrument's numbers: prices, quantities, quote volumes."""

    price: int
    qty: int
    quote: int

    @classmethod
    def of(cls, instrument: Instrument) -> "Digits":
        """The places that the exchange writes for an instrument; never fewer than its grids need."""
        price, qty = instrument.price_scale, instrument.qty_scale
        if instrument.market is Market.SPOT:
            return cls(max(SPOT_PLACES, price), max(SPOT_PLACES, qty), max(SPOT_PLACES, price + qty))
        price = max(price, instrument.extra.get("price_precision") or 0)
        qty = max(qty, instrument.extra.get("qty_precision") or 0)
        return cls(price, qty, price + qty)


def decimal(value: int, scale: int, places: int) -> str:
    """`value / 10**scale` with at least `places` fractional digits."""
    if scale == 0:
        return f"{value}.{'0' * places}" if places else str(value)
    if value >= 0 and scale == places:
        digits = str(value)
        if len(digits) > scale:
            return f"{digits[:-scale]}.{digits[-scale:]}"
    digits = str(abs(value)).rjust(scale + 1, "0")
    text = f"{digits[:-scale]}.{digits[-scale:]}{'0' * (places - scale)}"
    return f"-{text}" if value < 0 else text


class Texts:
    """The numbers of one candle as text: prices as `o h l c`, sums as `v q V Q`."""

    __slots__ = ("Q", "V", "c", "h", "l", "o", "q", "v")

    def __init__(self, row: np.void, digits: Digits) -> None:
        price, qty, opened, high, low, close, v_hi, v, q_hi, q, tv_hi, tv, tq_hi, tq = _VALUES(row.item())
        places = digits.price
        self.o, self.h = decimal(opened, price, places), decimal(high, price, places)
        self.l, self.c = decimal(low, price, places), decimal(close, price, places)
        self.v, self.V = decimal(v_hi * WORD + v, qty, digits.qty), decimal(tv_hi * WORD + tv, qty, digits.qty)
        quote, places = price + qty, digits.quote
        self.q, self.Q = decimal(q_hi * WORD + q, quote, places), decimal(tq_hi * WORD + tq, quote, places)


def kline_rows(candles: Candles, frame: Frame, digits: Digits, unit: int = 1) -> bytes:
    """The body of a kline request: rows of twelve; `unit` is 1000 for times in microseconds."""
    if len(candles) == 0:
        return b"[]"
    candles = at_one_scale(candles)
    price, qty = int(candles["price_scale"][0]), int(candles["qty_scale"][0])
    quote = price + qty
    sums = {}
    for name in SUMS:
        scale, places = (quote, digits.quote) if "quote" in name else (qty, digits.qty)
        parts = _sum_parts(candles[f"{name}_hi"], candles[f"{name}_lo"], scale, places)
        if parts is None:
            return _one_by_one(candles, frame, digits, unit)
        sums[name] = parts
    columns = [candles["open_ms"] * unit]
    for name in PRICES:
        columns += _parts(candles[name], price, digits.price)
    columns += [*sums["volume"], closes(candles, frame, unit), *sums["quote"], candles["trades"]]
    columns += [*sums["taker_volume"], *sums["taker_quote"]]
    values = tuple(np.column_stack(columns).ravel().tolist())
    row = _row_template(max(digits.price, price), max(digits.qty, qty), max(digits.quote, quote))
    return ("[" + ",".join([row] * len(candles)) % values + "]").encode()


def closes(candles: Candles, frame: Frame, unit: int) -> Ints:
    """The close time of each candle, in the unit."""
    step_ms = frame.interval.step_ms
    if step_ms == MONTH_STEP:
        ends = np.array([frame.next_open(t) for t in candles["open_ms"].tolist()], np.int64)
    else:
        ends = candles["open_ms"] + step_ms
    result: Ints = ends * unit - 1
    return result


@lru_cache(64)
def _row_template(price: int, qty: int, quote: int) -> str:
    def number(places: int) -> str:
        return f'"%d.%0{places}d"' if places else '"%d"'

    p, v, q = number(price), number(qty), number(quote)
    return f'[%d,{p},{p},{p},{p},{v},%d,{q},%d,{v},{q},"0"]'


def _parts(values: Ints, scale: int, places: int) -> list[Ints]:
    """Numbers at a scale as whole and fraction, the fraction with the places to be written (left out where there are none)."""
    whole, fraction = np.divmod(values, 10**scale)
    return [whole, fraction * 10 ** max(places - scale, 0)] if max(places, scale) else [whole]


def _sum_parts(hi: Ints, lo: Ints, scale: int, places: int) -> list[Ints] | None:
    """The same of two-word sums; None where they do not fit 63 bits."""
    if not hi.any():
        if scale <= _WORD_DIGITS >= places:
            return _parts(lo, scale, places)
    elif scale <= _WORD_DIGITS >= places and int(hi.max()) < _LARGEST // 10 ** (_WORD_DIGITS - scale) // 2:
        whole, fraction = _parts(lo, scale, max(places, 1)) if scale else (lo, np.zeros_like(lo))
        whole = whole + hi * 10 ** (_WORD_DIGITS - scale)
        return [whole, fraction] if max(places, scale) else [whole]
    return None


def _one_by_one(candles: Candles, frame: Frame, digits: Digits, unit: int) -> bytes:
    """The same body for sums that are too large for 63 bits."""
    rows: list[str] = []
    for row, close in zip(candles, closes(candles, frame, unit).tolist(), strict=True):
        t = Texts(row, digits)
        opened, trades = int(row["open_ms"]) * unit, int(row["trades"])
        prices = f'"{t.o}","{t.h}","{t.l}","{t.c}"'
        rows.append(f'[{opened},{prices},"{t.v}",{close},"{t.q}",{trades},"{t.V}","{t.Q}","0"]')
    return ("[" + ",".join(rows) + "]").encode()
