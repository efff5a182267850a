"""What must hold for any bytes: no error but klagg's own, no wrong value, the same answer however the bytes come.

Each target takes bytes and raises where something does not hold. Hypothesis, the kept cases and atheris call the same ones.
"""

import contextlib
import gzip
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from fuzz import reference
from klagg.archive import open_trades, read_klines, text
from klagg.clock import ManualClock
from klagg.config import load, parse_duration_ms
from klagg.config.values import (
    SymbolFilter,
    parse_endpoint,
    parse_margin,
    parse_market,
    parse_symbol,
    parse_time_ms,
    parse_urls,
)
from klagg.errors import FileFormatError, MalformedMessage, UsageError
from klagg.exchange.discovery import Discovery
from klagg.exchange.endpoints import for_market
from klagg.exchange.klines import parse_rows
from klagg.exchange.symbols import parse_exchange_info
from klagg.exchange.wire import Decoded, decode
from klagg.interval import MINUTE
from klagg.model import Market, TradeKind
from klagg.store.url import parse_db_url

SLOTS = {"BTCUSDT": 3, "ETHUSDT": 0, "币安人生USDT": 7}
SEPARATOR = b"\x1e"
"""Between the messages of a batch: no JSON text holds this byte."""
IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
NOW_MS = 1_800_000_000_000


def exact(mantissa: object, scale: object) -> Decimal:
    """A stored number, written out so that nothing rounds."""
    return Decimal(f"{int(str(mantissa))}e-{int(str(scale))}")


def _sum(row: Any, name: str, scale: int) -> Decimal:
    return exact(int(row[f"{name}_hi"]) * 10**18 + int(row[f"{name}_lo"]), scale)


# Messages of the stream


def wire(data: bytes) -> None:
    """Trades and closing klines."""
    messages = data.split(SEPARATOR)
    batch = decode(messages, SLOTS)
    alone = [decode([message], SLOTS) for message in messages]
    assert batch.trades.tolist() == [row for each in alone for row in each.trades.tolist()]
    assert batch.klines.tolist() == [row for each in alone for row in each.klines.tolist()]
    for count in ("rejected_count", "running_klines", "passed_over"):
        assert getattr(batch, count) == sum(getattr(each, count) for each in alone), count
    assert batch.latest_event_ms == max((each.latest_event_ms for each in alone), default=0)
    for message, each in zip(messages, alone, strict=True):
        _one_message(message, each)


def _one_message(message: bytes, decoded: Decoded) -> None:
    taken = len(decoded.trades) + len(decoded.klines)
    assert taken + decoded.rejected_count + decoded.running_klines + decoded.passed_over == 1
    try:
        event = reference.payload(message)
    except reference.NotJson:
        assert taken == 0
        return
    if event is None:
        assert taken == 0
        return
    for row in decoded.trades:
        expected = reference.trade(event)
        assert SLOTS[expected.symbol] == row["slot"]
        assert (row["agg_id"], row["first_id"], row["last_id"]) == expected[1:4]
        assert exact(row["price"], row["price_scale"]) == expected.price
        assert exact(row["qty"], row["qty_scale"]) == expected.qty
        assert (row["time_ms"], bool(row["buyer_is_maker"])) == expected[6:8]
        assert (row["kind"] == TradeKind.MARKET) == expected.market
    for row in decoded.klines:
        _kline(row, event["k"])
        assert SLOTS[event["s"]] == row["slot"]
        assert event["k"]["x"] is True
    if isinstance(event.get("s"), str) and event["s"] in SLOTS and not reference.is_odd(message):
        if reference.plainly_a_trade(event):
            assert len(decoded.trades) == 1, decoded.rejected
        if reference.plainly_a_closing(event):
            assert len(decoded.klines) == 1, decoded.rejected


def _kline(row: Any, k: dict[str, Any]) -> None:
    price_scale, qty_scale = int(row["price_scale"]), int(row["qty_scale"])
    for name, key in (("open", "o"), ("high", "h"), ("low", "l"), ("close", "c")):
        assert exact(row[name], price_scale) == Decimal(k[key]), key
    for name, key in (("volume", "v"), ("taker_volume", "V")):
        assert _sum(row, name, qty_scale) == Decimal(k[key]), key
    for name, key in (("quote", "q"), ("taker_quote", "Q")):
        assert _sum(row, name, price_scale + qty_scale) == Decimal(k[key]), key
    assert (row["trades"], row["open_ms"], row["first_id"], row["last_id"]) == (k["n"], k["t"], k["f"], k["L"])


# Answers of REST


