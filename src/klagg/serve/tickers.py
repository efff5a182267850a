"""The rolling 24 hours of a symbol, from its minutes: what the exchange's tickers say, as far as candles can.

The window begins at a whole minute. It is given only where every minute of it (since the listing) is there.
"""

from typing import Any

import numpy as np

from klagg.interval import DAY_MS
from klagg.model import Candles, Instrument, Market
from klagg.serve.digits import Digits, Texts, decimal
from klagg.serve.folding import joined, sum_of
from klagg.serve.source import Listing, Live, Source


async def day_of(live: Live, source: Source, one: Listing) -> Candles:
    """The last 24 hours of a symbol as one candle: closed minutes, and the running one; none while they are not complete."""
    market = one.instrument.market
    durable_ms = live.durable_ms(market)
    running = live.running(market, [one.instrument.symbol])[0, :1]
    past = await source.part(one, durable_ms - DAY_MS, durable_ms)
    if len(past) == 0 or running["close"][0] == 0:
        return past
    return joined(np.concatenate([past, running]))


def ticker(instrument: Instrument, day: Candles, open_ms: int, close_ms: int, unit: int) -> dict[str, Any]:
    """The row of `ticker/24hr`."""
    row, digits = day[0], Digits.of(instrument)
    texts = Texts(row, digits)
    scale = int(row["price_scale"])
    change = int(row["close"]) - int(row["open"])
    thousandths = abs(change) * 100_000 // max(1, int(row["open"]))
    return {
        "symbol": instrument.symbol,
        "priceChange": decimal(change, scale, digits.price),
        "priceChangePercent": decimal(-thousandths if change < 0 else thousandths, 3, 3),
        "weightedAvgPrice": _average(row, digits),
        "lastPrice": texts.c,
        "lastQty": decimal(0, 0, digits.qty),
        "openPrice": texts.o,
        "highPrice": texts.h,
        "lowPrice": texts.l,
        "volume": texts.v,
        "quoteVolume": texts.q,
        "openTime": open_ms * unit,
        "closeTime": close_ms * unit,
        "firstId": int(row["first_id"]),
        "lastId": int(row["last_id"]),
        "count": int(row["trades"]),
    }


def _average(row: np.void, digits: Digits) -> str:
    """The volume-weighted price, cut to the price's places."""
    volume, quote = sum_of(row, "volume"), sum_of(row, "quote")
    places = digits.price
    # quote is at price scale + quantity scale, volume at quantity scale: the quotient is at the price's scale.
    return decimal(quote * 10 ** (places - int(row["price_scale"])) // volume if volume else 0, places, places)


def mini_ticker(instrument: Instrument, day: Candles, event_ms: int, unit: int = 1) -> dict[str, Any]:
    """The `24hrMiniTicker` event."""
    texts = Texts(day[0], Digits.of(instrument))
    event: dict[str, Any] = {
        "e": "24hrMiniTicker",
        "E": event_ms * unit,
        "s": instrument.symbol,
        "c": texts.c,
        "o": texts.o,
        "h": texts.h,
        "l": texts.l,
        "v": texts.v,
        "q": texts.q,
    }
    if instrument.market is Market.USDM:
        event |= {"ps": instrument.base + instrument.quote, "st": 1}
    return event
