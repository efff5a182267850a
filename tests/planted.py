"""A clean database with everything in it that looks odd and is right, its exchange, and defects to be planted in it.

The exchange is the judge's plain market; the database is what klagg's own parts write of it: rows read by the REST client's
parser, longer candles by the engine's fold, all brought through the store, and the owner's commit with its open snapshots.
"""

import json
import random
import sqlite3
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from judge.truth import MINUTE, Symbol
from klagg.clock import ManualClock
from klagg.engine.fold import fold
from klagg.exchange.budget import WeightBudget
from klagg.exchange.klines import parse_rows
from klagg.interval import BY_NAME, Interval
from klagg.interval import MINUTE as ONE
from klagg.model import VIRTUAL_SHARDS, Candles, Flag, Gap, Instrument, Market, Origin, Status, no_candles
from klagg.store import Commit, open_store

T0 = 1_725_235_200_000
"""2024-09-02, a Monday."""
HOUR = 60 * MINUTE
UPTO = T0 + 26 * HOUR
NOW = UPTO + 30 * MINUTE
KEPT = tuple(BY_NAME[name] for name in ("1m", "5m", "30m", "1h", "4h", "1d", "1w"))
LISTED = T0 + 21 * HOUR + 17 * MINUTE
RETIRED = T0 + 20 * HOUR + 4 * MINUTE
FINER = T0 + 22 * HOUR + 3 * MINUTE
OUTAGE = range(T0 + 14 * HOUR + 10 * MINUTE, T0 + 14 * HOUR + 20 * MINUTE, MINUTE)
UNVERIFIED = UPTO - 8 * MINUTE


class Exchange:
    """One market of the exchange, as `RestClient.klines` answers."""

    def __init__(self, market: Market, symbols: dict[str, Symbol]) -> None:
        self.market, self.symbols = market, symbols
        self.budget = WeightBudget(2_400, clock=ManualClock(), now_ms=lambda: NOW)
        self._answers: dict[tuple[str, str, int, int, int, int], Candles] = {}

    async def klines(
        self,
        symbol: str,
        interval: Interval,
        *,
        start_ms: int,
        end_ms: int,
        price_scale: int,
        qty_scale: int,
        purpose: int,
    ) -> Candles:
        key = symbol, interval.name, start_ms, end_ms, price_scale, qty_scale
        if key not in self._answers:
            self._answers[key] = self.rows(symbol, interval, start_ms, end_ms, price_scale, qty_scale)
        return self._answers[key].copy()

    def rows(
        self, symbol: str, interval: Interval, start_ms: int, end_ms: int, price_scale: int, qty_scale: int
    ) -> Candles:
        rows = self.symbols[symbol].rows(interval.name, start_ms, end_ms - 1, 10**9, NOW)
        scales = {"price_scale": price_scale, "qty_scale": qty_scale}
        body = json.dumps(rows).encode()
        return parse_rows(body, interval, start_ms=start_ms, end_ms=end_ms, asked_ms=NOW, **scales).candles


def exchanges() -> dict[Market, Exchange]:
    """Both markets: a busy symbol, a quiet one, one whose price gets finer, a newcomer, one that has left, an outage."""

    def symbol(name: str, born_ms: int = T0, until_ms: int = NOW, rate: float = 2) -> Symbol:
        one = Symbol(name, rate, 70_000, 2, 3, born_ms)
        one.make_history(until_ms, random.Random(f"{name} 7"))
        return one

    finer = symbol("FINERUSDT", born_ms=FINER - 3 * HOUR, until_ms=FINER)
    finer.finer()
    price = finer.price
    later = Symbol("FINERUSDT", 2, price + 7, 3, 3, FINER, trade_id=finer.trade_id)
    later.make_history(NOW, random.Random("later 7"))
    finer.minutes |= later.minutes
    usdm = [
        symbol("BTCUSDT"),
        symbol("QUIETUSDT", rate=0.1),
        finer,
        symbol("YOUNGUSDT", born_ms=LISTED),
        symbol("GONEUSDT", born_ms=RETIRED - 5 * HOUR, until_ms=RETIRED),
    ]
    outage = symbol("OUTAGEUSDT")
    outage.lacking = set(OUTAGE)
    for open_ms in OUTAGE:
        before = outage.minutes[OUTAGE[0] - MINUTE].close
        outage.minutes[open_ms] = type(outage.minutes[open_ms])(*[before] * 4)
    return {
        Market.USDM: Exchange(Market.USDM, {one.name: one for one in usdm}),
        Market.SPOT: Exchange(Market.SPOT, {"OUTAGEUSDT": outage}),
    }


