"""One market of the offline exchange with what stands before it: weights, refusals, connections, faults."""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from klagg.sim.faults.market import Change, change_market
from klagg.sim.feed import STEP_S, Feed
from klagg.sim.limits import TokenBucket, WeightWindow
from klagg.sim.listing import weight_limit
from klagg.sim.recording import load_recordings
from klagg.sim.rest import Rest
from klagg.sim.settings import ExchangeSettings
from klagg.sim.venue import Venue, synthetic_market

if TYPE_CHECKING:
    from klagg.sim.connection import Connection
    from klagg.sim.contracts import Contract
    from klagg.sim.tape import Tape


@dataclass(slots=True)
class Refuse:
    """Requests that somebody arranged to be refused."""

    status: int
    left: int
    path: str


class Front:
    """One venue with what stands before it: weights, refusals, connections."""

    def __init__(self, settings: ExchangeSettings) -> None:
        self.venue = _open_venue(settings)
        self.rest = Rest(self.venue)
        self.feed = Feed(self.venue)
        self.window = WeightWindow(settings, weight_limit(settings))
        connects = settings.own(settings.connects_per_5min, 0, 300)
        self.connects = TokenBucket(connects / 300, connects) if connects else None
        self.connections: set[Connection] = set()
        self.refusals: list[Refuse] = []
        self.connected = 0
        self.requested = 0


def _open_venue(settings: ExchangeSettings) -> Venue:
    market: tuple[Tape, list[Contract], int] = (
        load_recordings(settings) if settings.replay else synthetic_market(settings)
    )
    tape, contracts, start_ms = market
    mine = [fault for fault in settings.faults if fault.market in (None, settings.market)]
    changes = [fault for fault in mine if isinstance(fault, Change)]
    return Venue(settings, start_ms, contracts, change_market(changes, settings, start_ms, contracts, tape))


async def warm(front: Front) -> None:
    """Make the last day of every trading symbol, busiest last, so that the 24 h tickers fill soon."""
    venue = front.venue
    for contract in reversed(list(venue.contracts.values())):
        at_ms = venue.now_ms()
        if contract.trades_at(at_ms):
            for hour in venue.hours_to_make(contract, venue.day_hours(contract, at_ms)):
                venue.book.hour_table(contract, hour)
                await asyncio.sleep(0)


async def cut_in_time(front: Front) -> None:
    """End connections when a fault says so."""
    faults = front.venue.faults
    while True:
        by_number = {connection.number: connection for connection in front.connections}
        for number, ending in faults.sockets.cuts(sorted(by_number), faults.passed()).items():
            if ending.code is None:
                by_number[number].cut()
            else:
                await by_number[number].close(ending.code, "")
        await asyncio.sleep(STEP_S)
