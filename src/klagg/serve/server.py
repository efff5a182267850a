"""uvicorn in the caller's event loop, on a socket that is bound beforehand so that a port in use is one clear line."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any, Final

import structlog
import uvicorn
from litestar.types import ASGIApp

from klagg.serve.connection import Connection
from klagg.serve.gate import Gate
from klagg.serve.limits import OWN_FILES, open_files
from klagg.serve.socket import StreamSocket

log = structlog.get_logger()

MAX_CONNECTIONS: Final = 1_000
"""HTTP connections at a time, busy or not; another is told 503 and closed."""
MAX_HEAD: Final = 16 * 1024
"""Bytes of a request's line and headers."""
KEEP_ALIVE_S: Final = 75
LAST_ANSWERS_S: Final = 2
"""How long the end waits for answers that are under way."""
KEEP_TIME_S: Final = 5.0


def _share_files(gate: Gate) -> int:
    """Keep what clients may hold open within what the system allows, so that the service never runs out; how many HTTP connections."""
    wanted = gate.max_sockets + MAX_CONNECTIONS
    files = open_files(wanted + OWN_FILES)
    share = min(1.0, max(files - OWN_FILES, 0) / wanted)
    if share == 1:
        return MAX_CONNECTIONS
    gate.max_sockets, connections = int(gate.max_sockets * share), max(int(MAX_CONNECTIONS * share), 2)
    log.warning("serve.few_files", allowed=files, websockets=gate.max_sockets, connections=connections)
    return connections


class _Quiet(uvicorn.Server):
    """Signals are the caller's affair."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


class Server:
    """An application on a listening socket."""

    def __init__(self, app: ASGIApp, gate: Gate, bound: socket.socket) -> None:
        self._gate = gate
        self._bound = bound
        most = _share_files(gate)

        def stream_socket(**_: Any) -> StreamSocket:  # noqa: ANN401 - what uvicorn hands to every protocol
            return StreamSocket(gate)

        self._server = _Quiet(
            uvicorn.Config(
                app,
                http=Connection,
                ws=stream_socket,  # type: ignore[arg-type]
                lifespan="off",
                log_config=None,
                log_level="critical",  # what clients do wrong is answered, not logged line by line in a form of its own
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=most + 1,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=LAST_ANSWERS_S,
                h11_max_incomplete_event_size=MAX_HEAD,
            )
        )

    @property
    def address(self) -> str:
        """Where it can be asked: HOST:PORT."""
        host, port = self._bound.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def run(self) -> None:
        """Serve until cancelled, then end in order."""
        serving = asyncio.create_task(self._server.serve(sockets=[self._bound]))
        keeping = asyncio.create_task(self._keep_time())
        try:
            await asyncio.shield(serving)
        finally:
            keeping.cancel()
            self._gate.close()
            self._server.should_exit = True
            await serving
            self._bound.close()

    async def _keep_time(self) -> None:
        while True:
            await asyncio.sleep(KEEP_TIME_S)
            self._gate.keep_time()
            now_s = time.monotonic()
            for connection in tuple(self._server.server_state.connections):
                if isinstance(connection, Connection):
                    connection.keep_time(now_s)