def minutes_of(exchange: Exchange, name: str) -> Candles:
    """What klagg has of a symbol's minutes: most seen to be equal, the newest not yet, an outage on record."""
    one = exchange.symbols[name]
    first_ms = min(one.minutes)
    rows = exchange.rows(name, ONE, first_ms, UPTO, 2, 3)
    if name == "FINERUSDT":
        finer = exchange.rows(name, ONE, FINER, UPTO, 3, 3)
        rows = np.concatenate([rows[rows["open_ms"] < FINER], finer])
        assert set(rows["price_scale"].tolist()) == {2, 3}
    for row in rows:
        minute = one.minutes[int(row["open_ms"])]
        row["first_id"], row["last_id"] = minute.first_id, minute.last_id
        row["origin"] = Origin.TRADES if minute.trades else Origin.FLAT
        if row["open_ms"] % (7 * MINUTE) == 0:
            row["origin"], row["first_id"], row["last_id"] = Origin.EXCHANGE, -1, -1
        if row["open_ms"] >= UNVERIFIED and row["origin"] != Origin.EXCHANGE:
            row["flags"] = Flag.CLOSED
    if one.lacking:
        lost = rows[: len(one.lacking)].copy()
        lost["open_ms"], lost["origin"], lost["flags"] = sorted(one.lacking), Origin.UNMATCHED, Flag.CLOSED
        price = rows["close"][rows["open_ms"] == min(one.lacking) - MINUTE][0]
        for field in ("open", "high", "low", "close"):
            lost[field] = price
        for field in rows.dtype.names:
            if field.endswith(("_hi", "_lo")) or field == "trades":
                lost[field] = 0
        lost["first_id"] = lost["last_id"] = -1
        rows = np.sort(np.concatenate([rows, lost]), order="open_ms")
    return rows


@cache
def clean() -> tuple[bytes, dict[Market, Exchange]]:
    """The clean database's file, and its exchange; made once."""
    markets = exchanges()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "klagg.db"
        make(path, markets)
        return path.read_bytes(), markets


def make(path: Path, markets: dict[Market, Exchange]) -> None:
    """Write the clean database."""
    store = open_store(str(path), mode="create")
    for market, exchange in markets.items():
        listed = [
            Instrument(
                market, name, Status.TRADING, one.price_digits, 3, listed_ms=one.born_ms if name == "YOUNGUSDT" else 0
            )
            for name, one in exchange.symbols.items()
        ]
        ids = store.put_instruments(listed, T0)
        store.set_intervals(market, KEPT)
        claim = store.claim(market, owner="planted", now_ms=T0)
        piles: list[tuple[int, Candles]] = []
        for name in exchange.symbols:
            minutes = minutes_of(exchange, name)
            piles.append((ids[name], minutes))
            if name != "GONEUSDT":
                piles.append((ids[name], _snapshot(minutes, ONE)))
            piles += [(ids[name], _parents(name, minutes, interval)) for interval in KEPT[1:]]
        numbers = np.concatenate([np.full(len(candles), number) for number, candles in piles])
        store.commit(
            Commit(claim, range(VIRTUAL_SHARDS), UPTO, numbers, np.concatenate([c for _, c in piles]), now_ms=UPTO)
        )
        gone = [one for one in listed if one.symbol == "GONEUSDT"]
        if gone:
            left = Instrument(market, "GONEUSDT", Status.RETIRED, 2, 3)
            store.put_instruments([left], RETIRED)
            store.record_gap(Gap(market, "BTCUSDT", T0 + HOUR, T0 + HOUR + 5 * MINUTE, "full"), UPTO)
            store.settle_gaps(market, NOW)
        store.release(claim)
    store.close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()


