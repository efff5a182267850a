"""Kline rows to candles, and the cheapest way to ask for many of them. Pure.

A row widens its own scales where it has more digits than asked for; rows off the interval's grid (old outages have them),
outside the range, or still running are left out and counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np

from klagg.errors import MalformedMessage, NumberError
from klagg.exchange.decimals import digits_needed, price_at, sum_at
from klagg.fixed import MAX_SCALE, WORD
from klagg.interval import Interval
from klagg.model import Candles, Flag, Market, Origin, Source, no_candles

SETTLE_MS: Final = 10_000
"""The exchange's kline is final this long after its close (design, section 1)."""

PAGES: Final = {Market.USDM: ((100, 1), (500, 2)), Market.SPOT: ((1_000, 2),)}
"""Up to so many rows cost so much: the requests worth making. On USDT-M 1,000 rows for 5 and 1,500 for 10 (measured; a request
without a limit costs 5) are never cheaper than several of these."""


def page(market: Market, rows: int) -> tuple[int, int]:
    """The limit and the weight of the next request when `rows` rows are wanted: the most rows for the weight.

    On USDT-M 500 rows for 2 are the best bargain, 100 rows for 1 serve the remainder.
    """
    assert rows > 0
    for most, weight in PAGES[market]:
        if rows <= most:
            return rows, weight
    return PAGES[market][-1]


def weight_of(market: Market, rows: int) -> int:
    """What so many rows of one symbol cost altogether, asked for as `page` says."""
    total = 0
    while rows > 0:
        limit, weight = page(market, rows)
        total += weight
        rows -= limit
    return total


class _Row(msgspec.Struct, array_like=True):
    """One row of an answer; what stands behind these elements is ignored."""

    open_ms: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    close_ms: int
    quote: str
    trades: int
    taker_volume: str
    taker_quote: str


_ROWS: Final = msgspec.json.Decoder(list[_Row])


@dataclass(frozen=True, slots=True)
class KlinePage:
    """One answer: its usable candles, how many rows it held, the open of the last one in the range (-1 for none), rows left out."""

    candles: Candles
    rows: int
    last_open_ms: int
    off_grid: int


def parse_rows(
    body: bytes, interval: Interval, *, start_ms: int, end_ms: int, asked_ms: int, price_scale: int, qty_scale: int
) -> KlinePage:
    """The closed candles of an answer, for opens in `[start_ms, end_ms)`.

    Args:
        body: the answer, rows of twelve elements.
        interval: the interval asked for.
        start_ms: the first open wanted.
        end_ms: the end of the opens wanted.
        asked_ms: exchange time just before the request was sent: a candle that ended later was running when it was made.
        price_scale: the least scale of prices.
        qty_scale: the least scale of quantities.

    Raises:
        MalformedMessage: not rows of klines.
    """
    try:
        rows = _ROWS.decode(body)
        candles = no_candles(len(rows))
        kept = off_grid = 0
        last_open_ms = -1
        for row in rows:
            open_ms = row.open_ms
            if not start_ms <= open_ms < end_ms:
                continue  # and no sign of how far the page goes: a running candle may stand behind the range
            last_open_ms = max(last_open_ms, open_ms)
            if not interval.is_open(open_ms):
                off_grid += 1
                continue
            end_of_row_ms = interval.next_open(open_ms)
            if end_of_row_ms > asked_ms:
                continue
            settled = end_of_row_ms + SETTLE_MS <= asked_ms
            prices, sums = (row.open, row.high, row.low, row.close), (row.volume, row.quote)
            fields = (*prices, *sums, row.taker_volume, row.taker_quote)
            values = candle_fields(fields, row.trades, price_scale, qty_scale)
            flags = int(Flag.CLOSED | Flag.VERIFIED) if settled else int(Flag.CLOSED)
            head = (0, interval.code, int(Origin.EXCHANGE), flags)
            candles[kept] = (*head, *values[:2], int(Source.API), open_ms, *values[2:], -1, -1)
            kept += 1
    except (msgspec.MsgspecError, NumberError, UnicodeDecodeError, OverflowError) as error:
        raise MalformedMessage(f"a kline row of interval {interval} cannot be read ({error})") from error
    return KlinePage(candles[:kept].copy(), len(rows), last_open_ms, off_grid)


def candle_fields(texts: Sequence[str], trades: int, price_scale: int, qty_scale: int) -> tuple[int, ...]:
    """Decimal text of one kline to a candle's columns.

    Args:
        texts: open, high, low, close, volume, quote volume, taker buy volume, taker buy quote volume.
        trades: the number of trades.
        price_scale: the least scale of prices.
        qty_scale: the least scale of quantities.

    Returns:
        price_scale, qty_scale, open, high, low, close, the two words of the four sums (volume, quote, taker volume, taker
        quote), trades; the scales wide enough for every digit.

    Raises:
        NumberError: a text is no decimal, is negative, or does not fit.
    """
    prices, volumes, quotes = texts[:4], (texts[4], texts[6]), (texts[5], texts[7])
    price_scale = max(price_scale, digits_needed(prices))
    qty_scale = max(qty_scale, digits_needed(volumes))
    missing = digits_needed(quotes) - price_scale - qty_scale
    if missing > 0:
        # Trades of this candle had digits that its own columns do not show; volumes have the room.
        taken = min(missing, max(MAX_SCALE - qty_scale, 0))
        qty_scale += taken
        price_scale += missing - taken
    if max(price_scale, qty_scale) > MAX_SCALE:
        raise NumberError(f"{max(texts, key=len)[:40]!r} has more than {MAX_SCALE} decimal places")
    if trades < 0:
        raise NumberError(f"{trades} is no number of trades")
    o, h, low, c = (price_at(text, price_scale) for text in prices)
    volume, taker_volume = (sum_at(text, qty_scale) for text in volumes)
    quote, taker_quote = (sum_at(text, price_scale + qty_scale) for text in quotes)
    sums = (*divmod(volume, WORD), *divmod(quote, WORD), *divmod(taker_volume, WORD), *divmod(taker_quote, WORD))
    return (price_scale, qty_scale, o, h, low, c, *sums, trades)


def join(pages: Sequence[Candles]) -> Candles:
    """Pages of candles in one array."""
    return np.concatenate(pages) if pages else no_candles()
