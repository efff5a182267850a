"""Holes in the ids, filled by asking for the very trades while that is still possible and worth its weight.

A kline costs a tenth as much, or nothing (the closing push), and completes a minute too, but only once it has closed, and with
numbers alone. The trades complete the open candle within seconds, with its trade ids, and leave the minute `trades`: proven by ids
and then compared, rather than taken on trust. So they are asked for where few symbols have a hole and the exchange's weight lies
idle; after a broken connection, which is a hole in every symbol, the klines serve.
"""

from collections.abc import Callable
from typing import Final

from klagg.engine.engine import Hole
from klagg.engine.state import HOLE_PATIENCE_MS
from klagg.exchange import aggtrades
from klagg.exchange.budget import Purpose
from klagg.exchange.rest import RestClient
from klagg.interval import MINUTE_MS
from klagg.model import Market, TradeKind, Trades

LATE_MS: Final = 1_000
"""A hole this young may be filled by trades that are merely late."""
ANSWER_MS: Final = 1_000
"""An answer is expected to take less; the engine gives a hole up `HOLE_PATIENCE_MS` after it was noticed."""
IDLE_SHARE: Final = 0.5
"""Where more of the weight of the running minute is used, klines must do."""
SHARE: Final = 0.1
"""How much of the exchange's weight per minute may go to holes: 12 of them on USDT-M, 150 on spot."""


class Holes:
    """Decides which holes are worth their weight, and fetches their trades."""

    def __init__(self, market: Market, rest: RestClient, now_ms: Callable[[], int]) -> None:
        self.asked = 0
        self._market = market
        self._rest = rest
        self._now_ms = now_ms
        self._minute = 0
        self._used = 0

    def is_worth(self, hole: Hole) -> bool:
        """Whether to ask for its trades now."""
        now_ms = self._now_ms()
        if now_ms // MINUTE_MS != self._minute:
            self._minute, self._used = now_ms // MINUTE_MS, 0
        weight, limit = aggtrades.WEIGHT[self._market], self._rest.budget.limit
        return (
            LATE_MS <= now_ms - hole.since_ms <= HOLE_PATIENCE_MS - ANSWER_MS
            and hole.end_id - hole.first_id <= aggtrades.LIMIT
            and self._used + weight <= limit * SHARE
            and self._rest.budget.used(now_ms) + weight <= limit * IDLE_SHARE
            and self._rest.budget.wait_ms(weight, Purpose.REPAIR, now_ms) == 0
        )

    async def trades(self, symbol: str, hole: Hole) -> Trades:
        """The trades from the first missed one up to the last seen (slot not set).

        Raises:
            ExchangeError: the exchange does not give them.
        """
        self.asked += 1
        self._used += aggtrades.WEIGHT[self._market]
        rows = await self._rest.agg_trades(symbol, from_id=hole.first_id, limit=hole.end_id - hole.first_id)
        inside = (rows["agg_id"] >= hole.first_id) & (rows["agg_id"] < hole.end_id)
        found: Trades = rows[inside & (rows["kind"] != TradeKind.UNPROVEN)]
        return found
