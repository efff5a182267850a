"""The request weight that the processes on one database share, and the bans they have met.

A process claims weight before it sends requests, some at a time, and no claim lets all claims of a minute together pass what
the purpose allows. What a process may still have on its way when a minute turns counts in the next one too. A claim is never
given back: weight that was claimed and not used is lost for that minute, so claims are small.
"""

from typing import TYPE_CHECKING, Final

import structlog

from klagg.model import Market
from klagg.store.database import Database

if TYPE_CHECKING:
    from klagg.store.thread import StoreThread

log = structlog.get_logger()

MOST_WEIGHT: Final = 10_000_000
"""A row that claims more in a minute is none of ours."""


def claim(
    database: Database,
    market: Market,
    address: str,
    *,
    process: str,
    minute: int,
    used: int,
    wanted: int,
    ceiling: int,
    in_flight: int,
) -> int:
    """Claim weight of a UTC minute (counted from 1970) for a process: all it may have used by the minute's end.

    That is `wanted`, as far as all claims together stay within `ceiling`, but at least what it has used or claimed already.
    `in_flight` is how much of `used` is on its way now.
    """
    with database.transaction():
        own = others = 0
        of_minute: dict[str, int] = {}
        carried_over: dict[str, int] = {}
        for name, at, claimed, carried in database.all(
            "SELECT process, minute, claimed, carried FROM request_weight WHERE market = ? AND address = ?",
            (market.value, address),
        ):
            if not (0 <= claimed <= MOST_WEIGHT and 0 <= carried <= MOST_WEIGHT and at >= 0):
                log.warning("budget.row_ignored", market=market.value, process=name, minute=at, claimed=claimed)
            elif at == minute:
                of_minute[name] = claimed
            elif at == minute - 1:
                carried_over[name] = carried
        own = of_minute.pop(process, 0)
        carried_over.pop(process, None)
        others = sum((carried_over | of_minute).values())
        granted = max(used, own, min(wanted, ceiling - others))
        database.execute(
            "INSERT OR REPLACE INTO request_weight (market, address, process, minute, claimed, carried) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (market.value, address, process, minute, granted, in_flight + granted - used),
        )
        # Another process's clock may have turned the minute already, or not yet.
        database.execute(
            "DELETE FROM request_weight WHERE market = ? AND address = ? AND minute NOT BETWEEN ? AND ?",
            (market.value, address, minute - 2, minute + 2),
        )
    return granted


def put_ban(database: Database, market: Market, address: str, until_ms: int, wait_ms: int) -> None:
    """Say that the address is banned until an instant, `wait_ms` after the ban was met; of two bans the later end counts."""
    with database.transaction():
        database.execute(
            "INSERT INTO request_ban (market, address, until_ms, wait_ms) VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET until_ms = excluded.until_ms, wait_ms = excluded.wait_ms "
            "WHERE excluded.until_ms > until_ms",
            (market.value, address, until_ms, wait_ms),
        )


def ban(database: Database, market: Market, address: str) -> tuple[int, int]:
    """Until when the address is or was banned, and how long that ban was to be waited for; zeros where there never was one."""
    row = database.one(
        "SELECT until_ms, wait_ms FROM request_ban WHERE market = ? AND address = ?", (market.value, address)
    )
    return (0, 0) if row is None else (int(row[0]), int(row[1]))


class WeightLedger:
    """One address's weight in a database, off the event loop: what `klagg.exchange.budget` takes as its ledger."""

    def __init__(self, thread: "StoreThread", market: Market, address: str) -> None:
        self._thread = thread
        self._market = market
        self._address = address

    async def claim(
        self, *, process: str, minute: int, used: int, wanted: int, ceiling: int, in_flight: int
    ) -> tuple[int, int, int]:
        """What is claimed now, and the ban as `ban` tells it.

        Raises:
            StoreError: the database cannot be used.

        """
        return await self._thread.call(
            self._thread.store.claim_weight,
            self._market,
            self._address,
            process=process,
            minute=minute,
            used=used,
            wanted=wanted,
            ceiling=ceiling,
            in_flight=in_flight,
        )

    async def ban(self, until_ms: int, wait_ms: int) -> None:
        """Say that the address is banned.

        Raises:
            StoreError: the database cannot be used.

        """
        await self._thread.call(self._thread.store.put_ban, self._market, self._address, until_ms, wait_ms)

    async def banned(self) -> tuple[int, int]:
        """The ban of the address, as `ban` tells it.

        Raises:
            StoreError: the database cannot be used.

        """
        return await self._thread.call(self._thread.store.ban, self._market, self._address)
