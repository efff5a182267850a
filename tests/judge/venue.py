"""The judge's exchange: REST and WebSocket market data on loopback, with everything going wrong that does go wrong.

Trades late, doubled, lost, out of order, of no market, of nobody; closing klines late or never; quiet symbols; a listing
known before, one that is not, and a settlement; connections cut, and one that falls silent; refusals of every kind.
"""

import asyncio
import json
import random
import time
from collections import Counter, defaultdict, deque
from collections.abc import Coroutine

from aiohttp import WSMsgType, web

from judge.truth import DAY, MINUTE, STEPS, Symbol, opening, text

TICK_S = 0.25
"""Exchange seconds between two looks at the market."""


class Peer:
    """One WebSocket connection."""

    def __init__(self, socket: web.WebSocketResponse, request: web.Request, *, delivers: bool) -> None:
        self.socket, self.request, self.delivers = socket, request, delivers
        self.names: set[str] = set()
        self.silent = False
        self.waiting: asyncio.Queue[str] = asyncio.Queue()

    def push(self, name: str, data: object) -> None:
        if name in self.names and self.delivers and not self.silent:
            self.waiting.put_nowait(json.dumps({"stream": name, "data": data}, ensure_ascii=False))

    async def write(self) -> None:
        while True:
            await self.socket.send_str(await self.waiting.get())


