"""Everything that one address serves, over the connections that read: the exchange's forms and the native API."""

import asyncio
import socket
from collections.abc import Sequence

from litestar.handlers import HTTPRouteHandler

from klagg.clock import Clock
from klagg.serve.access import Access
from klagg.serve.address import Address
from klagg.serve.native.api import NativeApi
from klagg.serve.source import Live
from klagg.service.desk import OpsSource, ServiceDesk
from klagg.service.feed import StoredLog
from klagg.service.lookup import StoredLookup
from klagg.service.ops import NoOps
from klagg.service.reading import Reader


class ReadSide:
    """The read side of a service or of a database alone; `routes` are put beside its own, `ops` is what runs here."""

    def __init__(
        self,
        bound: socket.socket,
        access: Access,
        live: Live,
        reader: Reader,
        clock: Clock,
        routes: Sequence[HTTPRouteHandler] = (),
        ops: OpsSource | None = None,
    ) -> None:
        self._ops = ops or NoOps(live)
        desk = ServiceDesk(live, reader, self._ops)
        self._api = NativeApi(live, reader, StoredLookup(reader), StoredLog(reader), desk, clock)
        self.address = Address(bound, access, live, reader, clock, [*routes, *self._api.handlers()], self._api.doors())

    async def run(self) -> None:
        """Serve until cancelled."""
        await self._api.prepare(self.address.gate)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._ops.run())
            tasks.create_task(self._api.run())
            tasks.create_task(self.address.run())
