"""Candles of many series as one table, and as JSON.

Rows of one scale are written by one format string over whole columns of integers: some 3 µs a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from klagg.fixed import join, to_text
from klagg.interval import MONTH_STEP
from klagg.model import Candles, Flag, Ints, Market, Origin, Source, no_candles, picked
from klagg.serve.events import quoted
from klagg.serve.native.source import Known
from klagg.serve.source import Frame

PRICES: Final = ("open", "high", "low", "close")
SUMS: Final = {
    "volume": "volume",
    "quote_volume": "quote",
    "taker_buy_volume": "taker_volume",
    "taker_buy_quote_volume": "taker_quote",
}
"""The name of a sum, and that of its words in `CANDLE`."""
_WORD_DIGITS: Final = 18
_MARKS: Final = {
    (origin.value * 4 + flags) * 4 + source.value: (
        f',"closed":true,"origin":"{origin.label}",' if flags & Flag.CLOSED else ',"closed":false,"origin":null,'
    )
    + f'"verified":{"true" if flags & Flag.VERIFIED else "false"},'
    + f'"source":"{source.label}"}}'
    for origin in Origin
    for flags in range(4)
    for source in Source
}


@dataclass(frozen=True, slots=True)
class SeriesName:
    """Whose candles rows are: symbol, the interval's name, and the frame that tells when they close."""

    symbol: str
    interval: str
    frame: Frame


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Candles with whose they are: `series[n]` is the place of row n's name in `names`."""

    market: Market
    names: Sequence[SeriesName]
    series: Ints
    candles: Candles
    closes_ms: Ints
    revisions: Ints
    known_ms: Ints

    @classmethod
    def of(cls, market: Market, parts: Sequence[tuple[SeriesName, Known]]) -> "Table":
        """The table of the candles of some series, one after the other."""
        names = [name for name, _ in parts]
        counts = [len(known.candles) for _, known in parts]
        none = np.zeros(0, np.int64)
        return cls(
            market,
            names,
            np.repeat(np.arange(len(parts), dtype=np.int64), counts),
            np.concatenate([no_candles(), *(known.candles for _, known in parts)]),
            np.concatenate([none, *(closes_ms(known.candles, name.frame) for name, known in parts)]),
            np.concatenate([none, *(known.revisions for _, known in parts)]),
            np.concatenate([none, *(known.known_ms for _, known in parts)]),
        )


def closes_ms(candles: Candles, frame: Frame) -> Ints:
    """The last millisecond of each candle."""
    if frame.interval.step_ms == MONTH_STEP:
        return np.array([frame.next_open(open_ms) - 1 for open_ms in candles["open_ms"].tolist()], np.int64)
    closes: Ints = candles["open_ms"] + (frame.interval.step_ms - 1)
    return closes


def objects(table: Table) -> list[str]:
    """Each row as a JSON object."""
    candles = table.candles
    market = quoted(table.market.value)
    heads = [
        f'{{"market":{market},"symbol":{quoted(name.symbol)},"interval":{quoted(name.interval)},'
        for name in table.names
    ]
    numbers = [""] * len(candles)
    scales = candles["price_scale"].astype(np.int64) * 256 + candles["qty_scale"]
    for scale in np.unique(scales).tolist():
        rows = np.flatnonzero(scales == scale)
        for row, text in zip(rows.tolist(), _numbers(table, rows, scale // 256, scale % 256), strict=True):
            numbers[row] = text
    marks = ((candles["origin"].astype(np.int64) * 4 + (candles["flags"] & 3)) * 4 + candles["source"]).tolist()
    return [
        heads[place] + text + _MARKS[mark]
        for place, text, mark in zip(table.series.tolist(), numbers, marks, strict=True)
    ]


def _numbers(table: Table, rows: Ints, price: int, qty: int) -> list[str]:
    """The numbers of rows of one scale."""
    candles = picked(table.candles, rows)
    fits = np.ones(len(rows), np.bool_)
    sums = {}
    for name, words in SUMS.items():
        scale = price + qty if "quote" in name else qty
        hi, lo = candles[f"{words}_hi"], candles[f"{words}_lo"]
        # hi * 10**(18 - scale) is within 63 bits.
        fits &= hi < 9 * 10 ** min(scale, 17) if scale <= _WORD_DIGITS else np.zeros(len(rows), np.bool_)
        sums[name] = (hi, lo, scale)
    if not fits.all():
        quick = iter(_numbers(table, rows[fits], price, qty) if fits.any() else ())
        return [
            next(quick) if fit else _one(table, row, price, qty) for row, fit in zip(rows.tolist(), fits, strict=True)
        ]
    columns: list[Ints] = [candles["open_ms"], table.closes_ms[rows]]
    for name in PRICES:
        columns += _parts(candles[name], price)
    for name in ("volume", "quote_volume"):
        columns += _sum_parts(*sums[name])
    columns.append(candles["trades"])
    for name in ("taker_buy_volume", "taker_buy_quote_volume"):
        columns += _sum_parts(*sums[name])
    columns += [candles["first_id"], candles["last_id"], table.revisions[rows], table.known_ms[rows]]
    values = tuple(np.column_stack(columns).ravel().tolist())
    return ("\n".join([_template(price, qty)] * len(rows)) % values).split("\n")


def _parts(values: Ints, scale: int) -> list[Ints]:
    return list(np.divmod(values, 10**scale)) if scale else [values]


def _sum_parts(hi: Ints, lo: Ints, scale: int) -> list[Ints]:
    whole, *fraction = _parts(lo, scale)
    return [whole + hi * 10 ** (_WORD_DIGITS - scale), *fraction] if hi.any() else [whole, *fraction]


@lru_cache(256)
def _template(price: int, qty: int) -> str:
    def number(name: str, places: int) -> str:
        return f'"{name}":"%d.%0{places}d"' if places else f'"{name}":"%d"'

    p, q, v = price, price + qty, qty
    fields = ['"open_time_ms":%d', '"close_time_ms":%d', *(number(name, p) for name in PRICES)]
    fields += [number("volume", v), number("quote_volume", q), '"trades":%d']
    fields += [number("taker_buy_volume", v), number("taker_buy_quote_volume", q)]
    fields += ['"first_trade_id":%d', '"last_trade_id":%d', '"revision":%d', '"known_ms":%d']
    return ",".join(fields)


def _one(table: Table, row: int, price: int, qty: int) -> str:
    """The same of a row whose sums are too large for 63 bits."""
    candle = table.candles[row]
    texts = {name: to_text(int(candle[name]), price) for name in PRICES}
    for name, words in SUMS.items():
        value = join(int(candle[f"{words}_hi"]), int(candle[f"{words}_lo"]))
        texts[name] = to_text(value, price + qty if "quote" in name else qty)
    fields = [f'"open_time_ms":{candle["open_ms"]}', f'"close_time_ms":{table.closes_ms[row]}']
    fields += [f'"{name}":"{text}"' for name, text in texts.items()]
    fields += [f'"trades":{candle["trades"]}', f'"first_trade_id":{candle["first_id"]}']
    fields += [f'"last_trade_id":{candle["last_id"]}', f'"revision":{table.revisions[row]}']
    return ",".join([*fields, f'"known_ms":{table.known_ms[row]}'])
