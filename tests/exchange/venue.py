"""A tiny exchange on loopback whose every answer a test decides."""

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import WSMsgType, web

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class Connection:
    """One WebSocket as the exchange sees it."""

    socket: web.WebSocketResponse
    path: str
    names: set[str] = field(default_factory=set)
    requests: list[dict] = field(default_factory=list)
    messages: int = 0
    request_times: list[float] = field(default_factory=list)
    mute: bool = False
    """Keeps the socket open and answers, but streams nothing."""

    async def push(self, name: str, data: dict) -> None:
        if name in self.names and not self.mute and not self.socket.closed:
            with contextlib.suppress(ConnectionError):
                await self.socket.send_str(json.dumps({"stream": name, "data": data}, separators=(",", ":")))


def agg_trade(
    symbol: str, agg_id: int, *, price: str = "1.50", qty: str = "2", time_ms: int = 1_700_000_000_000
) -> dict:
    return {
        "e": "aggTrade",
        "E": time_ms + 150,
        "a": agg_id,
        "s": symbol,
        "p": price,
        "q": qty,
        "nq": qty,
        "f": agg_id * 10,
        "l": agg_id * 10 + 1,
        "T": time_ms,
        "m": True,
        "st": 1,
    }


class Venue:
    """REST answers by `route`, WebSockets that acknowledge; `tick` pushes one trade of every subscribed symbol."""

    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self.all_connections: list[Connection] = []
        self.opened = 0
        self.refuse: list[web.Response] = []
        self.acknowledge = True
        self.refused_names: set[str] = set()
        self.autoping = True
        self.pongs: list[bytes] = []
        self.calls: list[tuple[str, dict[str, str]]] = []
        self.answers: dict[str, Callable[[web.Request], web.StreamResponse]] = {}
        self._ids = 0
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/stream", self._socket)
        app.router.add_get("/market/stream", self._socket)
        app.router.add_get("/{path:.*}", self._rest)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        for connection in self.connections:
            await connection.socket.close()
        await self._runner.cleanup()

    async def _rest(self, request: web.Request) -> web.StreamResponse:
        self.calls.append((request.path, dict(request.query)))
        return self.answers[request.path.rsplit("/", 1)[1]](request)

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        if self.refuse:
            return self.refuse.pop(0)
        socket = web.WebSocketResponse(autoping=self.autoping, timeout=0.1)
        await socket.prepare(request)
        self.opened += 1
        connection = Connection(socket, request.path)
        self.connections.append(connection)
        self.all_connections.append(connection)
        async for message in socket:
            if message.type is WSMsgType.PONG:
                self.pongs.append(bytes(message.data))
            if message.type is not WSMsgType.TEXT:
                continue
            body = json.loads(message.data)
            connection.requests.append(body)
            connection.request_times.append(asyncio.get_running_loop().time())
            await self._control(connection, body)
        self.connections.remove(connection)
        return socket

    async def _control(self, connection: Connection, body: dict) -> None:
        if self.refused_names & set(body["params"]):
            await connection.socket.send_json({"error": {"code": 2, "msg": "Invalid request"}, "id": body["id"]})
            return
        if body["method"] == "SUBSCRIBE":
            connection.names.update(body["params"])
        else:
            connection.names.difference_update(body["params"])
        if len(connection.names) > 1024:
            await connection.socket.send_json({"error": {"code": 4, "msg": "Too many subscriptions"}, "id": body["id"]})
            await connection.socket.close(code=1008, message=b"Invalid request")
            return
        if self.acknowledge:
            await connection.socket.send_json({"result": None, "id": body["id"]})

    async def tick(self) -> int:
        """Push one trade of every subscribed symbol to every connection; the aggregate id it had."""
        self._ids += 1
        for connection in tuple(self.connections):
            for name in sorted(connection.names):
                if name.endswith("@aggTrade"):
                    symbol = name.partition("@")[0].upper()
                    await connection.push(name, agg_trade(symbol, self._ids))
        return self._ids
