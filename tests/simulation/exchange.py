"""The exchange: REST answers and streams over the market, as the exchange's documents describe them, and out of order as told."""

import json
import random
from collections import Counter
from typing import Protocol

from judge.lies import AGG_TRADES, KLINES, LISTS, Liar
from judge.truth import MINUTE, STEPS, text
from simulation.market import Market, Traded, copied
from simulation.plan import Happening, Plan, SymbolPlan
from simulation.timeline import Timeline

LIMITS = {"spot": 6_000, "usdm": 2_400}
UNSETTLED_MS = 8_000
"""A candle's row may still differ from the final one for so long after its close."""
PUSH_MS = 200
NEVER_MS = 4_133_404_800_000
ODD = "ODDUSDT"
"""A listed symbol of a status that nobody knows, which never trades."""


class Peer(Protocol):
    """One WebSocket connection, as the exchange sees it."""

    names: set[str]

    def send(self, payload: bytes, delay_ms: float, *, in_order: bool = True) -> None:
        """Have a message arrive after a delay."""


class Exchange:
    """The exchange's side of the world. `active` tells which faults last now."""

    def __init__(self, plan: Plan, timeline: Timeline) -> None:
        self.plan = plan
        self.timeline = timeline
        self.market = Market(plan, self._traded)
        self.gone: dict[str, Traded] = {}
        """Symbols that have left the list altogether."""
        self.vanished: set[str] = set()
        """Those of them of which it does not even give the klines any more."""
        self.peers: list[Peer] = []
        self.pushed: set[tuple[str, int]] = set()
        """Minutes whose closing push was sent to somebody, and is what the trades tell: symbol and open."""
        self.counts: Counter[str] = Counter()
        self.over_weight = 0
        self.lasting: list[Happening] = []
        self._chance = random.Random(f"{plan.seed} exchange")
        self._liar = Liar(random.Random(f"{plan.seed} liar"))
        self._weight: Counter[int] = Counter()
        self._banned_until_ms = 0
        self._closed_ms = plan.start_ms - plan.start_ms % MINUTE
        self._ticked_ms = 0
        self._beaten_ms = 0
        self._moved: set[str] = set()

    @property
    def now_ms(self) -> int:
        return self.timeline.now_ms

    def active(self, kind: str) -> Happening | None:
        """The fault of this kind that lasts now."""
        now_s = self.timeline.now_s
        for one in self.lasting:
            if one.kind == kind and one.at_s <= now_s < one.at_s + one.span_s:
                self.counts[kind] += 1
                return one
        return None

    def strikes(self, kind: str) -> bool:
        """Whether a fault that lasts now hits this time."""
        one = self.active(kind)
        return one is not None and self._chance.random() < one.value

    def _lie(self, kinds: tuple[str, ...]) -> str | None:
        """The lie of these kinds that is told this time; lots of its own, so that a world without lies stays what it was."""
        for kind in kinds:
            one = self.active(f"rest_{kind}")
            if one is not None and self._liar.chance.random() < one.value:
                return kind
        return None

    # Streams

    def turn(self) -> None:
        """Called some times a second: trades, closing pushes, mini-tickers, heartbeats."""
        now_ms = self.now_ms
        self.market.advance(now_ms)
        minute_ms = now_ms - now_ms % MINUTE
        while self._closed_ms < minute_ms:
            for one in self.market.symbols.values():
                self._close(one, self._closed_ms)
            self._closed_ms += MINUTE
        if now_ms - self._ticked_ms >= 3_000:
            self._ticked_ms = now_ms
            self._mini_ticker()
        if now_ms - self._beaten_ms >= 5_000:
            self._beaten_ms = now_ms
            self._cast("btcusdt@miniTicker", self._ticker(self.market.symbols["BTCUSDT"]), 5)

    def _cast(self, name: str, data: object, delay_ms: float, *, in_order: bool = True) -> None:
        if not self.peers:
            return
        payload = json.dumps({"stream": name, "data": data}, ensure_ascii=False).encode()
        for peer in tuple(self.peers):
            if name in peer.names:
                peer.send(payload, delay_ms, in_order=in_order)

    def _traded(self, one: Traded, fields: dict) -> None:
        self._moved.add(one.name)
        if not self.peers:
            return
        name = f"{one.name.lower()}@aggTrade"
        message = {"e": "aggTrade", "E": self.now_ms, "s": one.name, **fields}
        lag_ms = self.plan.lag_ms
        if self.strikes("lose"):
            self.counts["lost"] += 1
            return
        if self.strikes("late"):
            late_ms = self._chance.choice((800, 4_000, 9_000, 45_000, 150_000)) * self._chance.random()
            self._cast(name, message, lag_ms + late_ms, in_order=False)
            return
        if self.strikes("reorder"):
            self._cast(name, message, lag_ms + self._chance.random() * 3_000, in_order=False)
            return
        self._cast(name, message, lag_ms)
        if self.strikes("duplicate"):
            self._cast(name, message, lag_ms + self._chance.choice((0, 1, 900, 20_000)), in_order=False)
        if self.strikes("garbage"):
            self._garbage(name, message)

    def _garbage(self, name: str, message: dict) -> None:
        chance, a = self._chance, message["a"]
        odd = (
            {"s": "NOSUCHUSDT"},
            {"s": "MIDUSDT", "p": "0", "a": a},
            {"p": "-5"},
            {"p": "0.00"},
            {"p": "1e5"},
            {"p": "NaN", "q": "Infinity"},
            {"q": None},
            {"p": "1." + "0" * 40 + "1"},
            {"p": "9" * 60},
            {"T": message["T"] + 3_600_000, "a": a + 9},
            {"T": "yesterday"},
            {"T": -1},
            {"a": -3},
            {"a": 2**63},
            {"a": str(a)},
            {"f": 9, "l": 3},
            {"m": "maybe"},
        )
        self._cast(name, {**message, **chance.choice(odd)}, self.plan.lag_ms)
        whole = json.dumps({"stream": name, "data": message}).encode()
        raw = chance.choice(
            (
                whole[: len(whole) // 2],
                b"",
                b"null",
                b"[]",
                b"\xff\xfe\x00",
                b'{"data":' * 60,
                b'{"e":"aggTrade"}',
                whole + whole,
            )
        )
        for peer in tuple(self.peers):
            if name in peer.names and raw:
                peer.send(raw, self.plan.lag_ms)

    def _close(self, one: Traded, open_ms: int) -> None:
        """The closing push of a minute."""
        row = one.row("1m", open_ms, self.now_ms)
        if row is None or one.status != "TRADING":
            return
        minute = one.minutes[open_ms]
        if minute.trades and self.strikes("wrong_push_agreed"):
            self._change(one, open_ms)
            row = one.row("1m", open_ms, self.now_ms)
        elif minute.trades and self.strikes("wrong_push"):
            self.counts["pushed wrong"] += 1
            kept = copied(minute)
            self._change(one, open_ms)
            row = one.row("1m", open_ms, self.now_ms)
            one.minutes[open_ms] = kept
            one._cache.clear()
        if self.strikes("no_closing_push") or (minute.trades == 0 and self._chance.random() < 0.2):
            return
        delay_ms = 60 + self._chance.random() * 700
        if self.strikes("late_closing_push"):
            delay_ms += self._chance.random() * 100_000
        names = dict(zip("tohlcvTqnVQB", row, strict=True))
        kline = {**names, "s": one.name, "i": "1m", "f": minute.first_id, "L": minute.last_id, "x": True}
        data = {"e": "kline", "E": self.now_ms, "s": one.name, "k": kline}
        name = f"{one.name.lower()}@kline_1m"
        if any(name in peer.names for peer in self.peers) and open_ms not in one.told:
            self.pushed.add((one.name, open_ms))
        self._cast(name, data, delay_ms)
        if self.strikes("duplicate"):
            self._cast(name, data, delay_ms + 900)

    def _ticker(self, one: Traded) -> dict:
        return {
            "e": "24hrMiniTicker",
            "E": self.now_ms,
            "s": one.name,
            "c": text(one.price, one.price_digits),
            "o": "1",
            "h": "9",
            "l": "1",
            "v": "77",
            "q": "88",
            "st": 1,
        }

    def _mini_ticker(self) -> None:
        rows = [self._ticker(self.market.symbols[name]) for name in sorted(self._moved & self.market.symbols.keys())]
        self._moved.clear()
        other = {"e": "24hrMiniTicker", "E": self.now_ms, "s": "BTCUSD_PERP", "c": "85000.1", "st": 2}
        self._cast("!miniTicker@arr", [*rows, *([other] if self.plan.market == "usdm" else [])], 20)

    # REST

    def answer(self, what: str, query: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of a request that arrives now."""
        now_ms = self.now_ms
        self.market.advance(now_ms)
        limit = int(query.get("limit", 500))
        used = self._charge(what, limit)
        if self.strikes("rest_wrong_weight"):
            used = self._chance.choice((0, 1, LIMITS[self.plan.market] - 3, LIMITS[self.plan.market] * 3))
        headers = {"X-MBX-USED-WEIGHT-1M": str(used), "Content-Type": "application/json"}
        refusal = self._refusal(what, headers)
        if refusal is not None:
            return refusal
        if what == "time":
            return 200, headers, _json({"serverTime": now_ms})
        if what == "exchangeInfo":
            return 200, headers, _json(self._info())
        status, body = self._data(what, query, limit)
        if self.strikes("rest_torn_body"):
            body = body[: self._chance.randrange(len(body))]
        return status, headers, body

    def _charge(self, what: str, limit: int) -> int:
        spot = self.plan.market == "spot"
        ladder = 1 if limit < 101 else 2 if limit <= 500 else 5
        weights = {"klines": 2 if spot else ladder, "exchangeInfo": 20 if spot else 1, "aggTrades": 4 if spot else 20}
        window = self.now_ms // MINUTE
        self._weight[window] += weights.get(what, 1)
        used = self._weight[window]
        self.over_weight += used > LIMITS[self.plan.market]
        return used

    def _refusal(self, what: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes] | None:
        now_ms = self.now_ms
        if now_ms < self._banned_until_ms:
            self.counts["asked_during_ban"] += 1
        ban = self.active("rest_429") or self.active("rest_418")
        if ban is not None or now_ms < self._banned_until_ms:
            if ban is not None:
                end_ms = self.plan.start_ms + int((ban.at_s + ban.span_s) * 1_000)
                self._banned_until_ms = max(self._banned_until_ms, end_ms)
            wait_s = -(-(self._banned_until_ms - now_ms) // 1_000)
            status = 418 if ban is not None and ban.kind == "rest_418" else 429
            told = {"Retry-After": str(wait_s)} if self.plan.market == "spot" or self._chance.random() < 0.5 else {}
            message = f"Way too many requests; IP(1.2.3.4) banned until {self._banned_until_ms}. Please use WebSocket."
            return status, {**headers, **told}, _json({"code": -1003, "msg": message})
        if what != "time" and self.strikes("rest_5xx"):
            return self._chance.choice((500, 502, 503, 504)), headers, b"<html>upstream</html>"
        if what != "time" and self.strikes("rest_firewall"):
            return 403, {"Content-Type": "text/html"}, b"<html>edge</html>"
        if what == "time" and self.active("time_down"):
            return 503, headers, b"Unknown error, please check your request or try again later."
        return None

    def _data(self, what: str, query: dict[str, str], limit: int) -> tuple[int, bytes]:
        one = self.everyone().get(query.get("symbol", ""))
        if one is None or one.name in self.vanished:
            return 400, _json({"code": -1121, "msg": "Invalid symbol."})
        if self.now_ms < one.refused_until_ms:
            return 400, _json({"code": -1122, "msg": "Invalid symbol status."})
        if what == "aggTrades":
            rows, lie = self._agg_trades(one, query, limit), self._lie(AGG_TRADES)
            if lie is not None:
                rows, is_lie = self._liar.agg_trades(lie, rows)
                self.counts[f"lie: {lie}"] += is_lie
            return 200, _json(rows)
        if what != "klines" or query.get("interval") not in {*STEPS, "1M"}:
            return 400, _json({"code": -1120, "msg": "Invalid interval."})
        start_ms, end_ms = int(query.get("startTime", 0)), int(query.get("endTime", self.now_ms))
        lie = self._lie(KLINES)
        rows, is_lie = self._liar.klines(lie, one, query["interval"], (start_ms, end_ms, limit), self.now_ms)
        if is_lie:
            self.counts[f"lie: {lie}"] += 1
        if self.strikes("rest_missing_rows") and rows:
            dropped = self._chance.randrange(len(rows))
            # Only the newest are late; an older row does not come and go.
            if rows[dropped][6] > self.now_ms - 90_000:
                rows = rows[:dropped]
        return 200, _json([self._unsettled(row) for row in rows])

    def _unsettled(self, row: list) -> list:
        """A row whose candle has just closed may lack something yet."""
        if row[6] < self.now_ms < row[6] + UNSETTLED_MS and self._chance.random() < 0.3 and row[8] > 1:
            return [*row[:8], row[8] - 1, *row[9:]]
        return row

    @staticmethod
    def _agg_trades(one: Traded, query: dict[str, str], limit: int) -> list[dict]:
        if "fromId" in query:
            found = [fields for number, _, fields in one.agg if number >= int(query["fromId"])]
        else:
            start_ms, end_ms = int(query.get("startTime", 0)), int(query.get("endTime", 2**62))
            found = [fields for _, t_ms, fields in one.agg if start_ms <= t_ms <= end_ms]
        return [fields for fields in found if "X" not in fields][:limit]

    def _info(self) -> dict:
        symbols = list(self.market.symbols.values())
        if self.active("list_shrunk"):
            symbols = symbols[:1]
        limits = [
            {
                "rateLimitType": "REQUEST_WEIGHT",
                "interval": "MINUTE",
                "intervalNum": 1,
                "limit": LIMITS[self.plan.market],
            }
        ]
        rows = [self._listed(one) for one in symbols]
        rows.append({"symbol": ODD, "status": "NEVER_HEARD_OF", "filters": []})
        lie = self._lie(LISTS)
        if lie is not None:
            rows, is_lie = self._liar.listed(lie, rows)
            self.counts[f"lie: {lie}"] += is_lie
        return {"serverTime": self.now_ms - 30_000, "rateLimits": limits, "symbols": rows}

    def _listed(self, one: Traded) -> dict:
        tick, step = text(1, one.price_digits) + "00", text(1, one.qty_digits)
        return {
            "symbol": one.name,
            "status": one.status,
            "baseAsset": one.name[:-4],
            "quoteAsset": "USDT",
            "marginAsset": "USDT",
            "contractType": "PERPETUAL",
            "onboardDate": 0 if self.plan.market == "spot" else one.born_ms,
            "deliveryDate": one.retired_ms or NEVER_MS,
            "filters": [
                {"filterType": "PRICE_FILTER", "tickSize": tick if "." in tick else "1"},
                {"filterType": "LOT_SIZE", "stepSize": step},
            ],
        }

    # What befalls the market

    def befall(self, what: Happening) -> None:
        """A happening of the market."""
        symbols, now_ms = self.market.symbols, self.now_ms
        self.market.advance(now_ms)
        one = symbols.get(what.name)
        gone = "BREAK" if self.plan.market == "spot" else "SETTLING"
        if what.kind in {"list_symbol", "list_symbol_shy"} and one is None:
            new = SymbolPlan(what.name, 0.8, 4_000, 3, 1, 0.0)
            listed = self.market.add(new, now_ms, now_ms)
            listed.refused_until_ms = now_ms + 90_000 if what.kind == "list_symbol_shy" else 0
            self._moved.add(what.name)
        elif one is None:
            return
        elif what.kind in {"delist", "vanish", "rename"} and not one.retired_ms:
            one.retired_ms = now_ms
            if self.plan.market == "spot":
                del symbols[what.name]
                self.gone[what.name] = one
                if what.kind == "vanish":
                    self.vanished.add(what.name)
            else:
                one.status = gone
            if what.kind == "rename":
                self.market.add(
                    SymbolPlan(f"RE{what.name}", 0.8, one.price, one.price_digits, one.qty_digits, 0.0), now_ms, now_ms
                )
        elif what.kind == "halt" and not one.retired_ms:
            one.status = "HALT" if self.plan.market == "spot" else "PAUSED_FOR_A_WHILE"
        elif what.kind == "halt_over" and not one.retired_ms:
            one.status = "TRADING"
        elif what.kind == "finer" and one.price_digits + 2 * one.qty_digits < 18 and one.price_digits < 8:
            one.finer()
        elif what.kind == "revise":
            self._revise(one, int(what.value))
        elif what.kind == "renumber":
            one.agg_id = one.agg_id // 2
        elif what.kind == "lacking_row":
            # An outage: nobody trades, and there are no rows of it.
            minute_ms = now_ms - now_ms % MINUTE + MINUTE
            one.lacking.update({minute_ms, minute_ms + MINUTE})
            one.silent.append((minute_ms, minute_ms + 2 * MINUTE))
            one._cache.clear()

    @staticmethod
    def _change(one: Traded, open_ms: int) -> None:
        """The exchange has a minute otherwise than its trades told: one of them was larger."""
        minute = one.minutes[open_ms]
        one.told.setdefault(open_ms, copied(minute))
        minute.volume += 3 * one.qty_unit
        minute.quote += 3 * one.qty_unit * minute.close
        one._cache.clear()

    def _revise(self, one: Traded, back: int) -> None:
        """Change a minute that has been settled for some time; it must have trades."""
        newest_ms = self.now_ms - self.now_ms % MINUTE - MINUTE
        for open_ms in range(newest_ms - back * MINUTE, newest_ms - 10 * MINUTE, -MINUTE):
            if open_ms in one.minutes and open_ms not in one.lacking and one.minutes[open_ms].trades:
                self._change(one, open_ms)
                one.revised[open_ms] = self.now_ms
                self.counts["revised"] += 1
                return

    def everyone(self) -> dict[str, Traded]:
        """Every symbol there ever was."""
        return {**self.gone, **self.market.symbols}


def _json(what: object) -> bytes:
    return json.dumps(what, ensure_ascii=False).encode()
