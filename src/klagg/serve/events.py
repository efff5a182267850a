"""The stream events of the exchange as JSON."""

import numpy as np
from msgspec import json

from klagg.interval import MONTH_STEP
from klagg.model import Instrument
from klagg.serve.digits import Digits, Texts
from klagg.serve.source import Frame


def quoted(text: str) -> str:
    """A JSON string."""
    return json.encode(text).decode()


def kline_event(
    instrument: Instrument, frame: Frame, row: np.void, event_ms: int, *, closed: bool, unit: int = 1
) -> bytes:
    """The `kline` event of one candle."""
    symbol = quoted(instrument.symbol)
    k = _kline(instrument, frame, row, f'"s":{symbol},', closed=closed, unit=unit)
    return f'{{"e":"kline","E":{event_ms * unit},"s":{symbol},"k":{k}}}'.encode()


def continuous_kline_event(instrument: Instrument, frame: Frame, row: np.void, event_ms: int, *, closed: bool) -> bytes:
    """The `continuous_kline` event of one candle (futures)."""
    pair = quoted(instrument.base + instrument.quote)
    contract = quoted(str(instrument.extra.get("contract_type", "")))
    k = _kline(instrument, frame, row, "", closed=closed, unit=1)
    return f'{{"e":"continuous_kline","E":{event_ms},"ps":{pair},"ct":{contract},"k":{k}}}'.encode()


def _kline(instrument: Instrument, frame: Frame, row: np.void, symbol: str, *, closed: bool, unit: int) -> str:
    t = Texts(row, Digits.of(instrument))
    open_ms = int(row["open_ms"])
    step_ms = frame.interval.step_ms
    end_ms = open_ms + step_ms if step_ms != MONTH_STEP else frame.next_open(open_ms)
    return (
        f'{{"t":{open_ms * unit},"T":{end_ms * unit - 1},{symbol}"i":"{frame.interval.name}","f":{row["first_id"]},'
        f'"L":{row["last_id"]},"o":"{t.o}","c":"{t.c}","h":"{t.h}","l":"{t.l}","v":"{t.v}","n":{row["trades"]},'
        f'"x":{"true" if closed else "false"},"q":"{t.q}","V":"{t.V}","Q":"{t.Q}","B":"0"}}'
    )
