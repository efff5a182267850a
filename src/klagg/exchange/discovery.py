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
from klagg.exchange.symbols import COIN_MARGINED, is_unknown, renames
from klagg.exchange.transport import SOCKETS, Transport
from klagg.model import Instrument, Market, Status

log = structlog.get_logger()

REFRESH_S: Final = 300.0
"""How often the symbol list is fetched when no stream asks for it: weight 1 or 20."""
LEAST_REFRESH_S: Final = 5.0
"""Unknown symbols and contract news bring the next fetch forward, but not closer than this to the last one."""
EARLY_MS: Final = 60_000
"""A ticker row from further in the future than this is taken as of when it came."""
QUIET_UNKNOWN_S: Final = 60.0
"""An unknown symbol that the list did not know either is not asked about again for this long."""
ABSENT_AGAIN_S: Final = 15.0
"""A symbol that is absent from the list is looked for again after this long: it has left if it is absent then too."""
TRADES_MS: Final = 300_000
"""A symbol whose status klagg does not know trades if its price has moved this short a time ago; else it is paused."""
MAX_EVENTS: Final = 4_096
"""Events that may wait for the service: more than a market has symbols. When it is full the refresh waits; nothing is lost."""
_MINI_TICKER: Final = "!miniTicker@arr"
_CONTRACTS: Final = "!contractInfo"


@dataclass(frozen=True, slots=True)
class Listed:
    """A symbol is new or trades again; `price` is its last price (mantissa, scale), None if not known."""

    instrument: Instrument
    price: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Paused:
    """A symbol does not trade any more, and may trade again."""

    instrument: Instrument


@dataclass(frozen=True, slots=True)
class Changed:
    """A symbol's grid has changed; it trades on."""

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


Event = Listed | Paused | Changed | Retired


@dataclass(frozen=True, slots=True)
class _Absence:
    """A known symbol was not in the list for the first time."""

    since_ns: int
    successor: str | None


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
    data: list[msgspec.Raw]


class _Contract(msgspec.Struct):
    s: str = ""
    st: int = 1
    cs: str = ""


class _ContractFrame(msgspec.Struct):
    data: _Contract


_TICKERS: Final = msgspec.json.Decoder(_TickerFrame)
_RAW_TICKERS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_TICKER: Final = msgspec.json.Decoder(_Ticker)
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
        absent: of these the ones that the list did not have, which are looked for again soon.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        source: SymbolSource,
        *,
        clock: Clock,
        now_ms: Callable[[], int],
        known: Iterable[Instrument] = (),
        absent: Iterable[str] = (),
        settings: StreamSettings | None = None,
        gate: ConnectGate | None = None,
        refresh_s: float = REFRESH_S,
        transport: Transport = SOCKETS,
    ) -> None:
        self.last_price: dict[str, LastPrice] = {}
        self.malformed = 0
        """Stream messages, and rows of them, that could not be read."""
        self._market = endpoints.market
        self._source = source
        self._clock = clock
        self._now_ms = now_ms
        self._refresh_s = refresh_s
        self._rng = transport.chance()
        self._known = {instrument.symbol: instrument for instrument in known}
        self._known_ms = now_ms()
        self._absent = {symbol: _Absence(clock.monotonic_ns(), None) for symbol in absent}
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
        for raw in tickers:
            # A row that nobody foresaw must not cost the others' news, least of all the service.
            try:
                self._take_ticker(_TICKER.decode(raw), recv_ms)
            except (msgspec.MsgspecError, UnicodeDecodeError, NumberError):
                self.malformed += 1

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
        mantissa, scale = mantissa_and_scale(ticker.c)
        before = self.last_price.get(symbol)
        at_ms = ticker.E if 0 < ticker.E < recv_ms + EARLY_MS else recv_ms
        self.last_price[symbol] = LastPrice(mantissa, scale, at_ms)
        moved = before is not None and (before.mantissa, before.scale) != (mantissa, scale)
        if moved:
            self._traded_ms[symbol] = max(at_ms, self._traded_ms.get(symbol, 0))
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
        if known is None or known.status is Status.PENDING:
            return True
        return moved and known.status is not Status.TRADING

    def _next_fetch_s(self) -> float:
        """The pause to the next fetch that nothing asks for: at the latest when a listing that is known is due."""
        now_ms = self._now_ms()
        due_ms = [
            one.listed_ms for one in self._known.values() if one.status is Status.PENDING and one.listed_ms > now_ms
        ]
        waits = [(at_ms - now_ms) / 1e3 + LEAST_REFRESH_S / 5 for at_ms in due_ms]
        now_ns = self._clock.monotonic_ns()
        waits += [max(ABSENT_AGAIN_S - (now_ns - one.since_ns) / 1e9, 0.0) for one in self._absent.values()]
        return min([self._refresh_s, *waits])

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
            self._absent = {
                symbol: replace(one, since_ns=self._clock.monotonic_ns()) for symbol, one in self._absent.items()
            }
            return []
        listed = {instrument.symbol: self._as_seen(instrument) for instrument in instruments}
        events = [event for one in listed.values() if (event := self._event(one)) is not None]
        successors = renames(self._known, listed, self._known_ms)
        for symbol, previous in self._known.items():
            if symbol in listed:
                self._absent.pop(symbol, None)
            elif previous.status in {Status.TRADING, Status.HALTED}:
                absence = self._absent.setdefault(symbol, _Absence(self._clock.monotonic_ns(), successors.get(symbol)))
                if (self._clock.monotonic_ns() - absence.since_ns) / 1e9 < ABSENT_AGAIN_S:
                    # One list is no evidence: it is known on until another has it, or has it not either.
                    listed[symbol] = previous
                else:
                    del self._absent[symbol]
                    events.append(Retired(symbol, previous, absence.successor))
        self._known, self._known_ms = listed, self._now_ms()
        return events

    def _as_seen(self, instrument: Instrument) -> Instrument:
        """A status that klagg does not know says nothing, but trades do."""
        is_alive = self._now_ms() - self.traded_ms(instrument.symbol) < TRADES_MS
        return replace(instrument, status=Status.TRADING) if is_unknown(instrument) and is_alive else instrument

    def _event(self, instrument: Instrument) -> Event | None:
        symbol = instrument.symbol
        previous = self._known.get(symbol)
        before = Status.RETIRED if previous is None else previous.status
        if instrument.status is Status.TRADING:
            if previous is None or before is not Status.TRADING:
                price = self.last_price.get(symbol)
                return Listed(instrument, None if price is None else (price.mantissa, price.scale))
            return Changed(instrument, previous) if _meaning(instrument) != _meaning(previous) else None
        if instrument.status is Status.RETIRED:
            return Retired(symbol, instrument) if before in {Status.TRADING, Status.HALTED} else None
        return Paused(replace(instrument, status=Status.HALTED)) if before is Status.TRADING else None


def _meaning(instrument: Instrument) -> tuple[str, int, int]:
    return instrument.native_status, instrument.price_scale, instrument.qty_scale