class JudgeVenue:
    """One market in time that runs `speed` times as fast; `symbols` is the truth."""

    def __init__(self, market: str, start_ms: int, speed: float, seed: int) -> None:
        self.market, self.start_ms, self.speed = market, start_ms, speed
        self.symbols: dict[str, Symbol] = {}
        self.counts: Counter[str] = Counter()
        self.peers: set[Peer] = set()
        self.limit = 6_000 if market == "spot" else 2_400
        self._chance = random.Random(seed)
        self._base_s: float | None = None
        self._asked = asyncio.Event()
        """A service has begun to ask: until then the time stands at the start, however long a process takes to begin."""
        self._moved: set[str] = set()
        self._banned_until_ms = 0
        self._bans_left = [start_ms + 60_000, start_ms + 230_000]
        self._weight: Counter[int] = Counter()
        self._made: defaultdict[str, deque[dict]] = defaultdict(lambda: deque(maxlen=2_000))
        self._tasks: set[asyncio.Task[None]] = set()
        self._list(seed)

    def _list(self, seed: int) -> None:
        chance, start_ms = random.Random(seed), self.start_ms
        old_ms = start_ms - 32 * DAY
        p, q = (8, 8) if self.market == "spot" else (2, 3)

        def add(name: str, rate: float, **changes: object) -> Symbol:
            asked = {"price": 7_000, "price_digits": p, "qty_digits": q, "born_ms": start_ms - 9 * 3_600_000, **changes}
            one = self.symbols[name] = Symbol(name, rate, **asked)  # type: ignore[arg-type]
            if one.status == "TRADING":
                one.make_history(start_ms, chance)
            return one

        add("BTCUSDT", 20, price=8_530_000, born_ms=old_ms)
        for n in range(4):
            add(f"MID{n}USDT", 0.5 + n)
        for n in range(6):
            add(f"QUIET{n}USDT", 0.004 * (n + 1))
        add("币安人生USDT", 1)
        add("DEADUSDT", 0)
        add("HUGEUSDT", 1, qty_unit=10**13, price_digits=8, qty_digits=0)
        add("FINERUSDT", 1, price_digits=4)
        add("YOUNGUSDT", 1, born_ms=start_ms - 97 * MINUTE - 23_456)
        add("GOINGUSDT", 1)
        add("AWAYUSDT", 1)
        add("SHYUSDT", 1, refused_until_ms=start_ms + 120_000)
        add("SOONUSDT", 1, status="PENDING_TRADING", born_ms=start_ms + 150_000)
        if self.market == "spot":
            gap = add("OUTAGEUSDT", 1)
            gap.lacking = set(
                range(opening("1h", start_ms) - 50 * MINUTE, opening("1h", start_ms) - 40 * MINUTE, MINUTE)
            )

    @property
    def now_ms(self) -> int:
        if self._base_s is None:
            return self.start_ms
        return self.start_ms + int((time.monotonic() - self._base_s) * 1_000 * self.speed)

    async def until(self, after_s: float) -> None:
        """Wait until that many exchange seconds after the start."""
        await self._asked.wait()
        left_ms = self.start_ms + after_s * 1_000 - self.now_ms
        await asyncio.sleep(max(left_ms, 0) / 1_000 / self.speed)

    async def start(self) -> int:
        """Open; returns the port."""
        app = web.Application()
        prefix = "/api/v3" if self.market == "spot" else "/fapi/v1"
        app.router.add_get(prefix + "/{what}", self._rest)
        for path in ("/stream", "/market/stream"):
            app.router.add_get(path, self._socket)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._spawn(self._trade())
        self._spawn(self._happen())
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        for peer in tuple(self.peers):
            await peer.socket.close()
        await self._runner.cleanup()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # REST

    async def _rest(self, request: web.Request) -> web.StreamResponse:
        if self._base_s is None:
            self._base_s = time.monotonic()
            self._asked.set()
        now_ms, what, query = self.now_ms, request.match_info["what"], request.query
        limit = int(query.get("limit", 500))
        ladder = 1 if limit <= 100 else 2 if limit <= 500 else 5
        spot = self.market == "spot"
        weights = {"klines": 2 if spot else ladder, "exchangeInfo": self.limit // 300, "aggTrades": 4 if spot else 20}
        weight = weights.get(what, 1)
        self._weight[now_ms // MINUTE] += weight
        used = self._weight[now_ms // MINUTE]
        headers = {"X-MBX-USED-WEIGHT-1M": str(used)}
        if now_ms < self._banned_until_ms:
            # What was on its way when the ban came is no fault of the client.
            self.counts["asked_during_ban"] += now_ms > self._banned_until_ms - 3_000 + 500 * self.speed
        if used > self.limit:
            self.counts["over_weight"] += 1
        if self._bans_left and now_ms > self._bans_left[0]:
            del self._bans_left[0]
            self._banned_until_ms = now_ms + 3_000
        if now_ms < self._banned_until_ms:
            wait = {"Retry-After": "3"}
            return web.json_response(
                {"code": -1003, "msg": "Too many requests"}, status=429, headers={**headers, **wait}
            )
        if what != "time" and self._chance.random() < 0.02:
            return web.Response(status=self._chance.choice((403, 502, 503)), text="<html>edge</html>", headers=headers)
        if what == "time":
            return web.json_response({"serverTime": self.now_ms}, headers=headers)
        if what == "exchangeInfo":
            return web.json_response(self._info(), headers=headers)
        if what == "aggTrades":
            self.counts["by_id"] += 1
            first = int(query["fromId"])
            rows = [made for made in self._made[query["symbol"]] if made["a"] >= first and "X" not in made][:limit]
            return web.json_response([{key: made[key] for key in "apqfTlm"} for made in rows], headers=headers)
        return self._klines(query, limit, headers)

    def _klines(self, query: dict, limit: int, headers: dict[str, str]) -> web.Response:
        one, now_ms = self.symbols.get(query["symbol"]), self.now_ms
        if one is None or query["interval"] not in {*STEPS, "1M"}:
            return web.json_response({"code": -1121, "msg": "Invalid symbol."}, status=400, headers=headers)
        if now_ms < one.refused_until_ms:
            return web.json_response({"code": -1122, "msg": "Invalid symbol status."}, status=400, headers=headers)
        if one.status == "TRADING":
            self._trades_of(one, now_ms)
        elif one.status != "PENDING_TRADING":
            one.flow(now_ms)
        start_ms, end_ms = int(query.get("startTime", 0)), int(query.get("endTime", now_ms))
        body = json.dumps(one.rows(query["interval"], start_ms, end_ms, limit, now_ms))
        if self._chance.random() < 0.01:
            body = body[: len(body) // 2]
        return web.Response(text=body, content_type="application/json", headers=headers)

    def _info(self) -> dict:
        rows = []
        for one in self.symbols.values():
            tick, step = text(1, one.price_digits) + "00", text(1, one.qty_digits)
            rows.append(
                {
                    "symbol": one.name,
                    "status": one.status,
                    "baseAsset": one.name[:-4],
                    "quoteAsset": "USDT",
                    "marginAsset": "USDT",
                    "contractType": "PERPETUAL",
                    "onboardDate": 0 if self.market == "spot" else one.born_ms,
                    "deliveryDate": 4_133_404_800_000,
                    "pricePrecision": 7,
                    "filters": [
                        {"filterType": "PRICE_FILTER", "tickSize": tick if "." in tick else "1"},
                        {"filterType": "LOT_SIZE", "stepSize": step},
                    ],
                }
            )
        rows.append({"symbol": "ODDUSDT", "status": "NEVER_HEARD_OF", "filters": []})
        limits = [{"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": self.limit}]
        return {"serverTime": self.now_ms - 30_000, "rateLimits": limits, "symbols": rows}

    # WebSocket

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(timeout=0.1)
        await socket.prepare(request)
        peer = Peer(socket, request, delivers=self.market == "spot" or request.path.startswith("/market/"))
        self.peers.add(peer)
        writer = asyncio.create_task(peer.write())
        try:
            async for message in socket:
                if message.type is not WSMsgType.TEXT:
                    break
                body = json.loads(message.data)
                change = peer.names.update if body["method"] == "SUBSCRIBE" else peer.names.difference_update
                change(body["params"])
                assert len(peer.names) <= 1_024
                peer.waiting.put_nowait(json.dumps({"result": None, "id": body["id"]}))
        finally:
            self.peers.discard(peer)
            writer.cancel()
        return socket

    def _cast(self, name: str, data: object) -> None:
        for peer in self.peers:
            peer.push(name, data)

    async def _later(self, delay_ms: float, name: str, data: object) -> None:
        await asyncio.sleep(delay_ms / 1_000 / self.speed)
        self._cast(name, data)

    # The market

    async def _trade(self) -> None:
        last_ms = ticker_ms = self.now_ms
        while True:
            await asyncio.sleep(TICK_S / self.speed)
            now_ms = self.now_ms
            for one in tuple(self.symbols.values()):
                if one.status == "TRADING":
                    self._trades_of(one, now_ms)
            if now_ms // MINUTE > last_ms // MINUTE:
                for one in self.symbols.values():
                    if one.status == "TRADING":
                        self._close(one, now_ms // MINUTE * MINUTE - MINUTE, now_ms)
            if now_ms - ticker_ms >= 1_000:
                self._mini_ticker(self._moved, now_ms)
                ticker_ms, self._moved = now_ms, set()
            last_ms = now_ms

    def _trades_of(self, one: Symbol, now_ms: int) -> None:
        """Make the trades up to now, so that whoever is answered now is answered by all of them."""
        chance = self._chance
        last_ms = one.traded_ms or now_ms - 1
        one.traded_ms = max(now_ms, last_ms + 1)
        if now_ms <= last_ms:
            return
        expected = one.rate * (now_ms - last_ms) / 1_000
        count = int(expected) + (chance.random() < expected % 1)
        for t_ms in sorted(chance.randrange(last_ms, now_ms) for _ in range(count)):
            self._one_trade(one, t_ms, now_ms)
        one.flow(now_ms)  # last: a minute without trades begins at the last price before it
        if count:
            self._moved.add(one.name)

    def _one_trade(self, one: Symbol, t_ms: int, now_ms: int) -> None:
        chance = self._chance
        before = one.price
        one.price = max(one.price + chance.randrange(-2, 3), 2)
        one.agg_id += 2 if chance.random() < 0.001 else 1  # a hole in the ids that no trade ever fills
        qty = chance.randrange(1, 3_000) * one.qty_unit + chance.randrange(one.qty_unit)
        count, maker = chance.choice((1, 1, 2, 7)), chance.random() < 0.5
        message = {
            "e": "aggTrade",
            "E": now_ms,
            "s": one.name,
            "a": one.agg_id,
            "p": text(one.price, one.price_digits),
            "q": text(qty, one.qty_digits),
            "f": one.trade_id,
            "l": one.trade_id + count - 1,
            "T": t_ms,
            "m": maker,
        }
        if chance.random() < 0.003:
            message |= {"X": "INSURANCE_FUND"} if chance.random() < 0.5 else {"p": "0", "q": "0"}
            one.price = before  # what is no market trade moves no candle
        else:
            one.trade(t_ms, qty, count, maker=maker)
        one.trade_id += count
        self._made[one.name].append(message)
        self._deliver(one, message)

    def _deliver(self, one: Symbol, message: dict) -> None:
        chance, name = self._chance, f"{one.name.lower()}@aggTrade"
        lag_ms = 5 if self.market == "spot" else 150
        fate = chance.random()
        if fate < 0.003:
            self.counts["lost"] += 1
            return
        if fate < 0.01:
            self.counts["late"] += 1
            self._spawn(self._later(chance.choice((1_000, 8_000, 45_000, 120_000)) * chance.random(), name, message))
            return
        if fate < 0.03:
            self.counts["reordered"] += 1
            lag_ms += chance.randrange(900)
        if fate > 0.98:
            self.counts["doubled"] += 1
            self._spawn(self._later(lag_ms + chance.choice((1, 700, 20_000)), name, message))
        self._spawn(self._later(lag_ms, name, message))
        if chance.random() < 0.001:
            self.counts["bad"] += 1
            odd = {"s": "NOSUCHUSDT"}, {"p": "-5"}, {"p": "abc"}, {"T": message["T"] + 3_600_000, "a": message["a"] + 9}
            self._cast(name, {**message, **chance.choice(odd)})

    def _close(self, one: Symbol, open_ms: int, now_ms: int) -> None:
        """The closing push of a minute: mostly soon, sometimes late, sometimes never."""
        row = one.row("1m", open_ms, now_ms)
        fate = self._chance.random()
        if row is None or fate < 0.08 or (row[8] == 0 and self.market == "usdm" and fate < 0.5):
            return
        delay_ms = 60 + self._chance.random() * 400 if fate < 0.85 else 300 + self._chance.random() * 30_000
        minute = one.minutes[open_ms]
        names = dict(zip("tohlcvTqnVQB", row, strict=True))
        kline = {**names, "s": one.name, "i": "1m", "f": minute.first_id, "L": minute.last_id, "x": True}
        data = {"e": "kline", "E": now_ms, "s": one.name, "k": kline}
        self._spawn(self._later(delay_ms, f"{one.name.lower()}@kline_1m", data))

    def _mini_ticker(self, moved: set[str], now_ms: int) -> None:
        rows = [
            {"e": "24hrMiniTicker", "E": now_ms, "s": name, "c": text(one.price, one.price_digits), "st": 1}
            for name, one in self.symbols.items()
            if name in moved
        ]
        for row in rows:
            self._cast(f"{row['s'].lower()}@miniTicker", row)
        other = {"e": "24hrMiniTicker", "E": now_ms, "s": "BTCUSD_PERP", "c": "85000.1", "st": 2}
        self._cast("!miniTicker@arr", [*rows, *([other] if self.market == "usdm" else [])])

    async def _happen(self) -> None:
        """What befalls the market, in exchange seconds after the start; nothing while a service that is slow to begin has no streams."""
        await self.until(70)
        while not any(peer.names for peer in self.peers):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(TICK_S / self.speed)
        for peer in tuple(self.peers):
            peer.request.transport.abort()
        await self.until(90)
        self.symbols["FINERUSDT"].finer()
        await self.until(110)
        fresh = self.symbols["FRESHUSDT"] = Symbol("FRESHUSDT", 2, 4_000, 3, 1, self.now_ms)
        fresh.flow(self.now_ms)
        await self.until(130)
        self._settle("GOINGUSDT")
        await self.until(150)
        soon = self.symbols["SOONUSDT"]
        soon.born_ms, soon.status = self.now_ms, "TRADING"
        await self.until(170)
        for peer in tuple(self.peers):
            peer.silent = True
        await self.until(330)
        self._settle("AWAYUSDT")

    def _settle(self, name: str) -> None:
        self.symbols[name].status = "BREAK" if self.market == "spot" else "SETTLING"
