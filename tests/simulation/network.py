"""The network between the service and the exchange: sessions and sockets that arrive late, break, fall silent or refuse."""

import asyncio
import json
import random
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
from multidict import CIMultiDict
from picows import WSHandshakeError, WSListener, WSMsgType

from simulation.exchange import Exchange
from simulation.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

READ_TIMEOUT_S = 20.0
CONNECT_TIMEOUT_S = 15.0
TRIP_S = 0.004


class Frame:
    """What picows hands to a listener, as far as it is read."""

    def __init__(self, kind: WSMsgType, payload: bytes = b"", code: int = 1000) -> None:
        self.msg_type = kind
        self.fin = True
        self.last_in_buffer = True
        self._payload = payload
        self._code = code

    def get_payload_as_bytes(self) -> bytes:
        return self._payload

    def get_close_code(self) -> int:
        return self._code

    def get_close_message(self) -> bytes:
        return self._payload


class Socket:
    """One WebSocket connection: picows' transport to the service, a peer to the exchange."""

    def __init__(self, network: "Network", exchange: Exchange, listener: WSListener) -> None:
        self.names: set[str] = set()
        self.exchange = exchange
        self.is_disconnected = False
        self.is_close_frame_sent = False
        self._network = network
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._arrives_s = 0.0

    # What the service does

    def send(self, what: WSMsgType | bytes, *rest: Any, **more: Any) -> None:
        """The service sends (kind, payload); the exchange sends (payload, delay)."""
        if isinstance(what, WSMsgType):
            self._loop.call_later(TRIP_S, self._receive, *rest)
        else:
            self._push(what, *rest, **more)

    def send_ping(self, payload: bytes) -> None:
        del payload
        if not self.is_disconnected and self.exchange.active("silent_no_pong") is None:
            self._loop.call_later(2 * TRIP_S, self._hand_over, Frame(WSMsgType.PONG))

    def send_close(self, code: object) -> None:
        del code
        self.is_close_frame_sent = True

    def disconnect(self, graceful: bool = True) -> None:
        del graceful
        self._end()

    # What the exchange does

    def _receive(self, payload: bytes) -> None:
        """A request has arrived."""
        exchange = self.exchange
        if self.is_disconnected:
            return
        if exchange.strikes("cut_at_subscribe"):
            self.cut("")
            return
        if exchange.active("unacknowledged") is not None:
            return
        request = json.loads(payload)
        if exchange.active("deaf") is None:
            change = self.names.update if request["method"] == "SUBSCRIBE" else self.names.difference_update
            change(request["params"])
        assert len(self.names) <= 1_024
        self.send_now(json.dumps({"result": None, "id": request["id"]}).encode())

    def send_now(self, payload: bytes) -> None:
        self._loop.call_later(TRIP_S, self._hand_over, Frame(WSMsgType.TEXT, payload))

    def _push(self, payload: bytes, delay_ms: float, *, in_order: bool = True) -> None:
        network = self._network
        slow = self.exchange.active("slow_stream")
        delay_s = delay_ms / 1_000 + network.chance.random() * 0.03 + (0.0 if slow is None else slow.value * 6)
        at_s = self._loop.time() + delay_s
        if in_order:
            # A microsecond apart: timers of one instant come in any order.
            at_s = self._arrives_s = max(at_s, self._arrives_s + 1e-6)
        self._loop.call_at(at_s, self._arrive, payload)

    def _arrive(self, payload: bytes) -> None:
        exchange = self.exchange
        if exchange.active("silent") is None and exchange.active("silent_no_pong") is None:
            self._hand_over(Frame(WSMsgType.TEXT, payload))

    def _hand_over(self, frame: Frame) -> None:
        if self.is_disconnected:
            return
        self._network.frame_due()
        self._listener.on_ws_frame(self, frame)  # type: ignore[arg-type]

    def cut(self, message: str) -> None:
        """The connection is gone, with a close frame where there is a message."""
        if self.is_disconnected:
            return
        if message:
            self._listener.on_ws_frame(self, Frame(WSMsgType.CLOSE, message.encode(), 1008))  # type: ignore[arg-type]
        self._end()
        self._listener.on_ws_disconnected(self)  # type: ignore[arg-type]

    def _end(self) -> None:
        self.is_disconnected = True
        if self in self.exchange.peers:
            self.exchange.peers.remove(self)


