"""The price at which a symbol begins that the store does not know: its last close before the boundary, by REST."""

import asyncio
from collections.abc import Sequence
from typing import Final

from klagg.errors import ExchangeError, RequestRejected
from klagg.exchange.budget import Purpose
from klagg.exchange.rest import RestClient
from klagg.interval import MINUTE, MINUTE_MS
from klagg.model import Instrument, no_candles
from klagg.service.aside import put_aside
from klagg.service.recent import Recent
from klagg.service.shard import Seed

LOOKBACK_MS: Final = 60 * MINUTE_MS
"""The exchange has a row for each minute of a symbol that trades; this much covers an outage, for the same weight."""
REQUESTS_AT_ONCE: Final = 8


async def seeds_by_rest(
    rest: RestClient, instruments: Sequence[Instrument], boundary_ms: int, recent: Recent
) -> dict[str, Seed]:
    """A seed for each symbol that the exchange has a close for before the boundary.

    A symbol whose request the exchange refuses (listings of the last hour are) gets none: it is quarantined alone.

    Raises:
        ExchangeError: the exchange cannot be reached.
    """
    gate = asyncio.Semaphore(REQUESTS_AT_ONCE)
    seeds: dict[str, Seed] = {}

    async def ask(instrument: Instrument) -> None:
        async with gate:
            try:
                rows = await rest.klines(
                    instrument.symbol,
                    MINUTE,
                    start_ms=boundary_ms - LOOKBACK_MS,
                    end_ms=boundary_ms,
                    price_scale=instrument.price_scale,
                    qty_scale=instrument.qty_scale,
                    purpose=Purpose.LIVE,
                )
            except RequestRejected as error:
                recent.note("symbol.refused", f"{instrument.symbol}: {error}")
                return
            except (ExchangeError, OSError):
                raise
            except Exception as error:  # noqa: BLE001 - put on record, with its traceback
                put_aside(recent, instrument.market, [instrument.symbol], error)
                return
        if len(rows):
            seeds[instrument.symbol] = seed_at(boundary_ms, int(rows[-1]["close"]), int(rows[-1]["price_scale"]))

    results = await asyncio.gather(*(ask(instrument) for instrument in instruments), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return seeds


def seed_at(boundary_ms: int, price: int, price_scale: int) -> Seed:
    """The seed of a symbol that begins now, at a price."""
    return Seed(boundary_ms, price, price_scale, no_candles(), None, known=False)
