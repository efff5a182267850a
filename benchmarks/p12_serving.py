"""P12: what clients wait for: a REST answer, a closing push to many, running candles beside the ticks."""

import http.client
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.core import (
    Figure,
    Measurement,
    Plan,
    Yardstick,
    at_most,
    median,
    no_garbage,
    number,
    quantile,
    spread,
    wall_seconds,
)
from benchmarks.p12_servers import DATABASE, EVERY_S, MONDAY_MS, PLAIN, RUNNING, SYMBOLS
from benchmarks.p12_wire import Other
from benchmarks.rows import instruments, some_candles
from klagg.fixed import to_text
from klagg.interval import MINUTE, MINUTE_MS
from klagg.model import VIRTUAL_SHARDS, Market
from klagg.store import Commit, open_store
from klagg.store.schema import SERIES_INTERVALS, VALUES

ROWS = 1_000
STORED = 20
"""Symbols that have a history."""
DEPTH = 1_500
REQUESTS = 400
PUSHES = 40
CLIENTS = 100
WATCHERS = 200
WATCHED = 40
"""Series of each watcher."""
LAG_S = 6.0
QUICK_LAG_S = 0.6
MILLI = 1e3

HOW = f"""
Servers and clients are processes of their own on one machine, over loopback, both servers on uvloop. REST: {ROWS:,} candles
of one symbol from a SQLite database, one client, keep-alive, klagg and peer in turns; the time from sending the request to
having the body. The peer is an aiohttp handler that reads ready-made texts by `sqlite3` on its loop and writes them by `json`;
klagg reads exact integers, in a thread that nothing else waits for, and the limit is that reading alone. Push: a committed
minute of {SYMBOLS} symbols to {CLIENTS} clients that subscribe to all of them, from the end of the commit to the last byte at
the last client; CPU is that of the server's process. The peer encodes every event once by `json` and sends it to each client by
aiohttp's WebSocket. Running candles: {SYMBOLS * len(RUNNING):,} series ({SYMBOLS} symbols, all of which trade all the time,
{len(RUNNING)} intervals) every {EVERY_S * MILLI:.0f} ms to {WATCHERS} clients of {WATCHED} series each; the lag is how late the
server's event loop gets to what is due, asked every 5 ms: what a tick would wait.
"""


def fill(folder: Path, depth: int) -> None:
    """The same candles for both: klagg's database, and a plain table of texts."""
    store = open_store(str(folder / DATABASE), mode="create")
    ids = store.put_instruments(instruments(SYMBOLS), MONDAY_MS)
    store.set_intervals(Market.USDM, list(RUNNING))
    claim = store.claim(Market.USDM, owner="benchmarks", now_ms=MONDAY_MS)
    plain = sqlite3.connect(folder / PLAIN)
    plain.execute(
        "CREATE TABLE kline (symbol, open_time, open, high, low, close, volume, close_time, quote_volume, trades, taker_volume, "
        "taker_quote, PRIMARY KEY (symbol, open_time)) WITHOUT ROWID"
    )
    of = np.array(list(ids.values()))[:STORED]
    for minute in range(depth):
        open_ms = MONDAY_MS - (depth - minute) * MINUTE_MS
        candles = some_candles(STORED, [MINUTE], open_ms, closed=True)
        store.commit(Commit(claim, range(VIRTUAL_SHARDS), open_ms + MINUTE_MS, of, candles))
        plain.executemany(
            f"INSERT INTO kline VALUES ({', '.join('?' * 12)})",
            [
                (
                    symbol,
                    open_ms,
                    *(to_text(int(row[name]), 2) for name in ("open", "high", "low", "close")),
                    to_text(int(row["volume_lo"]), 3),
                    open_ms + MINUTE_MS - 1,
                    to_text(int(row["quote_lo"]), 5),
                    int(row["trades"]),
                    to_text(int(row["taker_volume_lo"]), 3),
                    to_text(int(row["taker_quote_lo"]), 5),
                )
                for symbol, row in zip(ids, candles, strict=False)
            ],
        )
    plain.commit()
    plain.close()
    store.close()


def ask(connection: http.client.HTTPConnection, symbol: str, limit: int) -> tuple[float, int]:
    """Milliseconds of one request, and the bytes of its body."""
    started = time.perf_counter()
    connection.request("GET", f"/fapi/v1/klines?symbol={symbol}&interval=1m&limit={limit}")
    response = connection.getresponse()
    body = response.read()
    spent = (time.perf_counter() - started) * MILLI
    assert response.status == 200, body
    assert body.count(b"[") == limit + 1
    return spent, len(body)


def read_alone(path: Path, rows: int, times: int) -> list[float]:
    """Milliseconds of what no answer can do without: the rows by `sqlite3`, every column that an answer needs."""
    connection = sqlite3.connect(path)
    query = f"SELECT open_ms, {', '.join(VALUES)}, verified FROM candle WHERE series = ? ORDER BY open_ms DESC LIMIT ?"
    spent = []
    for number_ in range(times):
        series = (number_ % STORED + 1) * SERIES_INTERVALS + MINUTE.code
        found: list[object] = []
        spent.append(wall_seconds(lambda: found.extend(connection.execute(query, (series, rows)))) * MILLI)  # noqa: B023 - called at once
        assert len(found) == rows
    connection.close()
    return spent


