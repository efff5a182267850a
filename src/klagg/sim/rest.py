"""The REST market data of one venue: parameters in, JSON text out (protocol: BINANCE.md section 4)."""

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import numpy as np

from klagg.sim import calendar
from klagg.sim.block import Block
from klagg.sim.calendar import DAY_MS, HOUR_MS, MINUTE_MS, STEPS
from klagg.sim.contracts import Contract
from klagg.sim.listing import exchange_info, status_of, visible
from klagg.sim.venue import Venue

RETENTION_MS: Final = 2 * DAY_MS
"""How long the futures keep aggregate trades."""
_SPOT_SYMBOL: Final = re.compile(r"(?:[^\W\sa-z]|[-.]){1,50}")
_SPOT_RANGE: Final = r"^[\w\-._&&[^a-z]]{1,50}$"
_MICROSECONDS_FROM: Final = 10**14
"""A time at or above this is in microseconds (spot takes both)."""


class ApiError(Exception):
    """A refused request: HTTP status, the exchange's code and message, and the weight it costs all the same."""

    def __init__(self, code: int, message: str, *, status: int = 400, weight: int = 1) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.weight = weight


@dataclass(frozen=True, slots=True)
class Query:
    """One request: its path below the version prefix, its parameters, and the time unit of the answer (1 or 1000)."""

    path: str
    params: Mapping[str, str]
    unit: int = 1

    def required(self, name: str) -> str:
        """A parameter that must be there."""
        value = self.params.get(name)
        if value is None:
            raise ApiError(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")
        if not value:
            raise ApiError(-1105, f"Parameter '{name}' was empty.")
        return value

    def number(self, name: str) -> int | None:
        """An integer parameter, or None where it is not given."""
        value = self.params.get(name)
        if value is None:
            return None
        if not value:
            raise ApiError(-1105, f"Parameter '{name}' was empty.")
        if not re.fullmatch(r"[0-9]{1,20}", value, re.ASCII):
            raise ApiError(-1100, f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'.")
        return int(value)

    def time_ms(self, name: str) -> int | None:
        """A time parameter in milliseconds."""
        value = self.number(name)
        return value // 1_000 if value is not None and value >= _MICROSECONDS_FROM else value


class Rest:
    """Answers the requests of one venue. `weight` says beforehand what a request costs."""

    def __init__(self, venue: Venue) -> None:
        self._venue = venue
        self._spot = venue.settings.is_spot
        self._endpoints = {
            "ping": self._ping,
            "time": self._time,
            "exchangeInfo": self._exchange_info,
            "klines": self._klines,
            "aggTrades": self._agg_trades,
            "ticker/24hr": self._ticker,
            "ticker/price": self._price,
        }
        self._endpoints["uiKlines" if self._spot else "continuousKlines"] = self._klines
        self._ranges: dict[tuple[str, str], tuple[int | None, int | None]] = {}
        """What was last asked for, by symbol and interval."""
        self._times_asked = 0
        self._info: tuple[tuple[int, int], str] = ((0, 0), "")

    def weight(self, query: Query) -> int:
        """The request weight, refused or not."""
        path, params = query.path, query.params
        if path in ("klines", "uiKlines", "continuousKlines"):
            if self._spot:
                return 2
            limit = params.get("limit", "500")
            rows = int(limit) if limit.isascii() and limit.isdigit() else 500
            return 1 if rows <= 100 else 2 if rows <= 500 and "limit" in params else 5 if rows <= 1000 else 10
        if path in ("ticker/24hr", "ticker/price"):
            one = "symbol" in params
            if path == "ticker/price":
                return (2 if one else 4) if self._spot else (1 if one else 2)
            if one:
                return 2 if self._spot else 1
            listed = params.get("symbols", "").count(",") + 1 if "symbols" in params else 101
            return (2 if listed <= 20 else 40 if listed <= 100 else 80) if self._spot else 40
        usual = {"exchangeInfo": (1, 20), "aggTrades": (20, 4)}.get(path, (1, 1))
        return usual[self._spot]

    async def answer(self, query: Query) -> str | None:
        """The body of the answer; None for a path that is not there.

        Raises:
            ApiError: the request is refused.
        """
        endpoint = self._endpoints.get(query.path)
        return None if endpoint is None else await endpoint(query)

    async def _ping(self, _: Query) -> str:
        return "{}"

    async def _time(self, query: Query) -> str:
        self._times_asked += 1
        faults, number, passed_ms = self._venue.faults.time, self._times_asked, self._venue.passed_ms()
        status = faults.down(number, passed_ms)
        if status is not None:
            raise ApiError(-1001, "Internal error; unable to process your request. Please try again.", status=status)
        to_ms, back_ms = faults.delays_ms(number, passed_ms)
        speed = self._venue.settings.speed
        await asyncio.sleep(to_ms / 1_000 / speed)
        now_ms = self._venue.now_ms() + faults.wrong_ms(number, passed_ms)
        await asyncio.sleep(back_ms / 1_000 / speed)
        return f'{{"serverTime":{now_ms * query.unit}}}'

    async def _exchange_info(self, query: Query) -> str:
        now_ms = self._venue.now_ms()
        contracts = list(self._venue.contracts.values())
        wanted = self._wanted(query) if self._spot else None
        kept = not self._venue.faults.answers.concern_the_list
        if wanted is None and kept and self._info[0] == (now_ms // 1_000, query.unit):
            return self._info[1]
        if wanted is not None:
            contracts = [self._find(name) for name in wanted]
        info = exchange_info(contracts, self._venue.settings, now_ms, query.unit)
        if wanted is None:
            info["symbols"] = self._venue.faults.answers.symbols(info["symbols"])
        body = json.dumps(info, ensure_ascii=False, separators=(",", ":"))
        if wanted is None:
            self._info = ((now_ms // 1_000, query.unit), body)
        return body

    def _wanted(self, query: Query) -> list[str] | None:
        """The symbols a request names, if it names any."""
        if "symbol" in query.params:
            return [query.required("symbol")]
        if "symbols" not in query.params:
            return None
        try:
            names = json.loads(query.params["symbols"])
        except ValueError:
            names = None
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise ApiError(-1100, "Illegal characters found in parameter 'symbols'; legal range is a JSON array.")
        return names

    def _find(self, symbol: str) -> Contract:
        """The contract a request names: futures take any case, spot upper case only."""
        if self._spot:
            if not _SPOT_SYMBOL.fullmatch(symbol):
                raise ApiError(
                    -1100, f"Illegal characters found in parameter 'symbol'; legal range is '{_SPOT_RANGE}'."
                )
        else:
            symbol = symbol.upper()
        contract = self._venue.contracts.get(symbol)
        if contract is None or not visible(contract, self._venue.now_ms()):
            raise ApiError(-1121, "Invalid symbol.")
        return contract

    def _contract(self, query: Query) -> Contract:
        if query.path != "continuousKlines":
            return self._find(query.required("symbol"))
        pair, kind = query.required("pair").upper(), query.required("contractType").upper()
        for contract in self._venue.contracts.values():
            if contract.base + contract.quote == pair and contract.contract_type == kind:
                return contract
        raise ApiError(-1121, "Invalid symbol.")

    def _limit(self, query: Query, most: int) -> int:
        limit = query.number("limit")
        if limit is None:
            return 500
        if limit < 1 or (limit > most and not self._spot):
            raise ApiError(-1130, "Data sent for parameter 'limit' is not valid.")
        return min(limit, most)

    def _times(self, query: Query) -> tuple[int | None, int | None]:
        start_ms, end_ms = query.time_ms("startTime"), query.time_ms("endTime")
        if start_ms is not None and end_ms is not None and start_ms > end_ms and not self._spot:
            raise ApiError(-1023, "Start time is greater than end time.")
        return start_ms, end_ms

    async def _klines(self, query: Query) -> str:
        contract = self._contract(query)
        interval = query.required("interval")
        if interval not in STEPS or (interval == "1s" and not self._spot):
            raise ApiError(-1120, "Invalid interval.")
        limit = self._limit(query, 1_000 if self._spot else 1_500)
        start_ms, end_ms = self._other_page(contract, interval, self._times(query), limit)
        shift_ms = _zone_ms(query.params.get("timeZone", "0")) if self._spot else 0
        venue, now_ms = self._venue, self._venue.now_ms()
        fresh_ms = venue.settings.fresh_listing_refused_ms
        if fresh_ms and contract.listed_ms <= now_ms < contract.listed_ms + fresh_ms:
            raise ApiError(-1122, "Invalid symbol status.")
        opens = venue.book.select(
            contract, interval, start_ms=start_ms, end_ms=end_ms, limit=2 * limit, now_ms=now_ms, shift_ms=shift_ms
        )
        there = [each for each in opens if not venue.faults.rows.missing(contract.symbol, interval, each)]
        there = there[:limit] if start_ms is not None else there[-limit:]
        opens = [each for each in opens if there and there[0] <= each <= there[-1]]
        await self._make(contract, venue.book.hours_of(contract, interval, opens, now_ms, shift_ms))
        scribe = venue.scribe(contract)
        kept = set(there)
        rows = [row for row in venue.rows(contract, interval, opens, shift_ms) if row[0] in kept]
        rows = self._faulty(contract, interval, rows, now_ms, shift_ms)
        written = [scribe.kline_row(interval, row, query.unit, shift_ms) for row in rows]
        return json.dumps(venue.faults.answers.klines(contract.symbol, interval, written), separators=(",", ":"))

    def _other_page(
        self, contract: Contract, interval: str, asked: tuple[int | None, int | None], limit: int
    ) -> tuple[int | None, int | None]:
        """The range that is answered: the one asked for, unless a fault makes it another."""
        which = self._venue.faults.answers.other_page(contract.symbol, interval)
        last = self._ranges.get((contract.symbol, interval), asked)
        self._ranges[contract.symbol, interval] = asked
        start_ms, end_ms = asked
        if which in (None, "last") or start_ms is None:
            return asked if which is None else last
        opens = calendar.opens_from(interval, start_ms, self._venue.now_ms() if end_ms is None else end_ms + 1)
        rows = list(islice(opens, limit))
        if not rows:
            return asked
        shift_ms = (calendar.next_open(interval, rows[-1]) - rows[0]) * (1 if which == "after" else -1)
        return start_ms + shift_ms, None if end_ms is None else end_ms + shift_ms

    def _faulty(
        self, contract: Contract, interval: str, rows: list[list[int]], now_ms: int, shift_ms: int
    ) -> list[list[int]]:
        """The rows as the faults let them be served."""
        faults, symbol, served = self._venue.faults.rows, contract.symbol, list[list[int]]()
        for row in rows:
            open_ms = row[0]
            ended_ms = calendar.next_open(interval, open_ms, shift_ms)
            lacks_ms = faults.lacks_ms(symbol, interval, ended_ms, now_ms)
            early = lacks_ms and self._venue.candle_at(contract, interval, open_ms, ended_ms - lacks_ms, shift_ms)
            served.append(list(early) if early else row)
        running_ms = calendar.open_at(interval, now_ms, shift_ms)
        if rows and rows[-1][0] < running_ms and faults.adds_running(symbol, interval, now_ms):
            running = self._venue.candle_at(contract, interval, running_ms, now_ms, shift_ms)
            served += [] if running is None else [list(running)]
        return served

    async def _make(self, contract: Contract, hours: range) -> None:
        """Make the candles of these hours, letting the streams run in between."""
        for hour in self._venue.hours_to_make(contract, hours):
            self._venue.book.hour_table(contract, hour)
            await asyncio.sleep(0)

    async def _agg_trades(self, query: Query) -> str:
        contract = self._find(query.required("symbol"))
        limit = self._limit(query, 1_000)
        from_id = query.number("fromId")
        start_ms, end_ms = self._times(query)
        now_ms = self._venue.now_ms()
        if from_id is not None and (start_ms is not None or end_ms is not None):
            raise ApiError(-1128, "Combination of optional parameters invalid.")
        oldest_ms = 0 if self._spot else now_ms - RETENTION_MS
        if start_ms is not None and start_ms < oldest_ms - MINUTE_MS:
            raise ApiError(-4166, "Search window is restricted to recent 2 days only.")
        if from_id is not None:
            block = self._from_id(contract, from_id, limit, now_ms)
            if len(block) and block.time_ms[0] < oldest_ms - MINUTE_MS:
                raise ApiError(-4166, "Search window is restricted to recent 2 days only.")
        elif start_ms is not None:
            upto_ms = now_ms if end_ms is None else min(end_ms, now_ms)
            block = self._oldest(contract, start_ms, upto_ms, limit)
        else:
            block = self._latest(contract, now_ms if end_ms is None else min(end_ms, now_ms), limit, oldest_ms)
        rows = self._venue.scribe(contract).agg_rows(block, query.unit)
        return "[" + ",".join(self._venue.faults.answers.trades(contract.symbol, rows)) + "]"

    def _from_id(self, contract: Contract, from_id: int, limit: int, now_ms: int) -> Block:
        first_ms = self._venue.tape.first_trade_ms(contract)
        if first_ms is None:
            return Block.empty()
        first_hour = first_ms // HOUR_MS
        # A very low id jumps to the first that is kept.
        hour = max(first_hour, self._venue.tape.hour_of_id(contract, from_id))
        parts, count = [], 0
        while count < limit and hour <= now_ms // HOUR_MS:
            block = self._venue.tape.hour(contract, hour).between(0, now_ms + 1)
            start = int(np.searchsorted(block.agg_id, from_id, "left"))
            parts.append(block.cut(start, start + limit - count))
            count += len(parts[-1])
            hour += 1
        return Block.joined(parts)

    def _oldest(self, contract: Contract, start_ms: int, upto_ms: int, limit: int) -> Block:
        first_ms = self._venue.tape.first_trade_ms(contract)
        if first_ms is None:
            return Block.empty()
        hour = max(start_ms, first_ms) // HOUR_MS
        parts, count = [], 0
        while count < limit and hour * HOUR_MS <= upto_ms:
            block = self._venue.tape.hour(contract, hour).between(start_ms, upto_ms + 1)
            parts.append(block.cut(0, limit - count))
            count += len(parts[-1])
            hour += 1
        return Block.joined(parts)

    def _latest(self, contract: Contract, upto_ms: int, limit: int, oldest_ms: int) -> Block:
        first_ms = self._venue.tape.first_trade_ms(contract)
        if first_ms is None:
            return Block.empty()
        hour = upto_ms // HOUR_MS
        parts: list[Block] = []
        count = 0
        while count < limit and (hour + 1) * HOUR_MS > max(first_ms, oldest_ms):
            block = self._venue.tape.hour(contract, hour).between(oldest_ms, upto_ms + 1)
            parts.append(block.cut(len(block) - (limit - count), len(block)))
            count += len(parts[-1])
            hour -= 1
        return Block.joined(parts[::-1])

    def _trading(self) -> list[Contract]:
        now_ms = self._venue.now_ms()
        return [c for c in self._venue.contracts.values() if status_of(c, now_ms, spot=self._spot) == "TRADING"]

    async def _ticker(self, query: Query) -> str:
        wanted = self._wanted(query)
        rows: list[dict[str, Any]] = []
        for contract in self._trading() if wanted is None else [self._find(name) for name in wanted]:
            at_ms = self._venue.now_ms()
            await self._make(contract, self._venue.day_hours(contract, at_ms))
            row = self._venue.day_row(contract, at_ms)
            if row is not None:
                rows.append(self._venue.scribe(contract).ticker(row, at_ms, query.unit))
        return _one_or_all(rows, one="symbol" in query.params)

    async def _price(self, query: Query) -> str:
        wanted = self._wanted(query)
        rows: list[dict[str, Any]] = []
        now_ms = self._venue.now_ms()
        for contract in self._trading() if wanted is None else [self._find(name) for name in wanted]:
            last = self._venue.last_trade(contract, now_ms)
            if len(last):
                row = {"symbol": contract.symbol, "price": self._venue.scribe(contract).price(int(last.price[0]))}
                rows.append(row if self._spot else row | {"time": now_ms})
        return _one_or_all(rows, one="symbol" in query.params)


def _one_or_all(rows: list[dict[str, Any]], *, one: bool) -> str:
    body = (rows[0] if rows else {}) if one else rows
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


def _zone_ms(zone: str) -> int:
    """The offset of a `timeZone` parameter: hours, or hours and minutes, between -12:00 and +14:00."""
    match = re.fullmatch(r"([+-]?)(\d{1,2})(?::([0-5]\d))?", zone.strip(), re.ASCII)
    if match is None:
        raise ApiError(-1130, "Data sent for parameter 'timeZone' is not valid.")
    minutes = (int(match[2]) * 60 + int(match[3] or 0)) * (-1 if match[1] == "-" else 1)
    if not -12 * 60 <= minutes <= 14 * 60:
        raise ApiError(-1130, "Data sent for parameter 'timeZone' is not valid.")
    return minutes * MINUTE_MS
