"""`klagg doctor`: what stands in the way of a run, looked at from the name of the exchange's host to the database's disk.

Each finding stands for itself: a failed one does not stop the others. Nothing is written.
"""

import asyncio
import shutil
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import msgspec

from klagg.config.settings import DEFAULT_SERVE, Settings
from klagg.config.values import parse_endpoint
from klagg.errors import KlaggError
from klagg.exchange.endpoints import SPOT_DATA_ONLY_URL, Endpoints, for_market
from klagg.exchange.proxy import proxy_for
from klagg.model import Market
from klagg.serve.listening import listen
from klagg.store import open_store, parse_db_url

PATIENCE_S: Final = 10.0
"""How long one question may take."""
FRAME: Final = "!miniTicker@arr"
"""A stream that brings something every second, whatever trades."""
LEAST_FREE: Final = 2**30
"""Bytes below which a disk is called nearly full: some days of a whole market."""
FAR_OFFSET_MS: Final = 1_000
"""A host's clock further off than this is worth a word; klagg itself goes by the exchange's."""
SAMPLES: Final = 3


class Grade(StrEnum):
    """How a finding is."""

    OK = "ok"
    NOTE = "note"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at, and what to do about it where that is anything."""

    what: str
    grade: Grade
    detail: str


class _ServerTime(msgspec.Struct):
    serverTime: int  # noqa: N815 - the exchange's name


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """Look at everything, in the order in which a run needs it."""
    async with aiohttp.ClientSession(trust_env=True, timeout=aiohttp.ClientTimeout(total=PATIENCE_S)) as http:
        for market in settings.markets:
            endpoints = for_market(market, settings.rest_urls.get(market), settings.ws_urls.get(market))
            for url in (endpoints.rest_url, endpoints.ws_url):
                yield await _name(market, url)
            for finding in await _rest(market, endpoints, http):
                yield finding
            yield await _stream(market, endpoints, http)
    for finding in await asyncio.to_thread(_database, settings.db):
        yield finding
    yield _address(settings.serve or DEFAULT_SERVE)


async def _name(market: Market, url: str) -> Finding:
    """Whether the host's name is known, or a proxy stands before it."""
    parts = urlsplit(url)
    host, what = parts.hostname or "", f"{market.value} {parts.scheme} name"
    proxy = proxy_for(url.replace("http", "ws", 1) if parts.scheme.startswith("http") else url)
    if proxy is not None:
        behind = urlsplit(proxy)
        return Finding(
            what, Grade.NOTE, f"{host} is asked for by the proxy {behind.hostname}:{behind.port} of the environment"
        )
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, parts.port or 443, type=socket.SOCK_STREAM)
    except OSError as error:
        return Finding(
            what, Grade.FAILED, f"{host} cannot be resolved ({error.strerror or error}): check DNS, or set HTTPS_PROXY"
        )
    return Finding(what, Grade.OK, f"{host} is {found[0][4][0]}")


async def _rest(market: Market, endpoints: Endpoints, http: aiohttp.ClientSession) -> list[Finding]:
    """Whether REST answers, how far the host's clock is off, and how much weight is used."""
    what, url = f"{market.value} REST", f"{endpoints.rest_url}/time"
    best: tuple[float, float] | None = None
    used = ""
    try:
        for _ in range(SAMPLES):
            before = time.time()
            async with http.get(url) as response:
                body = await response.read()
                after = time.time()
                if response.status != 200:
                    return [Finding(what, Grade.FAILED, _refusal(market, response.status))]
                used = response.headers.get("X-MBX-USED-WEIGHT-1M", "")
            offset_ms = msgspec.json.decode(body, type=_ServerTime).serverTime - (before + after) * 500
            best = min(best or (after - before, offset_ms), (after - before, offset_ms))
    except (aiohttp.ClientError, TimeoutError, OSError, msgspec.MsgspecError) as error:
        reason = str(error) or type(error).__name__
        return [Finding(what, Grade.FAILED, f"{url} gives no answer ({reason}): check the network and the proxy")]
    assert best is not None
    trip_ms, offset_ms = best[0] * 1e3, best[1]
    grade = Grade.NOTE if abs(offset_ms) > FAR_OFFSET_MS else Grade.OK
    return [
        Finding(what, Grade.OK, f"answers in {trip_ms:.0f} ms"),
        Finding(
            f"{market.value} clock",
            grade,
            f"the exchange is {offset_ms:+.0f} ms from this host's clock, known to {trip_ms / 2:.0f} ms; klagg goes by the exchange's",
        ),
        Finding(f"{market.value} weight", Grade.OK, f"{used or 'an unknown amount'} used of this minute's"),
    ]


