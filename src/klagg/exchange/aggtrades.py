"""Aggregate trades of REST to trade rows. Pure."""

from itertools import pairwise
from typing import Final

import msgspec
import numpy as np

from klagg.errors import MalformedMessage, NumberError
from klagg.exchange.decimals import mantissa_and_scale
from klagg.model import TRADE, Market, TradeKind, Trades

WEIGHT: Final = {Market.USDM: 20, Market.SPOT: 4}
"""What one answer costs, however many rows it has."""
LIMIT: Final = 1_000
"""Rows of one answer at most, on both markets."""


class _AggTrade(msgspec.Struct):
    a: int
    p: str
    q: str
    f: int
    l: int  # noqa: E741 - the exchange's name
    T: int
    m: bool


_AGG_TRADES: Final = msgspec.json.Decoder(list[_AggTrade])


def parse_rows(body: bytes, _asked_ms: int) -> Trades:
    """The trades of an answer, ascending by id, slot 0, at the scale each needs; one told twice in a row is one.

    Raises:
        MalformedMessage: not rows of aggregate trades, or rows in disorder, or two different ones of one id.
    """
    try:
        told = _AGG_TRADES.decode(body)
        rows = [row for at, row in enumerate(told) if at == 0 or row != told[at - 1]]
        for one, other in pairwise(rows):
            if other.a <= one.a:
                raise MalformedMessage(f"aggregate trades: {other.a} after {one.a}")
        trades = np.zeros(len(rows), TRADE)
        for at, row in enumerate(rows):
            price, price_scale = mantissa_and_scale(row.p)
            qty, qty_scale = mantissa_and_scale(row.q)
            kind = TradeKind.MARKET if price and qty else TradeKind.UNPROVEN
            trades[at] = (0, price_scale, qty_scale, row.m, kind, row.a, price, qty, row.f, row.l, row.T)
    except (msgspec.MsgspecError, NumberError, UnicodeDecodeError, OverflowError) as error:
        raise MalformedMessage(f"aggregate trades cannot be read ({error})") from error
    return trades
