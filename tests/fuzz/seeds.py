"""Real messages and files to begin with, and how to change them: what finds more than bytes at random.

The samples are the exchange's own forms (its documentation, its recordings); values are changed where parsers are weak:
numbers at their bounds, other types, fields missing, twice, or out of order.
"""

import copy
import json
import random
import re
from collections.abc import Callable
from typing import Any

from fuzz.targets import SEPARATOR

AGG = {
    "e": "aggTrade", "E": 1_723_161_255_088, "a": 2_333_442_219, "s": "BTCUSDT", "p": "61631.90", "q": "0.024", "nq": "0.024",
    "f": 5_263_001_311, "l": 5_263_001_313, "T": 1_723_161_254_933, "m": False, "st": 1,
}  # fmt: skip
TRADE = {
    "e": "trade", "E": 1_723_161_255_088, "T": 1_723_161_255_087, "s": "ETHUSDT", "t": 5_263_001_311, "p": "3424.46", "q": "0.019",
    "X": "MARKET", "m": True,
}  # fmt: skip
SPOT = {
    "e": "trade", "E": 1_723_161_255_088, "s": "币安人生USDT", "t": 3_733_001_311, "p": "0.00001250", "q": "1200.00000000",
    "T": 1_723_161_255_087, "m": True, "M": True,
}  # fmt: skip
KLINE = {
    "e": "kline", "E": 1_723_161_300_010, "s": "BTCUSDT",
    "k": {
        "t": 1_723_161_240_000, "T": 1_723_161_299_999, "s": "BTCUSDT", "i": "1m", "f": 5_263_001_311, "L": 5_263_003_010, "o": "61631.90",
        "c": "61640.00", "h": "61650.50", "l": "61600.10", "v": "110.123", "n": 1700, "x": True, "q": "6787521.12340", "V": "60.001",
        "Q": "3698000.45670", "B": "0",
    },
}  # fmt: skip
EMPTY = {**KLINE, "k": {**KLINE["k"], "f": -1, "L": -1, "n": 0, "v": "0", "q": "0", "V": "0", "Q": "0"}}  # type: ignore[dict-item]
RUNNING = {**KLINE, "k": {**KLINE["k"], "x": False}}  # type: ignore[dict-item]
EVENTS: list[Any] = [
    AGG,
    TRADE,
    SPOT,
    KLINE,
    EMPTY,
    RUNNING,
    {"result": None, "id": 1},
    {"e": "serverShutdown", "E": 1},
]
ROW = [
    1_723_161_240_000, "61631.90", "61650.50", "61600.10", "61640.00", "110.123", 1_723_161_299_999, "6787521.12340", 1700, "60.001",
    "3698000.45670", "0",
]  # fmt: skip
TICKER = {
    "e": "24hrMiniTicker", "E": 1_723_161_255_088, "s": "BTCUSDT", "c": "61631.90", "o": "1", "h": "2", "l": "1", "v": "1", "q": "1",
    "ps": "BTCUSDT", "st": 1,
}  # fmt: skip
CONTRACT = {
    "e": "contractInfo", "E": 1, "s": "NEWUSDT", "ps": "NEWUSDT", "ct": "PERPETUAL", "dt": 4_133_404_800_000, "ot": 1, "cs": "TRADING",
    "bks": [], "st": 1,
}  # fmt: skip
SYMBOL = {
    "symbol": "BTCUSDT", "status": "TRADING", "contractType": "PERPETUAL", "baseAsset": "BTC", "quoteAsset": "USDT", "marginAsset": "USDT",
    "onboardDate": 1_569_398_400_000, "deliveryDate": 4_133_404_800_000, "pricePrecision": 2, "quantityPrecision": 3,
    "filters": [
        {"filterType": "PRICE_FILTER", "tickSize": "0.10", "minPrice": "1", "maxPrice": "2"},
        {"filterType": "LOT_SIZE", "stepSize": "0.001", "minQty": "0.001", "maxQty": "1000"},
    ],
}  # fmt: skip
INFO = {
    "timezone": "UTC",
    "rateLimits": [{"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 2400}],
    "symbols": [SYMBOL, {**SYMBOL, "symbol": "币安人生USDT", "status": "SETTLING"}],
}
AGG_CSV = (
    "2333442219,61631.90,0.024,5263001311,5263001313,1723161254933,true\n"
    "2333442220,61631.80,1.5,5263001314,5263001314,1723161254934,false\n"
)
NEXT = {**AGG, "a": 2_333_442_220, "f": 5_263_001_314, "l": 5_263_001_314}
REST = {"a": 1, "p": "1.5", "q": "2", "f": 1, "l": 2, "T": 1_723_161_254_933, "m": True}


def _lines(*events: object, before: str = "") -> str:
    return "".join(before + json.dumps({"stream": "x", "data": event}) + "\n" for event in events)


FILES = [
    AGG_CSV,
    "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker\n" + AGG_CSV,
    "".join(f"{n},0.00001250,1200.00000000,0.015,{1723161255087123 + n},True,True\n" for n in (3733001311, 3733001312)),
    "id,price,qty,quote_qty,time,is_buyer_maker\n1,2.5,3,7.5,1723161255087,true\n2,2.5,3,7.5,1723161255088,false\n",
    _lines(AGG, NEXT, KLINE),
    _lines(TRADE, {**TRADE, "t": 5_263_001_312}, before="1723161255088000000 "),
    "wss://fstream.binance.com/stream?streams=a\n" + _lines(AGG, before="1626992742.289: "),
    json.dumps([REST, {**REST, "a": 2, "f": 3, "l": 3}]),
]


def _kline_row(n: int) -> str:
    return ",".join(map(str, [int(ROW[0]) + n * 60_000, *ROW[1:6], int(ROW[6]) + n * 60_000, *ROW[7:]])) + "\n"


KLINE_FILES = [
    "".join(_kline_row(n) for n in range(4)),
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore\n"
    + "".join(_kline_row(n) for n in range(2)),
]
SETTINGS = [
    'market = "usdm,spot"\nsymbols = ["BTC*", "ETHUSDT"]\nintervals = "1m 5m 1h"\nmargin_ms = 20\nhistory = "2d"\nmemory_mib = 64\n',
    'rest_url = {spot = "https://a.b", usdm = "http://[::1]:8421"}\nmarket = ["spot", "usdm"]\nclock_speed = 30\ndb = "sqlite:///x.db"\n',
    "[market]\n",
    'serve = "127.0.0.1:8420"\nlog_format = "json"\ntake_over = true\nworkers = 2\n',
]
TEXTS = [
    "2025-07-30T12:00Z", "-7d", "1h30m", "0", "today", "1723161254933", "BTC/USDT:USDT-251226", "*USDT", "all", "BTC/USD:BTC", "spot=https://a.b/",
    "auto", "[::1]:8420", "sqlite:////tmp/x.db", "postgresql://u:p@h/db", "0001-01-01", "9999-12-31T23:59:59+00:00", "2025-W01-1", "12.5h",
    "[a-", "~nobody/x", "99999999999999", "1.999d", "usdm,spot",
]  # fmt: skip

INTERESTING: list[Any] = [
    *(0, -1, 1, 2**31, 2**53 + 1, 2**62, 2**62 + 1, 2**63 - 1, 2**63, 2**64, 10**30, -(2**63), 10**14, 10**14 + 1),
    *(True, False, None, 1.5, 1e300, [], {}, [1], {"a": 1}, 1_723_161_240_001),
    *("", "0", "0.0", "-1", "+1", "1e5", "1E-5", "NaN", "Infinity", "0x10", " 1", "1 ", "1.", ".5", "1..2", "1_000"),
    *(
        "00001.500",
        "0." + "0" * 17 + "1",
        "0." + "0" * 18 + "1",
        "9" * 18,
        "9" * 19,
        "9" * 40,
        "9" * 5_000,
        "1.1" + "0" * 25,
    ),
    *(
        "\u0661\u0662",
        "\u00b2",
        "MARKET",
        "LIMIT",
        "1m",
        "5m",
        "BTCUSDT",
        "btcusdt",
        "币安人生USDT",
        "aggTrade",
        "trade",
        "kline",
    ),
    *("\ud800", "a\x00b"),
]


def _interesting(rng: random.Random) -> Any:
    return copy.deepcopy(rng.choice(INTERESTING))


def mutate_json(value: Any, rng: random.Random) -> Any:
    """A JSON value with something in it changed."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places: list[tuple[Any, Any]] = []
        _walk(value, places)
        if not places:
            return _interesting(rng)
        holder, key = rng.choice(places)
        match rng.randrange(7):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[rng.choice(("x", "k", "data", "e", "t", "brandNew"))] = _interesting(rng)
            case 2 if isinstance(holder[key], int) and not isinstance(holder[key], bool):
                holder[key] += rng.choice((-60_000, -1, 1, 60_000, 10**9))
            case 3 if isinstance(holder[key], str) and holder[key]:
                at = rng.randrange(len(holder[key]))
                holder[key] = holder[key][:at] + rng.choice("0123456789.-+eE ") + holder[key][at + rng.randrange(2) :]
            case _:
                holder[key] = _interesting(rng)
    return value


def _walk(value: Any, places: list[tuple[Any, Any]]) -> None:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        places.append((value, key))
        _walk(inner, places)


def dump(value: Any, rng: random.Random) -> bytes:
    """Its text, in one of the ways to write it."""
    compact = rng.random() < 0.7
    text = json.dumps(value, ensure_ascii=rng.random() < 0.3, separators=(",", ":") if compact else None)
    return text.encode("utf-8", "surrogatepass")


def mutate_text(data: bytes, rng: random.Random) -> bytes:
    """Bytes with something cut, doubled, changed or put in."""
    if not data:
        return b"\x00"
    at, to = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
    match rng.randrange(6):
        case 0:
            return data[:at] + data[to:]
        case 1:
            return data[:at]
        case 2:
            return data[:to] + data[at:]
        case 3:
            return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
        case 4:
            token = rng.choice(INTERESTING)
            return data[:at] + str(token).encode("utf-8", "surrogatepass") + data[at:]
        case _:
            numbers = list(re.finditer(rb"[0-9]+(\.[0-9]+)?", data))
            if not numbers:
                return data + data
            spot = rng.choice(numbers)
            return (
                data[: spot.start()]
                + str(rng.choice(INTERESTING)).encode("utf-8", "surrogatepass")
                + data[spot.end() :]
            )


def _messages(rng: random.Random) -> bytes:
    parts = []
    for _ in range(rng.choice((1, 1, 2, 4))):
        event = rng.choice(EVENTS)
        if rng.random() < 0.9:
            event = mutate_json(event, rng)
        part = dump({"stream": "x@y", "data": event} if rng.random() < 0.6 else event, rng)
        parts.append(mutate_text(part, rng) if rng.random() < 0.2 else part)
    return SEPARATOR.join(parts)


def _of_json(*values: Any) -> Callable[[random.Random], bytes]:
    def make(rng: random.Random) -> bytes:
        data = dump(mutate_json(rng.choice(values), rng), rng)
        return mutate_text(data, rng) if rng.random() < 0.15 else data

    return make


def _of_text(texts: list[str]) -> Callable[[random.Random], bytes]:
    def make(rng: random.Random) -> bytes:
        data = rng.choice(texts).encode()
        for _ in range(rng.choice((1, 1, 2, 4))):
            data = mutate_text(data, rng)
        return data

    return make


MAKERS: dict[str, Callable[[random.Random], bytes]] = {
    "wire": _messages,
    "rows": _of_json([ROW], [ROW, [ROW[0] + 60_000, *ROW[1:]]], []),  # type: ignore[operator]
    "symbols": _of_json(INFO),
    "news": _of_json(
        [TICKER, {**TICKER, "s": "ETHUSDT"}],
        {"stream": "!miniTicker@arr", "data": [TICKER]},
        {"stream": "!contractInfo", "data": CONTRACT},
    ),
    "trade_files": _of_text(FILES),
    "kline_files": _of_text(KLINE_FILES),
    "csv_trades": _of_text(FILES[:1]),
    "configuration": _of_text(SETTINGS),
    "values": _of_text(TEXTS),
}
"""For each target, bytes made from its samples."""
