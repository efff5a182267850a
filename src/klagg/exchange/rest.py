"""The REST client: time, symbol list, klines, aggregate trades, for one market."""

from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Final, Self

import msgspec
import structlog

from klagg.clock import Clock, TimeSample
from klagg.errors import MalformedMessage
from klagg.exchange import aggtrades as agg_trade_rows
from klagg.exchange import klines as kline_rows
from klagg.exchange.budget import Purpose, WeightBudget
from klagg.exchange.endpoints import Endpoints
from klagg.exchange.http import Http, Params
from klagg.exchange.symbols import SymbolList, parse_exchange_info
from klagg.exchange.transport import SOCKETS, Transport
from klagg.interval import MONTH_STEP, Interval
from klagg.model import Candles, Instrument, Market, Status, Trades

log = structlog.get_logger()

TIME_WEIGHT: Final = 1
AGAIN_S: Final = 1.0
"""After so long an answer that should have more rows is asked for again: it may come from a machine that knows nothing yet."""
EXCHANGE_INFO_WEIGHT: Final = {Market.USDM: 1, Market.SPOT: 20}


class _ServerTime(msgspec.Struct):
    server_time: int = msgspec.field(name="serverTime")


_TIME: Final = msgspec.json.Decoder(_ServerTime)


class RestClient:
    """One market's REST API. `async with` it, or `close` it."""

    def __init__(
        self,
        endpoints: Endpoints,
        *,
        clock: Clock,
        now_ms: Callable[[], int],
        budget: WeightBudget,
        transport: Transport = SOCKETS,
    ) -> None:
        self._market = endpoints.market
        self._rest_url = endpoints.rest_url
        self._clock = clock
        self._now_ms = now_ms
        self._budget = budget
        self._http = Http(endpoints, clock=clock, now_ms=now_ms, budget=budget, transport=transport)
        # Time is asked for by a connection of its own, so that its round trip is never spent behind a backfill.
        self._time_http = Http(endpoints, clock=clock, now_ms=now_ms, budget=budget, transport=transport)
        self._unknown_statuses: frozenset[str] = frozenset()
        self.off_grid_rows = 0
        """Kline rows left out because no candle of their interval opens there."""
        self.repeated_rows = 0
        """Kline rows left out because an answer told them twice."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the sockets."""
        await self._http.close()
        await self._time_http.close()

    @property
    def budget(self) -> WeightBudget:
        """The weight budget that these requests share."""
        return self._budget

    @property
    def retries(self) -> int:
        """Requests repeated since the start."""
        return self._http.retries

    async def server_time(self) -> TimeSample:
        """One sample of the exchange's time, tried once.

        Raises:
            ExchangeError: it failed; see `Http.get_once`.
        """
        sent_ns = self._clock.monotonic_ns()
        body = await self._time_http.get_once("/time", weight=TIME_WEIGHT)
        received_ns = self._clock.monotonic_ns()
        try:
            return TimeSample(sent_ns, received_ns, _TIME.decode(body).server_time)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise MalformedMessage(
                f"{self._rest_url}/time is answered by something else ({error}): is it the exchange's? check --rest-url"
            ) from error

    async def symbol_list(self) -> SymbolList:
        """The symbol list; the budget takes its weight limit over.

        Raises:
            ExchangeError: see `Http.get`.
        """

        def parse(body: bytes, _asked_ms: int) -> SymbolList:
            return parse_exchange_info(body, self._market)

        weight = EXCHANGE_INFO_WEIGHT[self._market]
        symbols = await self._http.get("/exchangeInfo", {}, parse, weight=weight, purpose=Purpose.LIVE)
        self._budget.set_limit(symbols.weight_limit)
        if symbols.unknown_statuses - self._unknown_statuses:
            self._unknown_statuses |= symbols.unknown_statuses
            log.warning(
                "symbols.unknown_status",
                market=self._market.value,
                statuses=sorted(symbols.unknown_statuses),
                taken_as=Status.HALTED.value,
            )
        return symbols

    async def instruments(self) -> list[Instrument]:
        """The instruments of `symbol_list`.

        Raises:
            ExchangeError: see `Http.get`.
        """
        return (await self.symbol_list()).instruments

    async def klines(
        self,
        symbol: str,
        interval: Interval,
        *,
        start_ms: int,
        end_ms: int,
        price_scale: int,
        qty_scale: int,
        purpose: Purpose = Purpose.BACKFILL,
    ) -> Candles:
        """All pages of `kline_pages` in one array.

        Raises:
            ExchangeError: see `Http.get`.
        """
        pages = self.kline_pages(
            symbol,
            interval,
            start_ms=start_ms,
            end_ms=end_ms,
            price_scale=price_scale,
            qty_scale=qty_scale,
            purpose=purpose,
        )
        return kline_rows.join([candles async for candles in pages])

    async def kline_pages(
        self,
        symbol: str,
        interval: Interval,
        *,
        start_ms: int,
        end_ms: int,
        price_scale: int,
        qty_scale: int,
        purpose: Purpose = Purpose.BACKFILL,
    ) -> AsyncIterator[Candles]:
        """The exchange's closed candles that open in `[start_ms, end_ms)`, ascending, page by page.

        Slot 0, origin EXCHANGE, source API, ids -1. VERIFIED is set where the candle had settled (10 s after its close) when it was
        asked for. Scales are at least those given; a row with more digits has wider ones.

        What is absent between two candles was absent between two rows of one answer. What is absent before the first and after the
        last is not proven: a page that ends early is asked for again, from its last row on, and believed to end there for no more
        than that the next answer has nothing further.

        Raises:
            ExchangeError: see `Http.get`.
        """
        end_ms = min(end_ms, interval.open_at(self._now_ms()))
        cursor_ms, last_ms, ended = start_ms, -1, False
        # `ended`: the answer before ended early, or began late; this one goes on from its last row, so that one answer spans both.
        while (rows_left := count_opens(interval, cursor_ms, end_ms)) > 0:
            limit, weight = kline_rows.page(self._market, rows_left)
            overlaps = ended and last_ms >= 0
            if overlaps:
                limit, weight = kline_rows.page(self._market, rows_left + 1)
                cursor_ms = last_ms
            first_ms = cursor_ms

            def parse(
                body: bytes, asked_ms: int, first_ms: int = first_ms, overlaps: bool = overlaps
            ) -> kline_rows.KlinePage:
                page = kline_rows.parse_rows(
                    body,
                    interval,
                    start_ms=first_ms,
                    end_ms=end_ms,
                    asked_ms=asked_ms,
                    price_scale=price_scale,
                    qty_scale=qty_scale,
                )
                if overlaps and page.first_open_ms > first_ms:
                    raise MalformedMessage(
                        f"klines of {symbol} {interval}: the row of {first_ms} was told before and is gone"
                    )
                return page

            params: Params = {
                "symbol": symbol,
                "interval": interval.name,
                "startTime": first_ms,
                "endTime": end_ms - 1,
                "limit": limit,
            }
            answer = await self._http.get("/klines", params, parse, weight=weight, purpose=purpose)
            self._note_left_out(symbol, interval, answer)
            if last_ms >= 0 and answer.first_open_ms > cursor_ms and not ended:
                # Something is absent right behind the page before: no one answer has shown it between two rows.
                ended = True
                continue
            news = answer.candles[answer.candles["open_ms"] > last_ms]
            if len(news):
                yield news
            if answer.last_open_ms <= last_ms:
                if ended:
                    return
                ended = True
                await self._clock.sleep(AGAIN_S)
                continue
            last_ms = answer.last_open_ms
            cursor_ms = interval.next_open(interval.open_at(last_ms))
            ended = answer.rows < limit
            if ended and cursor_ms < end_ms:
                await self._clock.sleep(AGAIN_S)

    def _note_left_out(self, symbol: str, interval: Interval, answer: kline_rows.KlinePage) -> None:
        if answer.off_grid:
            self.off_grid_rows += answer.off_grid
            log.warning("rest.klines_off_grid", symbol=symbol, interval=interval.name, rows=answer.off_grid)
        if answer.repeated:
            self.repeated_rows += answer.repeated
            log.warning("rest.klines_repeated", symbol=symbol, interval=interval.name, rows=answer.repeated)

    async def agg_trades(
        self,
        symbol: str,
        *,
        from_id: int | None = None,
        start_ms: int | None = None,
        end_ms: int | None = None,
        limit: int = agg_trade_rows.LIMIT,
        purpose: Purpose = Purpose.REPAIR,
    ) -> Trades:
        """One answer of aggregate trades, ascending by id, slot 0, at the scale each needs.

        From `from_id` on (included), or made in `[start_ms, end_ms)`, or the latest. To page, ask from the last id + 1: a
        busy millisecond has more trades than an answer. USDT-M keeps 48 hours.

        Raises:
            ExchangeError: see `Http.get`; `RequestRejected` with code -4166 for trades that are no longer kept.
        """
        assert from_id is None or (start_ms is None and end_ms is None)
        assert 0 < limit <= agg_trade_rows.LIMIT
        wanted = {
            "fromId": from_id,
            "startTime": start_ms,
            "endTime": None if end_ms is None else end_ms - 1,
            "limit": limit,
        }
        params: Params = {"symbol": symbol, **{key: value for key, value in wanted.items() if value is not None}}
        return await self._http.get(
            "/aggTrades", params, agg_trade_rows.parse_rows, weight=agg_trade_rows.WEIGHT[self._market], purpose=purpose
        )


def count_opens(interval: Interval, start_ms: int, end_ms: int) -> int:
    """How many candles of the interval open in `[start_ms, end_ms)`."""
    if interval.step_ms == MONTH_STEP:
        return sum(1 for _ in interval.opens(start_ms, end_ms))
    first_ms = interval.open_at(start_ms - 1) + interval.step_ms
    return max(0, -(-(end_ms - first_ms) // interval.step_ms))
