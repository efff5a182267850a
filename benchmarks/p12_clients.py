"""The clients of P12 in a process of their own: WebSockets that only take bytes, and say when the last of them had the last one.

`python -m benchmarks.p12_clients PORT` reads a JSON line per command from stdin and answers each with one on stdout.
"""

import asyncio
import json
import sys
import time
from typing import Any

from benchmarks.p12_wire import run_loop, talk

READ = 256 * 1024
LOOK_S = 0.001
PATIENCE_S = 30.0
HANDSHAKE = (
    "GET /market/ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Client(asyncio.BufferedProtocol):
    """One connection: how much it has taken, and when the last of it came."""

    def __init__(self, *, keeps: bool) -> None:
        self.total = 0
        self.last_ns = 0
        self.kept = bytearray()
        self._keeps = keeps
        self._buffer = bytearray(READ)
        self.transport: asyncio.Transport | None = None
        self.ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.last_ns = time.monotonic_ns()
        self.total += nbytes
        if self._keeps:
            self.kept += self._buffer[:nbytes]

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.ended = True

    def begin(self) -> None:
        self.total = self.last_ns = 0
        self.kept.clear()


def masked(text: bytes) -> bytes:
    """A client's text frame; the mask is zero, which leaves the bytes as they are."""
    return b"\x81" + (b"\xfe" + len(text).to_bytes(2, "big")) + bytes(4) + text


class Crowd:
    """All of them. The first keeps its bytes, to know how many make a whole push."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._clients: list[Client] = []

    async def do(self, command: dict[str, Any]) -> dict[str, Any]:
        match command["do"]:
            case "open":
                for names in command["subscriptions"]:
                    await self._open(names)
                return {"open": len(self._clients)}
            case "begin":
                for client in self._clients:
                    client.begin()
                return {}
            case "whole":
                return await self._whole(command["events"])
            case _:
                ended = sum(client.ended for client in self._clients)
                return {"bytes": sum(client.total for client in self._clients), "ended": ended}

    async def _open(self, names: list[str]) -> None:
        client = Client(keeps=not self._clients)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(lambda: client, "127.0.0.1", self._port)
        transport.write(HANDSHAKE.format(port=self._port).encode())
        await self._taken(client)
        client.begin()
        transport.write(masked(json.dumps({"method": "SUBSCRIBE", "params": names, "id": 1}).encode()))
        await self._taken(client)
        self._clients.append(client)

    async def _taken(self, client: Client) -> None:
        while not client.total:
            assert not client.ended
            await asyncio.sleep(LOOK_S)

    async def _whole(self, events: int) -> dict[str, Any]:
        """When the last client had the last byte of a push of closed candles."""
        first, until_s = self._clients[0], time.monotonic() + PATIENCE_S
        while first.kept.count(b'"x":true') < events or any(client.total < first.total for client in self._clients):
            assert time.monotonic() < until_s, f"{first.kept.count(b'x')} of {events} events"
            await asyncio.sleep(LOOK_S)
        assert all(client.total == first.total for client in self._clients)
        return {"last_ns": max(client.last_ns for client in self._clients), "bytes": first.total}


async def main(port: int) -> None:
    await talk(Crowd(port).do)


if __name__ == "__main__":
    run_loop(main(int(sys.argv[1])))
