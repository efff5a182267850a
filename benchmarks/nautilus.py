"""The peer: nautilus_trader's time bars, an optional extra of the benchmarks."""

from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version

from benchmarks.core import no_garbage
from benchmarks.market import START_MS, Market

SPECS = ("1-MINUTE", "5-MINUTE", "30-MINUTE", "1-HOUR", "4-HOUR", "1-DAY", "1-WEEK")
"""klagg's default intervals."""
NOT_INSTALLED = "nautilus_trader is not installed (`pip install -r requirements/bench.txt`): no peer"


def installed() -> str | None:
    """Its version, where it is installed."""
    try:
        return version("nautilus_trader")
    except PackageNotFoundError:
        return None


def name() -> str:
    return f"nautilus_trader {installed()}"


class Aggregators:
    """One time bar aggregator for each symbol and interval, and ticks made ready for them.

    Their timers are set and never fire: what is timed is the trades alone, as it is of klagg.
    """

    def __init__(self, market: Market, count: int) -> None:
        from nautilus_trader.common.component import TestClock
        from nautilus_trader.data.aggregation import TimeBarAggregator
        from nautilus_trader.model.data import BarType, TradeTick
        from nautilus_trader.model.enums import AggressorSide
        from nautilus_trader.model.identifiers import TradeId
        from nautilus_trader.model.objects import Price, Quantity

        clock = TestClock()
        clock.set_time(START_MS * 1_000_000)
        instruments = [
            _instrument(number, int(price_scale), int(qty_scale))
            for number, (price_scale, qty_scale) in enumerate(zip(market.price_scales, market.qty_scales, strict=True))
        ]
        self.bars = 0
        handlers: list[list[Callable[[object], None]]] = [
            [
                TimeBarAggregator(
                    instrument, BarType.from_str(f"{instrument.id}-{spec}-LAST-INTERNAL"), self._count, clock
                ).handle_trade_tick
                for spec in SPECS
            ]
            for instrument in instruments
        ]
        sides = (AggressorSide.BUYER, AggressorSide.SELLER)
        self.fed = []
        for trade in market.trades[:count]:
            instrument = instruments[trade["slot"]]
            at_ns = int(trade["time_ms"]) * 1_000_000
            tick = TradeTick(
                instrument.id,
                Price(trade["price"] / 10 ** int(trade["price_scale"]), instrument.price_precision),
                Quantity(trade["qty"] / 10 ** int(trade["qty_scale"]), instrument.size_precision),
                sides[trade["buyer_is_maker"]],
                TradeId(str(trade["agg_id"])),
                at_ns,
                at_ns,
            )
            self.fed.append((handlers[trade["slot"]], tick))

    def _count(self, _bar: object) -> None:
        self.bars += 1

    def seconds(self, start: int, end: int, clock: Callable[[], float]) -> float:
        """How long these ticks take, every interval of their symbol served; each may be fed once only."""
        fed = self.fed[start:end]
        with no_garbage():
            started = clock()
            for handlers, tick in fed:
                for handle in handlers:
                    handle(tick)
            return clock() - started


def _instrument(number: int, price_precision: int, size_precision: int):  # noqa: ANN202 - a type of the optional peer
    from nautilus_trader.model.currencies import BTC, USDT
    from nautilus_trader.model.identifiers import InstrumentId, Symbol
    from nautilus_trader.model.instruments import CurrencyPair
    from nautilus_trader.model.objects import Price, Quantity

    return CurrencyPair(
        instrument_id=InstrumentId.from_str(f"SYM{number}.BINANCE"),
        raw_symbol=Symbol(f"SYM{number}"),
        base_currency=BTC,
        quote_currency=USDT,
        price_precision=price_precision,
        size_precision=size_precision,
        price_increment=Price(10**-price_precision, price_precision),
        size_increment=Quantity(10**-size_precision, size_precision),
        ts_event=0,
        ts_init=0,
    )


def seconds_a_trade(market: Market, count: int, rounds: int, clock: Callable[[], float]) -> Iterator[float]:
    """Its time for one trade in seven intervals: `rounds` times, over the next `count` trades each."""
    aggregators = Aggregators(market, count * rounds)
    for start in range(0, count * rounds, count):
        yield aggregators.seconds(start, start + count, clock) / count
