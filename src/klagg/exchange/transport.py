"""How the exchange is reached: sockets and chance, in one place, so that a simulation can play the network.

Everything else that the adapter has of the outside is its `Clock`.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import aiohttp
from picows import WSListener, ws_connect

from klagg.exchange.proxy import proxy_for

CONNECTIONS: Final = 32
"""Sockets to one host; more requests wait for a free one. The weight budget is used up by far fewer."""
REQUEST_TIMEOUT: Final = aiohttp.ClientTimeout(total=60, sock_connect=10, sock_read=20)
"""Real seconds; a symbol list over a slow line takes some of them."""
CONNECT_TIMEOUT_S: Final = 15.0
"""Real seconds for one handshake, proxy and TLS included."""
MAX_FRAME_BYTES: Final = 16 * 2**20
"""The largest real one is the first mini-ticker array, below 1 MB; a larger frame, or message of several, ends the connection."""
USER_AGENT: Final = "klagg"

SessionFactory = Callable[[], aiohttp.ClientSession]
Connect = Callable[[WSListener, str], Awaitable[None]]
"""Shake hands with a URL for a listener; raises what picows raises."""


def open_session() -> aiohttp.ClientSession:
    """A session that honours the environment's proxies and takes gzip."""
    return aiohttp.ClientSession(
        trust_env=True,
        timeout=REQUEST_TIMEOUT,
        connector=aiohttp.TCPConnector(limit=CONNECTIONS),
        headers={"User-Agent": USER_AGENT, "Accept-Encoding": "gzip, deflate"},
    )


async def connect(listener: WSListener, url: str) -> None:
    """Open a WebSocket, by the environment's proxy where it names one.

    Raises:
        WSError | ProxyError | OSError | TimeoutError: why not.
    """
    async with asyncio.timeout(CONNECT_TIMEOUT_S):
        websocket, _ = await ws_connect(
            lambda: listener,
            url,
            websocket_handshake_timeout=CONNECT_TIMEOUT_S,
            max_frame_size=MAX_FRAME_BYTES,
            proxy=proxy_for(url),
            logger_name="klagg",
        )
    # picows keeps the error for whoever waits for the end, and asyncio prints it where nobody does. The listener is told too.
    asyncio.ensure_future(websocket.wait_disconnected()).add_done_callback(_seen)


def _seen(ended: "asyncio.Future[None]") -> None:
    if not ended.cancelled():
        ended.exception()


@dataclass(frozen=True, slots=True)
class Transport:
    """The network as klagg uses it; `chance` makes the generators that spread retries and guard nothing."""

    open_session: SessionFactory = open_session
    connect: Connect = connect
    chance: Callable[[], random.Random] = random.Random


SOCKETS: Final = Transport()
"""The real one."""
