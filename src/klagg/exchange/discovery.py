"""Which symbols there are: news from the mini-ticker and contract streams, the truth from the symbol list.

The streams say that something has changed; only the list says what. A symbol absent from the mini-ticker has not changed, no
more. Of the mini-ticker only the last price is used: its other figures are of a rolling day.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Protocol

import msgspec
import structlog

from klagg.clock import Clock
from klagg.errors import ExchangeError, NumberError
from klagg.exchange.decimals import mantissa_and_scale
from klagg.exchange.endpoints import Endpoints
from klagg.exchange.lane import Lane, LaneStats
from klagg.exchange.pacing import Backoff, ConnectGate
from klagg.exchange.settings import StreamSettings
from klagg.exchange.symbols import COIN_MARGINED, renames
from klagg.exchange.transport import SOCKETS, Transport
from klagg.model import Instrument, Market, Status

log = structlog.get_logger()

REFRESH_S: Final = 300.0
"""How often the symbol list is fetched when no stream asks for it: weight 1 or 20."""
LEAST_REFRESH_S: Final = 5.0
"""Unknown symbols and contract news bring the next fetch forward, but not closer than this to the last one."""
QUIET_UNKNOWN_S: Final = 60.0
"""An unknown symbol that the list did not know either is not asked about again for this long."""
MAX_EVENTS: Final = 4_096
"""Events that may wait for the service: more than a market has symbols. When it is full the refresh waits; nothing is lost."""
_DORMANT: Final = (Status.PENDING, Status.RETIRED)
"""No candles are made."""
_MINI_TICKER: Final = "!miniTicker@arr"
_CONTRACTS: Final = "!contractInfo"


@dataclass(frozen=True, slots=True)
class Listed:
    """A symbol is new or trades again; `price` is its last price (mantissa, scale), None if not known."""

    instrument: Instrument
    price: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Changed:
    """A symbol's grid or status has changed, short of retiring."""

    instrument: Instrument
    previous: Instrument


@dataclass(frozen=True, slots=True)
class Retired:
    """A symbol's status has left trading for good (or it left the list: `instrument` is what was last known).

    `successor` is the symbol that the contract goes on as, where that is certain (see `symbols.renames`).
    """

    symbol: str
    instrument: Instrument
    successor: str | None = None


Event = Listed | Changed | Retired


class SymbolSource(Protocol):
    """Who fetches the symbol list."""

    async def instruments(self) -> list[Instrument]:
        """The symbol list now."""
        ...


class _Ticker(msgspec.Struct):
    s: str
    c: str
    E: int = 0
    st: int = 1


class _TickerFrame(msgspec.Struct):
    data: list[_Ticker]


class _Contract(msgspec.Struct):
    s: str = ""
    st: int = 1
    cs: str = ""


class _ContractFrame(msgspec.Struct):
    data: _Contract


_TICKERS: Final = msgspec.json.Decoder(_TickerFrame)
_RAW_TICKERS: Final = msgspec.json.Decoder(list[_Ticker])
_CONTRACT: Final = msgspec.json.Decoder(_ContractFrame)


@dataclass(frozen=True, slots=True)
class LastPrice:
    """A symbol's last price as the mini-ticker had it at `at_ms`."""

    mantissa: int
    scale: int
    at_ms: int