def measure_rest(plan: Plan, ours: int, peer: int, path: Path) -> Iterator[Measurement]:
    rows = plan.pick(ROWS, 20)
    alone = read_alone(path, rows, plan.pick(100, 6))
    connections = [http.client.HTTPConnection("127.0.0.1", port) for port in (ours, peer)]
    times: list[list[float]] = [[], []]
    symbols = [one.symbol for one in instruments(STORED)]
    with no_garbage():
        for request in range(plan.pick(REQUESTS, 6)):
            for connection, spent in zip(connections, times, strict=True):
                spent.append(ask(connection, symbols[request % STORED], rows)[0])
    size = ask(connections[0], symbols[0], rows)[1]
    for connection in connections:
        connection.close()
    for label, share, goal in (("p50", 0.5, None), ("p99", 0.99, at_most(5))):
        yield Measurement(
            "P12",
            f"REST answer of {rows:,} candles, {label}",
            quantile(times[0], share),
            "ms",
            goal=goal,
            peer=Yardstick(f"plain aiohttp handler, {label}", quantile(times[1], share)),
            limit=Yardstick(f"sqlite3 reading klagg's rows alone, {label}", quantile(alone, share)),
            samples=len(times[0]),
            spread=spread(times[0]),
            note=f"{size / 1e3:.0f} kB",
        )


def names_of(first: int, count: int) -> list[str]:
    """Stream names of so many series, going round all of them."""
    symbols = [one.symbol.lower() for one in instruments(SYMBOLS)]
    every = [f"{symbol}@kline_{interval.name}" for symbol in symbols for interval in RUNNING]
    return [every[(first + number * 7) % len(every)] for number in range(count)]


def pushes(server: Other, port: int, clients: int, times: int) -> tuple[list[float], float]:
    """Milliseconds of each push, and those of the server's CPU for one."""
    minutes = [f"{one.symbol.lower()}@kline_1m" for one in instruments(SYMBOLS)]
    with Other("benchmarks.p12_clients", str(port)) as crowd:
        crowd.ask("open", subscriptions=[minutes] * clients)
        spent, cpu_s = [], 0.0
        for number_ in range(times + 1):
            crowd.ask("begin")
            before_s = server.ask("cpu")["cpu_s"]
            at_ns = server.ask("close")["at_ns"]
            last_ns = crowd.ask("whole", events=SYMBOLS)["last_ns"]
            if number_:  # the first one warms up
                spent.append((last_ns - at_ns) / 1e6)
                cpu_s += server.ask("cpu")["cpu_s"] - before_s
    return spent, cpu_s * MILLI / times


def measure_push(plan: Plan, servers: Sequence[Other], ports: Sequence[int]) -> Iterator[Measurement]:
    clients, times = plan.pick(CLIENTS, 5), plan.pick(PUSHES, 2)
    found = [pushes(server, port, clients, times) for server, port in zip(servers, ports, strict=True)]
    (ours, ours_cpu), (peer, peer_cpu) = found
    for label, share, goal in (("p50", 0.5, None), ("p99", 0.99, at_most(50))):
        yield Measurement(
            "P12",
            f"closing push of {SYMBOLS} symbols to {clients} clients, {label}",
            quantile(ours, share),
            "ms",
            goal=goal,
            peer=Yardstick(f"aiohttp, each event to each client, {label}", quantile(peer, share)),
            samples=times,
            spread=spread(ours),
        )
    yield Measurement(
        "P12",
        "the server's CPU for one such push",
        ours_cpu,
        "ms",
        peer=Yardstick("aiohttp, each event to each client", peer_cpu),
        samples=times,
    )


def measure_lags(plan: Plan, servers: Sequence[Other], ports: Sequence[int]) -> Iterator[Measurement]:
    watchers, seconds = plan.pick(WATCHERS, 5), LAG_S if not plan.quick else QUICK_LAG_S
    still, busy, cpu = [], [], []
    for server, port in zip(servers, ports, strict=True):
        with Other("benchmarks.p12_clients", str(port)) as crowd:
            names = [names_of(number_ * 97, WATCHED) for number_ in range(watchers)]
            crowd.ask("open", subscriptions=names)
            still.append(server.ask("lags", seconds=seconds, trading=False)["lags"])
            crowd.ask("begin")
            answer = server.ask("lags", seconds=seconds, trading=True)
            busy.append(answer["lags"])
            cpu.append(answer["cpu_s"] / seconds * 100)
            taken = crowd.ask("taken")
            assert taken["ended"] == 0
            assert taken["bytes"] > 0
    series = len({name for names_ in names for name in names_})
    yield Measurement(
        "P12",
        f"lag of the loop while {series:,} running series go to {watchers} clients, p99",
        quantile(busy[0], 0.99),
        "ms",
        goal=at_most(50),
        peer=Yardstick("aiohttp, each event to each client, p99", quantile(busy[1], 0.99)),
        samples=len(busy[0]),
        spread=spread(busy[0]),
        note=f"p50 {number(median(busy[0]))} ms; without pushes p99 {number(quantile(still[0], 0.99))} ms",
    )
    yield Measurement(
        "P12",
        "the server's CPU meanwhile",
        cpu[0],
        "% of a core",
        peer=Yardstick("aiohttp, each event to each client", cpu[1]),
    )


def measure(plan: Plan) -> Iterator[Measurement]:
    with tempfile.TemporaryDirectory(prefix="klagg-benchmarks-") as name:
        folder = Path(name)
        fill(folder, plan.pick(DEPTH, 30))
        servers = [Other("benchmarks.p12_servers", kind, name) for kind in ("ours", "peer")]
        with servers[0] as ours, servers[1] as peer:
            ports = [server.ask("port")["port"] for server in (ours, peer)]
            yield from measure_rest(plan, *ports, folder / DATABASE)
            yield from measure_lags(plan, servers, ports)  # before the pushes: all series still open at one boundary
            yield from measure_push(plan, servers, ports)


FIGURE = Figure("P12", "What clients wait for", HOW, measure)