def rows(data: bytes) -> None:
    """Rows of klines."""
    try:
        page = parse_rows(
            data, MINUTE, start_ms=10**12, end_ms=NOW_MS, asked_ms=NOW_MS + 120_000, price_scale=2, qty_scale=3
        )
    except MalformedMessage:
        return
    answer = reference.load(data)
    assert page.rows == len(answer)
    told = [row for at, row in enumerate(answer) if at == 0 or row[:11] != answer[at - 1][:11]]
    assert page.repeated == len(answer) - len(told)
    usable = [row for row in told if 10**12 <= row[0] < NOW_MS and row[0] % 60_000 == 0]
    assert page.candles["open_ms"].tolist() == [row[0] for row in usable]
    for candle, row in zip(page.candles, usable, strict=True):
        names = dict(zip("ohlcv", row[1:6], strict=True)) | dict(zip("qnVQ", row[7:11], strict=True))
        _kline(candle, names | {"t": row[0], "f": -1, "L": -1})


def symbols(data: bytes) -> None:
    """Symbol lists of both markets."""
    for market in Market:
        try:
            listed = parse_exchange_info(data, market)
        except MalformedMessage:
            continue
        answer = reference.load(data)["symbols"]
        assert len(listed.instruments) + sum(listed.left_out.values()) == len(answer)
        grids = [
            (row["symbol"], [each for each in _list(row.get("filters")) if isinstance(each, dict)])
            for row in answer
            if isinstance(row, dict) and isinstance(row.get("symbol"), str)
        ]
        for instrument in listed.instruments:
            assert 0 <= instrument.price_scale <= 18
            assert 0 <= instrument.qty_scale <= 18
            scales = {
                (_grid(own, "PRICE_FILTER", "tickSize"), _grid(own, "LOT_SIZE", "stepSize"))
                for name, own in grids
                if name == instrument.symbol
            }
            assert (instrument.price_scale, instrument.qty_scale) in scales


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _grid(filters: list[dict[str, Any]], kind: str, key: str) -> int:
    for each in filters:
        if each.get("filterType") == kind:
            written = each.get(key, "0")
            if isinstance(written, str):
                whole, _, fraction = written.lstrip("+-").partition(".")
                digits = (whole + fraction.rstrip("0")).lstrip("0")
                if _decimal(written) is None or max(len(digits), len(fraction.rstrip("0"))) > 18:
                    return 0
            return min(len(written.partition(".")[2].rstrip("0")), 18) if isinstance(written, str) else 0
    return 0


class _NoList:
    async def instruments(self) -> list[Any]:
        raise NotImplementedError


def news(data: bytes) -> None:
    """Mini-tickers and contract news."""
    for market in Market:
        clock = ManualClock()
        discovery = Discovery(for_market(market), _NoList(), clock=clock, now_ms=lambda: NOW_MS)
        discovery.message(data, NOW_MS)
        if not discovery.last_price:
            continue
        answer = reference.load(data)
        tickers = answer if isinstance(answer, list) else answer["data"]
        for symbol, last in discovery.last_price.items():
            own = [row for row in tickers if isinstance(row, dict) and row.get("s") == symbol]
            assert any(
                exact(last.mantissa, last.scale) == _decimal(row["c"]) for row in own if isinstance(row.get("c"), str)
            )


def _decimal(written: str) -> Decimal | None:
    return Decimal(written) if reference.re.fullmatch(r"[+-]?[0-9]+(\.[0-9]*)?", written, reference.re.ASCII) else None


# Files


@contextlib.contextmanager
def _file(data: bytes, name: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="klagg-fuzz-", dir=IN_MEMORY) as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        yield path


@contextlib.contextmanager
def _blocks_of(size: int) -> Iterator[None]:
    usual = text.BLOCK_BYTES
    text.BLOCK_BYTES = size  # type: ignore[misc]
    try:
        yield
    finally:
        text.BLOCK_BYTES = usual  # type: ignore[misc]


def _kind_of(error: Exception, path: Path) -> str:
    """An error of the world is one line that names the file."""
    assert str(path) in str(error), error
    assert "\n" not in str(error), error
    return type(error).__name__


def _trades(path: Path) -> list[Any] | str:
    """The rows of a file, or the kind of its error: the same for any packing and any reads."""
    try:
        reader = open_trades(path, symbol="BTCUSDT")
        found: list[Any] = []
        for chunk in reader:
            found += [(reader.symbol_names[row[0]], *row[1:]) for row in chunk.trades.tolist()]
    except (FileFormatError, UsageError) as error:
        return _kind_of(error, path)
    return found


def _klines(path: Path) -> list[Any] | str:
    try:
        return [row for chunk in read_klines(path, symbol="BTCUSDT") for row in chunk.tolist()]
    except (FileFormatError, UsageError) as error:
        return _kind_of(error, path)


