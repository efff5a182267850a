"""What the exchange writes: decimals, rows and events as JSON text (protocol: BINANCE.md sections 3 and 4)."""

import json
from collections.abc import Sequence
from typing import Final

from klagg.sim import calendar
from klagg.sim.block import Block
from klagg.sim.calendar import DAY_MS
from klagg.sim.candles import (
    CLOSE,
    COUNT,
    FIRST,
    HIGH,
    LAST,
    LOW,
    OPEN,
    OPEN_MS,
    QUOTE,
    TAKER_QUOTE,
    TAKER_VOLUME,
    VOLUME,
)
from klagg.sim.contracts import Contract

SPOT_DECIMALS: Final = 8
"""Spot writes every decimal with eight places."""

Row = Sequence[int]
"""One candle: the twelve numbers of a column of `candles`."""


def decimal(value: int, decimals: int, width: int) -> str:
    """`value / 10**decimals`, written with `width` places (never fewer than `decimals`)."""
    if decimals == 0:
        return f"{value}.{'0' * width}" if width else str(value)
    digits = str(value).rjust(decimals + 1, "0")
    return f"{digits[:-decimals]}.{digits[-decimals:]}{'0' * (width - decimals)}"


class Scribe:
    """Writes one contract's trades and candles as its market does.

    `unit` is 1 for times in milliseconds and 1000 for microseconds (spot only).
    """

    def __init__(self, contract: Contract, *, spot: bool) -> None:
        self.contract = contract
        self._spot = spot
        self._symbol = json.dumps(contract.symbol, ensure_ascii=False)
        self._price = contract.price_decimals
        self._qty = contract.qty_decimals
        self._quote = contract.price_decimals + contract.qty_decimals
        self._price_width = SPOT_DECIMALS if spot else self._price
        self._qty_width = SPOT_DECIMALS if spot else self._qty
        self._quote_width = max(SPOT_DECIMALS, self._quote) if spot else self._quote

    def price(self, value: int) -> str:
        """A price as text."""
        return decimal(value, self._price, self._price_width)

    def qty(self, value: int) -> str:
        """A quantity as text."""
        return decimal(value, self._qty, self._qty_width)

    def quote(self, value: int) -> str:
        """A quote volume as text."""
        return decimal(value, self._quote, self._quote_width)

    def average(self, quote: int, volume: int) -> str:
        """The volume-weighted price, cut to the price's places."""
        return self.price(quote // volume // 10 ** (self._quote - self._price - self._qty) if volume else 0)

    def _without_rpi(self, agg_id: int, qty: int) -> int:
        """The quantity without retail price improvement orders: now and then less than all of it."""
        return qty - self.contract.step if agg_id % 23 == 0 and qty > self.contract.step else qty

    def agg_trade(self, block: Block, i: int, event_ms: int, unit: int = 1) -> str:
        """The `aggTrade` event of one aggregate."""
        a, q = int(block.agg_id[i]), int(block.qty[i])
        price, qty = self.price(int(block.price[i])), self.qty(q)
        first, last, maker = block.first_id[i], block.last_id[i], "true" if block.maker[i] else "false"
        time = int(block.time_ms[i]) * unit
        if self._spot:
            return (
                f'{{"e":"aggTrade","E":{event_ms * unit},"s":{self._symbol},"a":{a},"p":"{price}","q":"{qty}",'
                f'"f":{first},"l":{last},"T":{time},"m":{maker},"M":true}}'
            )
        nq = self.qty(self._without_rpi(a, q))
        return (
            f'{{"e":"aggTrade","E":{event_ms},"a":{a},"s":{self._symbol},"p":"{price}","q":"{qty}","nq":"{nq}",'
            f'"f":{first},"l":{last},"T":{time},"m":{maker},"st":1}}'
        )

    def single_trade(self, block: Block, i: int, k: int, event_ms: int, unit: int = 1) -> str:
        """The spot `trade` event of an aggregate's k-th trade; they share its quantity as evenly as it can be."""
        first, last, qty = int(block.first_id[i]), int(block.last_id[i]), int(block.qty[i])
        count = last - first + 1
        share = qty // count + (k < qty % count)
        price, maker = self.price(int(block.price[i])), "true" if block.maker[i] else "false"
        return (
            f'{{"e":"trade","E":{event_ms * unit},"s":{self._symbol},"t":{first + k},"p":"{price}",'
            f'"q":"{self.qty(share)}","T":{int(block.time_ms[i]) * unit},"m":{maker},"M":true}}'
        )

    def agg_rows(self, block: Block, unit: int = 1) -> list[str]:
        """The rows of the body of an aggregate trades request."""
        rows = []
        for a, p, q, first, last, time, maker in zip(*(column.tolist() for column in block.columns()), strict=True):
            own = ',"M":true' if self._spot else ""
            nq = "" if self._spot else f'"nq":"{self.qty(self._without_rpi(a, q))}",'
            rows.append(
                f'{{"a":{a},"p":"{self.price(p)}","q":"{self.qty(q)}",{nq}"f":{first},"l":{last},"T":{time * unit},'
                f'"m":{"true" if maker else "false"}{own}}}'
            )
        return rows

    def kline_row(self, interval: str, row: Row, unit: int = 1, shift_ms: int = 0) -> list[int | str]:
        """One candle as the kline request gives it: twelve elements."""
        end = calendar.next_open(interval, row[OPEN_MS], shift_ms) * unit - 1
        return [
            row[OPEN_MS] * unit,
            self.price(row[OPEN]),
            self.price(row[HIGH]),
            self.price(row[LOW]),
            self.price(row[CLOSE]),
            self.qty(row[VOLUME]),
            end,
            self.quote(row[QUOTE]),
            row[COUNT],
            self.qty(row[TAKER_VOLUME]),
            self.quote(row[TAKER_QUOTE]),
            "0",
        ]

    def kline_event(
        self, interval: str, row: Row, event_ms: int, *, closed: bool, unit: int = 1, shift_ms: int = 0
    ) -> str:
        """The `kline` event of one candle."""
        k = self._kline_object(
            interval, row, closed=closed, unit=unit, shift_ms=shift_ms, symbol=f'"s":{self._symbol},'
        )
        return f'{{"e":"kline","E":{event_ms * unit},"s":{self._symbol},"k":{k}}}'

    def continuous_kline_event(self, interval: str, row: Row, event_ms: int, *, closed: bool) -> str:
        """The `continuous_kline` event of one candle (futures)."""
        k = self._kline_object(interval, row, closed=closed, unit=1, shift_ms=0, symbol="")
        pair = json.dumps(self.contract.base + self.contract.quote, ensure_ascii=False)
        kind = self.contract.contract_type
        return f'{{"e":"continuous_kline","E":{event_ms},"ps":{pair},"ct":"{kind}","k":{k}}}'

    def _kline_object(self, interval: str, row: Row, *, closed: bool, unit: int, shift_ms: int, symbol: str) -> str:
        end = calendar.next_open(interval, row[OPEN_MS], shift_ms) * unit - 1
        return (
            f'{{"t":{row[OPEN_MS] * unit},"T":{end},{symbol}"i":"{interval}","f":{row[FIRST]},"L":{row[LAST]},'
            f'"o":"{self.price(row[OPEN])}","c":"{self.price(row[CLOSE])}","h":"{self.price(row[HIGH])}",'
            f'"l":"{self.price(row[LOW])}","v":"{self.qty(row[VOLUME])}","n":{row[COUNT]},'
            f'"x":{"true" if closed else "false"},"q":"{self.quote(row[QUOTE])}","V":"{self.qty(row[TAKER_VOLUME])}",'
            f'"Q":"{self.quote(row[TAKER_QUOTE])}","B":"0"}}'
        )

    def mini_ticker(self, row: Row, event_ms: int, unit: int = 1) -> str:
        """The `24hrMiniTicker` event of the last 24 hours' candle."""
        pair = json.dumps(self.contract.base + self.contract.quote, ensure_ascii=False)
        own = "" if self._spot else f',"ps":{pair},"st":1'
        return (
            f'{{"e":"24hrMiniTicker","E":{event_ms * unit},"s":{self._symbol},"c":"{self.price(row[CLOSE])}",'
            f'"o":"{self.price(row[OPEN])}","h":"{self.price(row[HIGH])}","l":"{self.price(row[LOW])}",'
            f'"v":"{self.qty(row[VOLUME])}","q":"{self.quote(row[QUOTE])}"{own}}}'
        )

    def ticker(self, row: Row, now_ms: int, unit: int = 1) -> dict[str, int | str]:
        """The last 24 hours as the ticker request gives them."""
        change = row[CLOSE] - row[OPEN]
        sign = "-" if change < 0 else ""
        percent = abs(change) * 100_000 // max(1, row[OPEN])
        return {
            "symbol": self.contract.symbol,
            "priceChange": sign + self.price(abs(change)),
            "priceChangePercent": sign + decimal(percent, 3, 3),
            "weightedAvgPrice": self.average(row[QUOTE], row[VOLUME]),
            "lastPrice": self.price(row[CLOSE]),
            "lastQty": self.qty(self.contract.step),
            "openPrice": self.price(row[OPEN]),
            "highPrice": self.price(row[HIGH]),
            "lowPrice": self.price(row[LOW]),
            "volume": self.qty(row[VOLUME]),
            "quoteVolume": self.quote(row[QUOTE]),
            "openTime": (now_ms - DAY_MS) * unit,
            "closeTime": now_ms * unit,
            "firstId": row[FIRST],
            "lastId": row[LAST],
            "count": row[COUNT],
        }