def _parents(name: str, minutes: Candles, interval: Interval) -> Candles:
    """Longer candles: closed ones folded by the engine, and the open snapshot of a symbol that still trades."""
    folded = fold(minutes, interval)
    candles = folded.candles
    ends = np.array([interval.next_open(open_ms) for open_ms in candles["open_ms"].tolist()])
    whole = ends <= min(UPTO, RETIRED if name == "GONEUSDT" else UPTO)
    candles["flags"][~whole] = 0
    if name == "GONEUSDT":
        return candles[whole]
    return candles if (~whole).any() else np.concatenate([candles, _snapshot(minutes, interval)])


def _snapshot(minutes: Candles, interval: Interval) -> Candles:
    """An open candle without trades yet."""
    snapshot = no_candles(1)
    snapshot["open_ms"], snapshot["interval"], snapshot["origin"] = UPTO, interval.code, Origin.FLAT
    snapshot["price_scale"], snapshot["qty_scale"] = minutes["price_scale"][-1], minutes["qty_scale"][-1]
    for field in ("open", "high", "low", "close"):
        snapshot[field] = minutes["close"][-1]
    snapshot["first_id"] = snapshot["last_id"] = -1
    return snapshot


@dataclass(frozen=True)
class Defect:
    """What is done to the database by hand, and which command must find it (`audit` compares with the exchange)."""

    name: str
    statements: tuple[str, ...]
    check: bool = True
    audit: bool = True


def series(symbol: str, interval: str) -> str:
    return f"series = (SELECT id * 16 + {BY_NAME[interval].code} FROM instrument WHERE symbol = '{symbol}')"


def row(symbol: str, interval: str, open_ms: int) -> str:
    return f"{series(symbol, interval)} AND open_ms = {open_ms}"


AT = T0 + 6 * HOUR + 31 * MINUTE
"""A verified minute in the middle."""
FIVE = T0 + 6 * HOUR + 30 * MINUTE
COLUMNS = (
    "open, high, low, close, volume_hi, volume_lo, quote_hi, quote_lo, taker_volume_hi, taker_volume_lo, taker_quote_hi, "
    "taker_quote_lo, trades, first_id, last_id, price_scale, qty_scale, origin, verified, revision, known_ms, verified_ms"
)


def update(what: str, where: str) -> tuple[str, ...]:
    return (f"UPDATE candle SET {what} WHERE {where}",)


def copied(to_series: str, to_open: str, where: str) -> tuple[str, ...]:
    return (
        f"INSERT INTO candle (series, open_ms, {COLUMNS}) SELECT {to_series}, {to_open}, {COLUMNS} FROM candle WHERE {where}",
    )


BTC, QUIET, YOUNG = "BTCUSDT", "QUIETUSDT", "YOUNGUSDT"
M, P = row(BTC, "1m", AT), row(BTC, "1h", T0 + 6 * HOUR)
QUIETS = series(QUIET, "1m")
FLAT = f"{QUIETS} AND open_ms = (SELECT min(open_ms) FROM candle WHERE {QUIETS} AND trades = 0 AND open_ms > {AT})"

