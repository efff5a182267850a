"""`serve.native.desk.Desk`: the overviews of the markets, and what the service says of itself."""

from typing import Any, Protocol

from klagg.model import Market
from klagg.serve.source import Live
from klagg.service.overview import Overview
from klagg.service.reading import Reader


class OpsSource(Protocol):
    """`Ops` of a running service, or `NoOps`."""

    async def run(self) -> None:
        """Look until cancelled."""
        ...

    def ops(self, market: Market) -> dict[str, Any]:
        """The small charts of a market."""
        ...

    def status(self) -> dict[str, Any]:
        """The state of all markets."""
        ...


class ServiceDesk:
    """The desk of one address."""

    def __init__(self, live: Live, reader: Reader, ops: OpsSource) -> None:
        self._ops = ops
        self._overviews = {market: Overview(market, live, reader) for market in live.markets}

    async def overview(self, market: Market) -> bytes:
        """As `Desk` says."""
        return await self._overviews[market].overview()

    async def minutes(self, market: Market, count: int) -> bytes:
        """As `Desk` says."""
        return await self._overviews[market].minutes(count)

    def ops(self, market: Market) -> dict[str, Any]:
        """As `Desk` says."""
        return self._ops.ops(market)

    def status(self) -> dict[str, Any]:
        """As `Desk` says."""
        return self._ops.status()