class Response:
    """An answer as aiohttp gives it."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = CIMultiDict(headers)
        self._body = body

    async def read(self) -> bytes:
        return self._body


class _Asking:
    """One request, from the moment it is sent."""

    def __init__(self, network: "Network", url: str, params: dict[str, str]) -> None:
        self._network = network
        self._host = urlsplit(url).hostname or ""
        self._what = url.rpartition("/")[2]
        self._params = {key: str(value) for key, value in params.items()}

    async def __aenter__(self) -> Response:
        return await self._network.ask(self._host, self._what, self._params)

    async def __aexit__(self, *_: object) -> None:
        return None


class Session:
    """An aiohttp session, as far as it is used."""

    def __init__(self, network: "Network") -> None:
        self._network = network

    def get(self, url: str, params: dict[str, str] | None = None) -> _Asking:
        return _Asking(self._network, url, params or {})

    async def close(self) -> None:
        await asyncio.sleep(0)


class Network:
    """All of one process's connections; `request_due` and `frame_due` are told of each, and may be the process's last."""

    def __init__(self, plan: Plan, exchanges: "Mapping[str, Exchange]", life: str) -> None:
        self._exchanges = exchanges
        self.chance = random.Random(f"{plan.seed} network {life}")
        self.sockets: list[Socket] = []
        self.request_due: Callable[[], None] = _nothing
        self.frame_due: Callable[[], None] = _nothing

    def session(self) -> Session:
        return Session(self)

    async def connect(self, listener: WSListener, url: str) -> None:
        """A WebSocket handshake."""
        exchange = self._exchanges[urlsplit(url).hostname or ""]
        await asyncio.sleep(3 * TRIP_S)
        if exchange.active("refuse_connects") is not None:
            way = self.chance.random()
            if way < 0.3:
                await asyncio.sleep(CONNECT_TIMEOUT_S)
                raise TimeoutError
            if way < 0.6:
                raise WSHandshakeError("unexpected status 503")
            raise ConnectionRefusedError(111, "Connection refused")
        socket = Socket(self, exchange, listener)
        self.sockets.append(socket)
        exchange.peers.append(socket)
        listener.on_ws_connected(socket)  # type: ignore[arg-type]

    async def ask(self, host: str, what: str, params: dict[str, str]) -> Response:
        """A REST request: there, answered, and back."""
        exchange = self._exchanges[host]
        if exchange.active("rest_down") is not None:
            await asyncio.sleep(TRIP_S)
            raise aiohttp.ClientConnectionError("Cannot connect to host")
        self.request_due()
        there_s, back_s = TRIP_S * (1 + self.chance.random()), TRIP_S * (1 + self.chance.random())
        lopsided = exchange.active("time_asymmetric")
        if lopsided is not None and what == "time":
            long_s = lopsided.value * 1.6
            there_s, back_s = (there_s + long_s, back_s) if self.chance.random() < 0.5 else (there_s, back_s + long_s)
        slow = exchange.active("rest_slow")
        if slow is not None and what != "time":
            back_s += slow.value * 18 * self.chance.random()
        await asyncio.sleep(there_s)
        if exchange.strikes("rest_timeout"):
            await asyncio.sleep(READ_TIMEOUT_S)
            raise aiohttp.ServerTimeoutError("Timeout on reading data from socket")
        answer = exchange.answer(what, params)
        await asyncio.sleep(back_s)
        self.request_due()
        return Response(*answer)


def _nothing() -> None:
    pass