def trade_files(data: bytes) -> None:
    """Files of trades, plain and packed."""
    _files(data, _trades)


def kline_files(data: bytes) -> None:
    """Files of klines, plain and packed."""
    _files(data, _klines)


def _files(data: bytes, read: Callable[[Path], list[Any] | str]) -> None:
    with _file(data, "BTCUSDT-x.csv") as path:
        whole = read(path)
        for size in (1, 64):
            with _blocks_of(size):
                assert read(path) == whole, f"read in blocks of {size} bytes"
    if not data or data.startswith((b"PK", b"\x1f\x8b", b"\x28\xb5\x2f\xfd")):
        return
    with _file(gzip.compress(data, 1), "BTCUSDT-x.csv.gz") as path:
        assert read(path) == whole, "gzip"
    with tempfile.TemporaryDirectory(prefix="klagg-fuzz-") as folder:
        path = Path(folder) / "BTCUSDT-x.zip"
        with zipfile.ZipFile(path, "w") as pack:
            pack.writestr("x.csv", data)
        assert read(path) == whole, "zip"


def csv_trades(data: bytes) -> None:
    """Rows of an archive of aggregate trades, against `csv` and `Decimal`."""
    try:
        lines = data.decode("ascii").split("\n")
    except UnicodeDecodeError:
        return
    with _file(data, "BTCUSDT-aggTrades-x.csv") as path:
        found = _trades(path)
    if isinstance(found, str) or not lines[0][:1].isdigit():
        return
    rows_ = [line.rstrip("\r").split(",") for line in lines if line.strip()]
    if len(rows_[0]) not in (7, 8):
        return
    assert len(found) == len(rows_)
    for row, cells in zip(found, rows_, strict=True):
        _, price_scale, qty_scale, maker, _, number, price, qty, first_id, last_id, time_ms = row
        plain = [cell.strip().strip('"') for cell in cells]
        assert (number, first_id, last_id) == (Decimal(plain[0]), Decimal(plain[3]), Decimal(plain[4]))
        assert exact(price, price_scale) == Decimal(plain[1])
        assert exact(qty, qty_scale) == Decimal(plain[2])
        assert time_ms in (int(Decimal(plain[5])), int(Decimal(plain[5])) // 1_000)
        assert bool(maker) == (plain[6].lower() in ("true", "1"))


# Configuration


def configuration(data: bytes) -> None:
    """Settings files and environments."""
    with _file(data, "klagg.toml") as path:
        try:
            loaded = load(config=path, environment={})
        except UsageError as error:
            _kind_of(error, path)
        else:
            assert loaded.settings.markets
    try:
        written = data.decode("utf-8")
    except UnicodeDecodeError:
        return
    for name in (
        "KLAGG_MARKET",
        "KLAGG_INTERVALS",
        "KLAGG_SYMBOLS",
        "KLAGG_MARGIN_MS",
        "KLAGG_HISTORY",
        "KLAGG_WORKERS",
    ):
        with contextlib.suppress(UsageError):
            load(environment={name: written}, folder=Path("/nonexistent"))


def values(data: bytes) -> None:
    """What people write on the command line."""
    try:
        written = data.decode("utf-8")
    except UnicodeDecodeError:
        return
    for read in _READERS:
        with contextlib.suppress(UsageError):
            read(written)
    try:
        span = parse_duration_ms(written)
    except UsageError:
        return
    units = {"w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
    parts = reference.re.findall(r"([0-9.]+)(ms|[wdhms])", written.strip().lower())
    assert span == round(sum(Decimal(amount) * units[unit] for amount, unit in parts))


def _time(written: str) -> None:
    at_ms = parse_time_ms(written, NOW_MS)
    assert isinstance(at_ms, int)
    if written.strip().isascii() and written.strip().isdigit():
        assert at_ms == int(written.strip()) or len(written.strip()) == 8


def _filter(written: str) -> None:
    for market in Market:
        chosen = SymbolFilter.parse([written], market)
        assert isinstance(chosen.wants("BTCUSDT"), bool)
        with contextlib.suppress(UsageError):
            chosen.resolve(["BTCUSDT", "币安人生USDT"])


_READERS: tuple[Callable[[str], object], ...] = (
    _time,
    _filter,
    parse_market,
    lambda written: [parse_symbol(written, market) for market in Market],
    lambda written: parse_urls([written], [Market.USDM], "rest_url", ["http", "https"]),
    lambda written: parse_urls([written], list(Market), "rest_url", ["http", "https"]),
    parse_margin,
    parse_endpoint,
    parse_db_url,
)

TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (wire, rows, symbols, news, trade_files, kline_files, csv_trades, configuration, values)
}