DEFECTS = [
    Defect(
        "close of an inner minute off by one",
        update("close = close + (CASE WHEN close < high THEN 1 ELSE -1 END)", M),
        check=False,
    ),
    Defect(
        "open of an inner minute off by one",
        update("open = open + (CASE WHEN open < high THEN 1 ELSE -1 END)", M),
        check=False,
    ),
    Defect(
        "open of a first minute off by one",
        update("open = open + (CASE WHEN open < high THEN 1 ELSE -1 END)", row(BTC, "1m", FIVE)),
    ),
    Defect("high of a minute raised", update("high = high + 1000", M)),
    Defect("low of a minute lowered", update("low = low - 1000", M)),
    Defect("high below close", update("high = close - 1", M)),
    Defect("low above open", update("low = open + 1", M)),
    Defect("price of zero", update("low = 0", M)),
    Defect(
        "all prices of a minute tenfold",
        update("open = open * 10, high = high * 10, low = low * 10, close = close * 10", M),
    ),
    Defect("volume of a minute off by one", update("volume_lo = volume_lo + 1", M)),
    Defect("quote volume of a minute off by one", update("quote_lo = quote_lo - 1", M)),
    Defect("taker volume above volume", update("taker_volume_lo = volume_lo + 1", M)),
    Defect("taker quote volume off by one", update("taker_quote_lo = taker_quote_lo + 1", M)),
    Defect("negative volume", update("volume_lo = -5", M)),
    Defect("volume moved to the upper word", update("volume_hi = 1", M)),
    Defect("trades of a minute off by one", update("trades = trades + 1", M)),
    Defect("trades of a minute gone", update("trades = 0", M)),
    Defect("volume of an hour off by one", update("volume_lo = volume_lo + 1", P)),
    Defect("close of an hour off by one", update("close = close + (CASE WHEN close < high THEN 1 ELSE -1 END)", P)),
    Defect("trades of a day off by one", update("trades = trades - 1", row(BTC, "1d", T0))),
    Defect(
        "prices of a 5m candle shifted",
        update("open = open - 1, high = high - 1, low = low - 1, close = close - 1", row(BTC, "5m", FIVE)),
    ),
    Defect("a minute missing", (f"DELETE FROM candle WHERE {M}",)),
    Defect(
        "an hour of minutes missing",
        (f"DELETE FROM candle WHERE {series(BTC, '1m')} AND open_ms >= {T0 + 5 * HOUR} AND open_ms < {T0 + 6 * HOUR}",),
    ),
    Defect("a longer candle missing", (f"DELETE FROM candle WHERE {P}",)),
    Defect("the newest minute missing", (f"DELETE FROM candle WHERE {row(BTC, '1m', UPTO - MINUTE)}",)),
    Defect("the newest 30m candle missing", (f"DELETE FROM candle WHERE {row(BTC, '30m', UPTO - 30 * MINUTE)}",)),
    Defect(
        "minutes of a retired symbol missing", (f"DELETE FROM candle WHERE {row('GONEUSDT', '1m', RETIRED - HOUR)}",)
    ),
    Defect("a row off the grid", copied("series", "open_ms + 1000", M)),
    Defect("a row moved off the grid", update("open_ms = open_ms + 30000", M)),
    Defect("an extra minute that the exchange lacks", copied("series", str(LISTED - MINUTE), row(YOUNG, "1m", LISTED))),
    Defect("a minute long before the listing", copied("series", str(T0 - 400 * 24 * HOUR), row(YOUNG, "1m", LISTED))),
    Defect(
        "a minute after the retiring",
        copied("series", str(RETIRED + 10 * MINUTE), row("GONEUSDT", "1m", RETIRED - MINUTE)),
        audit=True,
    ),
    Defect(
        "a minute after what is closed",
        copied("series", str(UPTO + 3 * MINUTE), row(BTC, "1m", UPTO - MINUTE)),
        audit=False,
    ),
    Defect("a minute in the year 2200", copied("series", "7258118400000", M), audit=False),
    Defect("a minute before 1970", copied("series", "-60000", M)),
    Defect(
        "a candle without trades that is no continuation",
        update("open = open + 1, high = high + 1, low = low + 1, close = close + 1", FLAT),
    ),
    Defect("a candle without trades that moves", update("high = high + 1", FLAT)),
    Defect(
        "verified and wrong",
        (
            *update(
                "close = close + (CASE WHEN close < high THEN 1 ELSE -1 END), verified = 0",
                row(BTC, "1m", UPTO - MINUTE),
            ),
            *update("verified = 1", row(BTC, "1m", UPTO - MINUTE)),
        ),
    ),
    Defect(
        "an unmatched minute marked verified",
        update("verified = 1", f"{series('OUTAGEUSDT', '1m')} AND origin = {Origin.UNMATCHED.value}"),
        audit=False,
    ),
    Defect(
        "a minute called unmatched that the exchange has", update(f"origin = {Origin.UNMATCHED.value}, verified = 0", M)
    ),
    Defect(
        "a wrong minute called unmatched",
        update(f"origin = {Origin.UNMATCHED.value}, verified = 1, trades = trades + 3", M),
    ),
    Defect("an origin without trades raised to trades", update(f"origin = {Origin.TRADES.value}", FLAT), audit=False),
    Defect("a filled origin on a verified candle", update(f"origin = {Origin.FILLED.value}", M), audit=False),
    Defect("an origin that is none", update("origin = 99", M), audit=False),
    Defect("a negative origin", update("origin = -1", M), audit=False),
    Defect("a price scale raised by one", update("price_scale = price_scale + 1", M)),
    Defect("a price scale raised to the most", update("price_scale = 18", M)),
    Defect("a price scale lowered", update("price_scale = 0", M)),
    Defect("a quantity scale raised", update("qty_scale = qty_scale + 2", M)),
    Defect("a scale that none can be", update("price_scale = 44", M)),
    Defect("the price scale of an hour raised", update("price_scale = price_scale + 1", P)),
    Defect(
        "price scales of ten minutes raised",
        update("price_scale = price_scale + 1", f"{series(BTC, '1m')} AND open_ms BETWEEN {AT} AND {AT + 9 * MINUTE}"),
    ),
    Defect(
        "trade ids swapped",
        update("first_id = last_id, last_id = first_id", row(BTC, "1m", T0 + 6 * HOUR + 2 * MINUTE)),
        audit=False,
    ),
    Defect("trade ids of an hour swapped", update("first_id = last_id, last_id = first_id", P), audit=False),
    Defect(
        "a trade id without the other", update("last_id = -1", row(BTC, "1m", T0 + 6 * HOUR + 2 * MINUTE)), audit=False
    ),
    Defect("minutes stored again as 3m candles", copied("series + 1", "open_ms", series(BTC, "1m"))),
    Defect("hours stored as 5m candles", copied("series - 3", "open_ms + 60000", series(BTC, "1h"))),
    Defect(
        "two minutes swapped",
        (
            *update("open_ms = 1", M),
            *update(f"open_ms = {AT}", row(BTC, "1m", AT + MINUTE)),
            *update(f"open_ms = {AT + MINUTE}", row(BTC, "1m", 1)),
        ),
    ),
    Defect(
        "a candle of another symbol",
        (
            f"DELETE FROM candle WHERE {M}",
            *copied(f"(SELECT id * 16 FROM instrument WHERE symbol = '{BTC}')", "open_ms", row(QUIET, "1m", AT)),
        ),
    ),
    Defect("rows of no instrument", copied("series + 16000", "open_ms", M), audit=False),
    Defect("rows of no interval", copied("series + 15", "open_ms", M), audit=False),
    Defect("a negative revision", update("revision = -7", M), audit=False),
    Defect("a verified that is no flag", update("verified = 7", M), audit=False),
    Defect("a wrong tally", ("UPDATE tally SET candles = candles + 5",), audit=False),
    Defect("a tally gone", ("DELETE FROM tally",), audit=False),
    Defect(
        "closed_upto too far ahead", (f"UPDATE shard SET closed_upto_ms = closed_upto_ms + {24 * HOUR}",), audit=True
    ),
    Defect(
        "closed_upto of one shard ahead",
        (f"UPDATE shard SET closed_upto_ms = closed_upto_ms + {HOUR} WHERE id = 3",),
        audit=False,
    ),
    Defect("closed_upto behind", (f"UPDATE shard SET closed_upto_ms = closed_upto_ms - {2 * HOUR}",), audit=False),
    Defect(
        "an open candle older than a closed one",
        (f"UPDATE open_candle SET open_ms = {T0 + 25 * HOUR} WHERE {series(BTC, '1h')}",),
        audit=False,
    ),
    Defect(
        "an open candle that cannot be",
        (f"UPDATE open_candle SET high = low - 1 WHERE {series(BTC, '1h')}",),
        audit=False,
    ),
    Defect("a last trade of no instrument", ("INSERT INTO last_trade VALUES (999, 2, 5, 5, 5)",), audit=False),
    Defect(
        "a gap of no time",
        ("INSERT INTO gap (market, symbol, start_ms, end_ms, reason) VALUES ('usdm', '', 9, 3, 'x')",),
        audit=False,
    ),
    Defect(
        "history of no candle",
        (
            (
                "INSERT INTO candle_was SELECT series, open_ms, 5, open, high, low, close, volume_hi, "
                "volume_lo, quote_hi, quote_lo, taker_volume_hi, taker_volume_lo, taker_quote_hi, taker_quote_lo, trades, first_id, "
                f"last_id, price_scale, qty_scale, origin, verified, known_ms, verified_ms, known_ms, source FROM candle WHERE {M}"
            ),
        ),
        audit=False,
    ),
    Defect("known before it was", update("known_ms = -5", M), audit=False),
    Defect(
        "verified set without its time", update("verified = 1", f"{series(BTC, '1m')} AND verified = 0"), audit=False
    ),
]
