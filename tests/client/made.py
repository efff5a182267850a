"""A database of six days of a made market, with an owner who can go on: every kind of candle that a reader can meet."""

from pathlib import Path

import numpy as np

from klagg.interval import DAY_MS, HOUR_MS, MINUTE, MINUTE_MS, Interval, parse_interval
from klagg.model import Candles, Flag, Gap, Instrument, Market, Origin, Status, no_candles, virtual_shard
from klagg.serve.folding import fold
from klagg.serve.source import Frame
from klagg.store import Commit, SqliteStore, open_store

START_MS = 1_706_400_000_000
"""2024-01-28: a month ends within."""
DAYS = 6
END_MS = START_MS + DAYS * DAY_MS
HOLE_MS = (START_MS + DAY_MS + 5 * MINUTE_MS, START_MS + DAY_MS + 9 * MINUTE_MS)
REVISED_MS = START_MS + 2 * DAY_MS
LEARNED_MS = END_MS + HOUR_MS
"""When the last revisions became known."""
LISTED_MS = START_MS + 3 * DAY_MS + 30 * MINUTE_MS
SCALES = {"BTCUSDT": (2, 3), "ETHUSDT": (2, 3), "1000SHIBUSDT": (8, 0)}
KEPT = tuple(map(parse_interval, ("1m", "5m", "1h")))


class Owner:
    """The owner of the market in the database, which it closes minute by minute."""

    def __init__(self, path: Path) -> None:
        self.store: SqliteStore = open_store(str(path), mode="create")
        self._random = np.random.default_rng(5)
        listed = [self._instrument(symbol) for symbol in SCALES]
        self.ids = self.store.put_instruments(listed, START_MS)
        self.store.set_intervals(Market.USDM, KEPT)
        self.claim = self.store.claim(Market.USDM, owner="test", now_ms=START_MS)
        self.upto_ms = END_MS
        self._commit([], no_candles(), now_ms=END_MS)

    @staticmethod
    def _instrument(symbol: str, status: Status = Status.TRADING) -> Instrument:
        listed_ms = LISTED_MS if "SHIB" in symbol else START_MS
        base = symbol.removesuffix("USDT")
        return Instrument(Market.USDM, symbol, status, *SCALES[symbol], base, "USDT", listed_ms, status.value.upper())

    def fill(self) -> None:
        """Six days of each symbol, with what goes wrong in six days."""
        for symbol, number in self.ids.items():
            start_ms = LISTED_MS if "SHIB" in symbol else START_MS
            minutes = self.candles(symbol, start_ms, (END_MS - start_ms) // MINUTE_MS)
            if symbol == "ETHUSDT":
                opens = minutes["open_ms"]
                minutes = minutes[(opens < HOLE_MS[0]) | (opens >= HOLE_MS[1])]
                minutes["origin"][100:103] = Origin.UNMATCHED
                minutes["flags"][100:103] = Flag.CLOSED
            with self.store.knowing(END_MS):
                for interval in KEPT:
                    folded = minutes if interval is MINUTE else self._whole(minutes, interval)
                    self.store.write(np.full(len(folded), number), folded)
        with self.store.knowing(LEARNED_MS):
            revised = self.candles("BTCUSDT", REVISED_MS, 3)
            revised["close"] += 1
            revised["high"] += 1
            self.store.write(np.full(3, self.ids["BTCUSDT"]), revised)
        self.store.record_gap(Gap(Market.USDM, "ETHUSDT", *HOLE_MS, "the disk was full"), END_MS)
        self.store.put_instruments([self._instrument("ETHUSDT", Status.RETIRED)], LEARNED_MS)

    @staticmethod
    def _whole(minutes: Candles, interval: Interval) -> Candles:
        folded = fold(minutes, Frame(interval))
        return folded.candles[folded.whole]

    def candles(self, symbol: str, start_ms: int, count: int) -> Candles:
        """Minutes of a symbol: most verified, some trades', some flat."""
        many = no_candles(count)
        many["open_ms"] = start_ms + np.arange(count) * MINUTE_MS
        many["price_scale"], many["qty_scale"] = SCALES[symbol]
        price = 5_000 + np.abs(np.cumsum(self._random.integers(-9, 10, count)))
        many["open"], many["close"] = price, price + self._random.integers(0, 3, count)
        many["high"], many["low"] = price + 5, price - 5
        # The quote volumes of one symbol fill two words.
        many["volume_lo"] = self._random.integers(1, 10 ** (15 if symbol == "BTCUSDT" else 12), count)
        many["taker_volume_lo"] = many["volume_lo"] // 3
        for quote, volume in (("quote", "volume_lo"), ("taker_quote", "taker_volume_lo")):
            totals = [one * other for one, other in zip(many["open"].tolist(), many[volume].tolist(), strict=True)]
            many[f"{quote}_hi"], many[f"{quote}_lo"] = (
                [divmod(total, 10**18)[at] for total in totals] for at in (0, 1)
            )
        many["trades"] = self._random.integers(1, 5_000, count)
        many["first_id"] = np.cumsum(many["trades"]) - many["trades"]
        many["last_id"] = many["first_id"] + many["trades"] - 1
        many["origin"], many["flags"] = Origin.EXCHANGE, Flag.CLOSED | Flag.VERIFIED
        unverified = self._random.random(count) < 0.01
        many["origin"][unverified], many["flags"][unverified] = Origin.TRADES, Flag.CLOSED
        return many

    def close_minute(self, *, verified: bool = False) -> None:
        """One more minute of the first symbol becomes durable."""
        minute = self.candles("BTCUSDT", self.upto_ms, 1)
        minute["origin"] = Origin.EXCHANGE if verified else Origin.TRADES
        minute["flags"] = Flag.CLOSED | (Flag.VERIFIED if verified else 0)
        self.upto_ms += MINUTE_MS
        self._commit([self.ids["BTCUSDT"]], minute)

    def verify(self, open_ms: int) -> None:
        """The exchange's candle of a minute was seen, and is equal."""
        known = self.store.read(self.ids["BTCUSDT"], MINUTE, open_ms, open_ms + 1)
        known["flags"] |= np.uint8(Flag.VERIFIED)
        with self.store.knowing(open_ms + 2 * MINUTE_MS):
            self.store.write(np.full(len(known), self.ids["BTCUSDT"]), known)

    def _commit(self, ids: list[int], candles: Candles, now_ms: int | None = None) -> None:
        own = virtual_shard(Market.USDM, "BTCUSDT")
        others = [shard for shard in range(256) if shard != own]
        self.store.commit_all(
            [
                Commit(self.claim, others, self.upto_ms, now_ms=now_ms),
                Commit(self.claim, [own], self.upto_ms, np.array(ids, np.int64), candles, now_ms=now_ms),
            ]
        )