def _refusal(market: Market, status: int) -> str:
    if status == 451:
        way = f"; spot's public data: --rest-url {SPOT_DATA_ONLY_URL}" if market is Market.SPOT else ""
        return f"HTTP 451: the exchange does not serve this location: use a proxy elsewhere (HTTPS_PROXY){way}"
    if status in (418, 429):
        return f"HTTP {status}: this address has asked too much: stop what asks, and wait some minutes"
    return f"HTTP {status}: refused; HTTP 403 is the exchange's firewall: wait five minutes, or use another address"


async def _stream(market: Market, endpoints: Endpoints, http: aiohttp.ClientSession) -> Finding:
    """Whether data comes, which only data proves: what is acknowledged may stay silent."""
    what, url = f"{market.value} stream", f"{endpoints.ws_url}?streams={FRAME}"
    if endpoints.ws_url.endswith("/ws"):
        url = f"{endpoints.ws_url}/{FRAME}"
    began = time.monotonic()
    try:
        async with (
            asyncio.timeout(PATIENCE_S),
            http.ws_connect(url, proxy=proxy_for(url), max_msg_size=0) as opened,
        ):
            message = await opened.receive()
    except TimeoutError:
        return Finding(
            what,
            Grade.FAILED,
            f"{endpoints.ws_url}: nothing came in {PATIENCE_S:.0f} s: a firewall or a proxy holds it back",
        )
    except (aiohttp.ClientError, OSError) as error:
        return Finding(
            what, Grade.FAILED, f"{endpoints.ws_url} cannot be opened ({error}): check the network and the proxy"
        )
    if message.type is not aiohttp.WSMsgType.TEXT:
        return Finding(
            what, Grade.FAILED, f"{endpoints.ws_url} closed at once: the address is not a stream of the exchange's"
        )
    return Finding(what, Grade.OK, f"data after {(time.monotonic() - began) * 1e3:.0f} ms")


def _database(url: str) -> list[Finding]:
    """Whether the database can be read, and whether there is room beside it."""
    try:
        path = parse_db_url(url)
        folder = path.absolute().parent
        if path.exists():
            open_store(url, mode="read").close()
            findings = [Finding("database", Grade.OK, f"{path} can be read")]
        else:
            findings = [Finding("database", Grade.NOTE, f"{path} is not there yet: klagg run makes it")]
    except KlaggError as error:
        return [Finding("database", Grade.FAILED, str(error))]
    return [*findings, _disk(folder)]


def _disk(folder: Path) -> Finding:
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Finding(
            "disk", Grade.FAILED, f"{folder} cannot be used ({error.strerror}): make it, or name another by --db"
        )
    text = f"{free / 2**30:.1f} GiB free in {folder}"
    return Finding(
        "disk", Grade.OK if free >= LEAST_FREE else Grade.FAILED, text if free >= LEAST_FREE else f"{text}: free some"
    )


def _address(serve: str) -> Finding:
    """Whether the address to serve on is free."""
    host, port = parse_endpoint(serve)
    try:
        listen(host, port).close()
    except KlaggError as error:
        return Finding("address", Grade.NOTE, str(error))
    return Finding("address", Grade.OK, f"{serve} is free")