class Discovery:
    """Watches a market's symbols; `run` it in a TaskGroup and iterate `events`.

    Args:
        endpoints: of the market.
        source: fetches the symbol list.
        clock: the host clock.
        now_ms: exchange time.
        known: the instruments that need not be announced.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        source: SymbolSource,
        *,
        clock: Clock,
        now_ms: Callable[[], int],
        known: Iterable[Instrument] = (),
        settings: StreamSettings | None = None,
        gate: ConnectGate | None = None,
        refresh_s: float = REFRESH_S,
        transport: Transport = SOCKETS,
    ) -> None:
        self.last_price: dict[str, LastPrice] = {}
        self.malformed = 0
        """Stream messages that could not be read."""
        self._market = endpoints.market
        self._source = source
        self._clock = clock
        self._now_ms = now_ms
        self._refresh_s = refresh_s
        self._rng = transport.chance()
        self._known = {instrument.symbol: instrument for instrument in known}
        self._known_ms = now_ms()
        self._traded_ms: dict[str, int] = {}
        self._asked_ns: dict[str, int] = {}
        self._news = asyncio.Event()
        self._events: asyncio.Queue[Event] = asyncio.Queue(MAX_EVENTS)
        defaults = settings or StreamSettings.of(endpoints.market)
        self._lane = Lane(
            f"{endpoints.market.value}-discovery",
            endpoints.ws_url,
            self,
            # By the name of its stream: the arrays that are wanted here carry the usual mark too.
            settings=replace(defaults, heartbeat_mark=defaults.heartbeat.encode()),
            clock=clock,
            now_ms=now_ms,
            gate=gate or ConnectGate(clock),
            connect=transport.connect,
            rng=self._rng,
        )
        names = {_MINI_TICKER: (_MINI_TICKER,)}
        if endpoints.market is Market.USDM:
            names[_CONTRACTS] = (_CONTRACTS,)
        self._lane.add(names)

    @property
    def known(self) -> Mapping[str, Instrument]:
        """Every symbol of the list as last fetched."""
        return self._known

    @property
    def last_activity_ms(self) -> int:
        """Exchange time of the last sign of life of the market as a whole."""
        return self._lane.last_data_ms

    def traded_ms(self, symbol: str) -> int:
        """When a symbol's last price was last seen to move, which takes a trade; 0 for never."""
        return self._traded_ms.get(symbol, 0)

    def stats(self) -> LaneStats:
        """How the connection fares."""
        return self._lane.stats()

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._lane.run())
            tasks.create_task(self._refresh())

    async def events(self) -> AsyncIterator[Event]:
        """What has changed, in order, for ever."""
        while True:
            yield await self._events.get()

    # What the lane tells

    def message(self, payload: bytes, recv_ms: int) -> None:
        """A mini-ticker array or contract news."""
        try:
            if b"contractInfo" in payload[:64]:
                contract = _CONTRACT.decode(payload).data
                if contract.st != COIN_MARGINED:
                    self._news.set()
                return
            tickers = _RAW_TICKERS.decode(payload) if payload[:1] == b"[" else _TICKERS.decode(payload).data
        except (msgspec.MsgspecError, UnicodeDecodeError):
            self.malformed += 1
            return
        for ticker in tickers:
            self._take_ticker(ticker, recv_ms)

    def sighted(self, keys: frozenset[str], at_ms: int) -> None:
        """Nothing depends on it."""

    def blind(self, keys: frozenset[str], since_ms: int, reason: str) -> None:  # noqa: ARG002 - a lane's sink
        """What was listed meanwhile is in the list, not in the streams."""
        self._news.set()

    def traded_since(self, keys: Iterable[str], since_ms: int) -> bool:  # noqa: ARG002 - a lane's sink
        """Nobody else watches the whole market."""
        return False

    def others_alive(self) -> bool:
        """Assumed: a whole market that is silent against its usual rate is worth one new connection."""
        return True

    def _take_ticker(self, ticker: _Ticker, recv_ms: int) -> None:
        symbol = ticker.s
        if ticker.st == COIN_MARGINED:
            return
        try:
            mantissa, scale = mantissa_and_scale(ticker.c)
        except NumberError:
            self.malformed += 1
            return
        before = self.last_price.get(symbol)
        at_ms = ticker.E or recv_ms
        self.last_price[symbol] = LastPrice(mantissa, scale, at_ms)
        moved = before is not None and (before.mantissa, before.scale) != (mantissa, scale)
        if moved:
            self._traded_ms[symbol] = at_ms
        if self._is_news(symbol, moved=moved):
            now_ns = self._clock.monotonic_ns()
            asked_ns = self._asked_ns.get(symbol)
            if asked_ns is None or now_ns - asked_ns > QUIET_UNKNOWN_S * 1e9:
                self._asked_ns[symbol] = now_ns
                known = self._known.get(symbol)
                log.info(
                    "symbols.unknown",
                    market=self._market.value,
                    symbol=symbol,
                    listed_as=None if known is None else known.native_status,
                )
                self._news.set()

    def _is_news(self, symbol: str, *, moved: bool) -> bool:
        """Whether the list is to be fetched for a symbol's price: it is unknown, or it trades although it should not."""
        known = self._known.get(symbol)
        return known is None or known.status is Status.PENDING or (moved and known.status is Status.RETIRED)

    def _next_fetch_s(self) -> float:
        """The pause to the next fetch that nothing asks for: at the latest when a listing that is known is due."""
        now_ms = self._now_ms()
        due_ms = [
            one.listed_ms for one in self._known.values() if one.status is Status.PENDING and one.listed_ms > now_ms
        ]
        return min([self._refresh_s, *((at_ms - now_ms) / 1e3 + LEAST_REFRESH_S / 5 for at_ms in due_ms)])

    # The list

    async def _refresh(self) -> None:
        backoff = Backoff(self._rng, first_s=1.0, last_s=60.0)
        while True:
            await self._wait_for_news()
            try:
                instruments = await self._source.instruments()
            except ExchangeError as error:
                log.warning("symbols.refresh_failed", market=self._market.value, reason=str(error))
                await self._clock.sleep(backoff.next_s())
                self._news.set()
                continue
            backoff.reset()
            for event in self._differences(instruments):
                await self._events.put(event)
            await self._clock.sleep(LEAST_REFRESH_S)

    async def _wait_for_news(self) -> None:
        timer = asyncio.ensure_future(self._clock.sleep(self._next_fetch_s()))
        news = asyncio.ensure_future(self._news.wait())
        try:
            await asyncio.wait((timer, news), return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            news.cancel()
        self._news.clear()

    def _differences(self, instruments: list[Instrument]) -> list[Event]:
        """What is new against what was known, which it replaces."""
        if len(instruments) < len(self._known) // 2:
            # Half a market does not retire at once; an answer that says so is not believed.
            log.error("symbols.list_shrunk", market=self._market.value, listed=len(instruments), known=len(self._known))
            return []
        events: list[Event] = []
        listed = {instrument.symbol: instrument for instrument in instruments}
        for symbol, instrument in listed.items():
            previous = self._known.get(symbol)
            if previous is None or previous.status in _DORMANT:
                if instrument.status not in _DORMANT:
                    price = self.last_price.get(symbol)
                    events.append(Listed(instrument, None if price is None else (price.mantissa, price.scale)))
            elif instrument.status is Status.RETIRED:
                events.append(Retired(symbol, instrument))
            elif _meaning(instrument) != _meaning(previous):
                events.append(Changed(instrument, previous))
        # A symbol that left the list altogether is gone too; on spot some delisted ones vanish.
        successors = renames(self._known, listed, self._known_ms)
        events += [
            Retired(symbol, previous, successors.get(symbol))
            for symbol, previous in self._known.items()
            if symbol not in listed and previous.status not in _DORMANT
        ]
        self._known, self._known_ms = listed, self._now_ms()
        return events


def _meaning(instrument: Instrument) -> tuple[Status, int, int]:
    return instrument.status, instrument.price_scale, instrument.qty_scale
