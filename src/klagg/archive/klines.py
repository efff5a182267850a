"""Archive files of klines into candles."""

import os
from collections import Counter
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from klagg import fixed
from klagg.archive import kernels
from klagg.archive.chunk import CHUNK_ROWS
from klagg.archive.kline_layout import KlineLayout, layout_of, split
from klagg.archive.layout import UnknownLayout
from klagg.archive.names import archive_name, refuse_microseconds, refuse_other_klines, refuse_other_market
from klagg.archive.recognise import recognise
from klagg.archive.rows import BadRow, exact, integer, plain, time_ms_of
from klagg.archive.seconds import SECOND_MS, fold_seconds
from klagg.archive.text import line_blocks
from klagg.errors import FileFormatError, UsageError
from klagg.interval import BY_NAME, DAY_MS, INTERVALS, MINUTE, MONTH_STEP, Interval
from klagg.model import Candles, Flag, Ints, Market, Origin, Source, no_candles
from klagg.plausible import impossible

_COLUMNS: Final = (
    "open",
    "high",
    "low",
    "close",
    "volume",
    "quote volume",
    "taker buy volume",
    "taker buy quote volume",
)
_CELLS: Final = (1, 2, 3, 4, 5, 7, 9, 10)
_PRICES: Final = ("open", "high", "low", "close")
_BASE: Final = {"volume": 4, "taker_volume": 6}
_QUOTE: Final = {"quote": 5, "taker_quote": 7}


class _Rows:
    """Room for the numbers of one chunk, as `kernels.parse_klines` fills it."""

    def __init__(self) -> None:
        self.times: Ints = np.zeros((CHUNK_ROWS, 3), np.int64)
        self.wholes: Ints = np.zeros((CHUNK_ROWS, 8), np.int64)
        self.fractions: Ints = np.zeros((CHUNK_ROWS, 8), np.int64)
        self.digits: npt.NDArray[np.uint8] = np.zeros((CHUNK_ROWS, 8), np.uint8)


class KlineReader:
    """The candles of one file of klines, in chunks; each iteration reads the file from its beginning.

    Candles have origin `exchange` and are closed and verified by the archive; a chunk is at one price and one quantity scale, wide
    enough for every number in it. `off_grid` counts rows whose open is no open of the interval (the exchange's archive
    has a few, after outages): they are left out. Klines of a second are folded to the minutes that they fill whole.
    """

    def __init__(
        self, path: Path, symbol: str, interval: Interval, layout: KlineLayout, *, seconds: bool, end_ms: int | None
    ) -> None:
        self.path = path
        self.symbol = symbol
        self.interval = interval
        self.seconds = seconds
        """Whether its rows are seconds."""
        self.rows = 0
        self.off_grid = 0
        self.broken_minutes = 0
        """Minutes left out that their seconds do not fill."""
        self.repeated = 0
        """Rows left out that say again what another one said."""
        self.contradicting: list[int] = []
        """Opens of which the file has different rows."""
        self.unproven_ms: int | None = None
        """The open of the last candle, where nothing shows that it was over when the file was made."""
        self._layout = layout
        self._end_ms = end_ms

    def __iter__(self) -> Iterator[Candles]:
        """The file's candles, as its rows have them.

        Raises:
            FileFormatError: a broken row: file, line and reason; or rows that are no candles of trades at all.

        """
        self.rows = self.off_grid = self.broken_minutes = 0
        if self.seconds:
            candles = self._folded()
            if len(candles):
                yield candles
            return
        judged = False
        for rows, count in _row_chunks(self.path, self._layout):
            candles = _candles(rows, count, self.path)
            on_grid = _on_grid(candles["open_ms"], self.interval)
            self.off_grid += count - int(np.count_nonzero(on_grid))
            candles = candles[on_grid]
            candles["interval"] = self.interval.code
            self.rows += len(candles)
            if len(candles):
                if not judged:
                    _refuse_other_kinds(candles, self.path)
                    judged = True
                yield candles

    def whole(self) -> Candles:
        """All of the file's candles, ascending, one of each open.

        A candle of which the file has different rows, and a last one that may still have been running when the file was made,
        are not verified: the exchange is asked.

        Raises:
            FileFormatError: as iterating.

        """
        chunks = list(self)
        self.repeated, self.contradicting, self.unproven_ms = 0, [], None
        if not chunks:
            return no_candles()
        rows = np.concatenate(chunks)
        rows = rows[np.argsort(rows["open_ms"], kind="stable")]
        again = np.flatnonzero(rows["open_ms"][1:] == rows["open_ms"][:-1]) + 1
        for at in again.tolist():
            if _same(rows[at - 1], rows[at]):
                self.repeated += 1
            elif (open_ms := int(rows["open_ms"][at])) not in self.contradicting:
                self.contradicting.append(open_ms)
        kept: Candles = np.delete(rows, again - 1)
        doubtful = np.isin(kept["open_ms"], self.contradicting)
        last_ms = int(kept["open_ms"][-1])
        if not self.seconds and self.interval.next_open(last_ms) != self._end_ms:
            self.unproven_ms = last_ms
            doubtful[-1] = True
        kept["flags"][doubtful] = Flag.CLOSED
        return kept

    def _folded(self) -> Candles:
        """Minutes of seconds, at one scale."""
        price_scale = qty_scale = 0
        for rows, count in _row_chunks(self.path, self._layout):
            scales = _scales(rows, count)
            price_scale, qty_scale = max(price_scale, scales[0]), max(qty_scale, scales[1])
        least = price_scale, qty_scale
        found = [_candles(rows, count, self.path, least) for rows, count in _row_chunks(self.path, self._layout)]
        seconds = np.concatenate(found)
        _refuse_other_kinds(seconds, self.path)
        candles, self.broken_minutes = fold_seconds(seconds)
        self.rows = len(seconds)
        return candles


def _refuse_other_kinds(candles: Candles, path: Path) -> None:
    """Refuse rows none of which can be a candle of trades: prices of an index, or amounts of another kind of contract.

    Raises:
        FileFormatError: file and reason.

    """
    found = impossible(candles)
    if len(found) == len(candles):
        raise FileFormatError(
            f"{path}: none of its rows can be a candle of trades ({found[0][1]}): these are mark, index or premium prices, or "
            "coin-margined contracts; klagg reads klines of spot and USDT-M trades"
        )


def _same(one: np.void, other: np.void) -> bool:
    """Whether two candles have equal numbers, whatever their scales."""
    return numbers_of(one) == numbers_of(other)


def numbers_of(row: np.void) -> tuple[Fraction, ...]:
    """The numbers of a candle that a kline has, exactly."""
    price, qty = 10 ** int(row["price_scale"]), 10 ** int(row["qty_scale"])
    sums = {"volume": qty, "taker_volume": qty, "quote": price * qty, "taker_quote": price * qty}
    totals = (Fraction(fixed.join(int(row[f"{name}_hi"]), int(row[f"{name}_lo"])), by) for name, by in sums.items())
    return (*(Fraction(int(row[name]), price) for name in _PRICES), *totals, Fraction(int(row["trades"])))


def read_klines(
    path: str | os.PathLike[str],
    *,
    market: Market | None = None,
    symbol: str | None = None,
    interval: Interval | None = None,
    insists: bool = True,
) -> KlineReader:
    """The reader of an archive file of klines.

    Args:
        path: the file, unpacked where it is gzip, zip or zstd.
        market: the market they are taken for; refused where the path or the rows say that they are of another.
        symbol: where the file's name does not say it.
        interval: where neither the file's name nor the length of its rows says it.
        insists: whether somebody chose the market; else times in microseconds, which spot's archive has, are not believed to be
            of another.

    Raises:
        UsageError: no such file; the symbol is not known; the interval given is not the file's; another market than the file's.
        FileFormatError: it is empty, binary, truncated, no file of klines, or of klines of something else than trades.

    """
    path = Path(path)
    refuse_other_klines(path)
    file = recognise(path).file
    if file.kind != "klines":
        raise FileFormatError(f"{path}: the file holds trades, not klines: klagg replay reads it")
    name = archive_name(path)
    symbol = symbol or (name.symbol if name is not None else None)
    if symbol is None:
        raise UsageError(f"{path}: the file's name does not say the symbol: give --symbol")
    if market is not None:
        refuse_other_market(path, symbol, market)
    try:
        layout = layout_of(_first_line(path))
    except UnknownLayout as error:
        raise FileFormatError(f"{path}: {error}") from error
    chunks = _row_chunks(path, layout)
    first = next(chunks, None)
    chunks.close()
    if first is not None and market is Market.USDM and not insists:
        refuse_microseconds(path, _first_time(path, layout), market)
    said = interval or (name.interval if name is not None else None)
    length = _length_of(first) if first is not None else None
    if length == SECOND_MS and (said is None or said is MINUTE):
        return KlineReader(path, symbol, MINUTE, layout, seconds=True, end_ms=None)
    found = _interval_of(length, path) if length else None
    if said is not None and found is not None and said is not found:
        raise UsageError(f"{path}: the rows are {found} candles, not {said}")
    chosen = found or said
    if chosen is None:
        raise UsageError(f"{path}: neither its rows nor its name say the interval: give --interval")
    end_ms = None if name is None else name.end_ms
    return KlineReader(path, symbol, chosen, layout, seconds=False, end_ms=end_ms)


def _first_time(path: Path, layout: KlineLayout) -> str:
    """The open time of the first row, as it is written."""
    blocks = line_blocks(path)
    lines = (line.decode(errors="replace") for line in next(blocks).split(b"\n", 1_000))
    blocks.close()
    rows = [line for line in lines if line.strip() and line.rstrip("\r") != layout.header]
    return split(rows[0])[layout.places[0]] if rows else ""


def _length_of(first: tuple[_Rows, int]) -> int | None:
    """What most rows of a chunk last, or how far most of them are apart where they tell no close time."""
    rows, count = first
    told = rows.times[:count]
    lengths = (told[:, 1] - told[:, 0] + 1)[told[:, 1] >= 0] if (told[:, 1] >= 0).any() else np.diff(told[:, 0])
    return Counter(lengths.tolist()).most_common(1)[0][0] if len(lengths) else None


def _interval_of(length: int, path: Path) -> Interval:
    for interval in INTERVALS:
        if interval.step_ms == length and interval.step_ms != MONTH_STEP:
            return interval
    if 28 * DAY_MS <= length <= 31 * DAY_MS:
        return BY_NAME["1M"]
    known = " ".join(BY_NAME)
    raise FileFormatError(
        f"{path}: rows of {length} ms are of no interval klagg knows ({known}, and 1s, folded to minutes)"
    )


def _first_line(path: Path) -> str:
    blocks = line_blocks(path)
    lines = next(blocks).split(b"\n", 1_000)
    blocks.close()
    return next((line for line in lines if line.strip()), b"").decode(errors="replace").rstrip("\r")


def _row_chunks(path: Path, layout: KlineLayout) -> Generator[tuple[_Rows, int]]:
    state = np.zeros(kernels.STATE_WORDS, np.int64)
    rows = _Rows()
    for block in line_blocks(path):
        buf = np.frombuffer(block, np.uint8)
        state[kernels.POSITION] = 0
        while state[kernels.POSITION] < len(buf):
            # The kernel reads the archive's own columns; every other row and file is read plainly.
            if not layout.is_standard or kernels.parse_klines(
                rows.times, rows.wholes, rows.fractions, rows.digits, state, buf
            ):
                _take_odd(rows, state, block, path, layout)
            if state[kernels.ROWS] == CHUNK_ROWS:
                yield rows, CHUNK_ROWS
                rows = _Rows()
                state[kernels.ROWS] = 0
    if state[kernels.ROWS]:
        yield rows, int(state[kernels.ROWS])


def _take_odd(rows: _Rows, state: Ints, block: bytes, path: Path, layout: KlineLayout) -> None:
    """Read the row at `state` plainly, and move on past it; the header is the text that it was recognised by."""
    start = int(state[kernels.POSITION])
    end = block.index(b"\n", start)
    line = block[start:end].decode(errors="replace").removesuffix("\r")
    state[kernels.POSITION] = end + 1
    state[kernels.LINES] += 1
    if not line.strip() or line == layout.header:
        return
    try:
        _put(rows, int(state[kernels.ROWS]), line, layout)
    except BadRow as error:
        raise FileFormatError(f"{path}: line {state[kernels.LINES]}: {error}") from error
    state[kernels.ROWS] += 1


def _put(rows: _Rows, at: int, line: str, layout: KlineLayout) -> None:
    """One row of klines, read plainly: the kernel's twin.

    Raises:
        BadRow: it cannot be read.

    """
    told = split(line)
    if len(told) != layout.width:
        raise BadRow(f"{len(told)} columns where {layout.width} are expected")
    cells = [told[place] if place >= 0 else "" for place in layout.places]
    count = integer(cells[8], "count")
    if count < 0:
        raise BadRow(f"count {count} is negative")
    rows.times[at] = (
        time_ms_of(integer(cells[0], "open time"), "open time"),
        time_ms_of(integer(cells[6], "close time"), "close time") if cells[6] else -1,
        count,
    )
    for index, (name, cell) in enumerate(zip(_COLUMNS, _CELLS, strict=True)):
        number = plain(cells[cell], name)
        if number.startswith("-") and number.strip("-0."):
            raise BadRow(f"{name} {cells[cell][:40]} is negative: these are no candles of trades")
        whole, _, fraction = number.lstrip("-").partition(".")
        exact(whole, name)
        digits = fraction.rstrip("0")
        if (fraction and not fraction.isascii()) or (digits and not digits.isdigit()):
            raise BadRow(f"{name} {cells[cell][:40]!r} is not a plain decimal number")
        if len(digits) > fixed.MAX_SCALE:
            raise BadRow(f"{name} {cells[cell][:40]!r} has more than {fixed.MAX_SCALE} decimal places")
        rows.wholes[at, index] = int(whole)
        rows.fractions[at, index] = int(digits or "0")
        rows.digits[at, index] = len(digits)


def _on_grid(open_ms: Ints, interval: Interval) -> npt.NDArray[np.bool_]:
    if interval.step_ms == MONTH_STEP:
        return np.array([interval.is_open(int(t)) for t in open_ms], np.bool_)
    on_grid: npt.NDArray[np.bool_] = (open_ms - interval.anchor_ms) % interval.step_ms == 0
    return on_grid


def _scales(rows: _Rows, count: int) -> tuple[int, int]:
    """The price and the quantity scale that are wide enough for every number of a chunk."""
    digits = rows.digits[:count].max(axis=0).astype(np.int64)
    price_scale = int(digits[:4].max())
    qty_scale = int(max(digits[4], digits[6]))
    # The quote volume is a sum of products: where stripped zeros left the factors too narrow, the price is widened.
    return max(price_scale, int(max(digits[5], digits[7])) - qty_scale), qty_scale


def _candles(rows: _Rows, count: int, path: Path, least: tuple[int, int] = (0, 0)) -> Candles:
    """Candles at one scale, at least the one given, wide enough for every number.

    Raises:
        FileFormatError: the numbers of one chunk do not fit a common scale.

    """
    candles = no_candles(count)
    if count == 0:
        return candles
    price_scale, qty_scale = (max(one, other) for one, other in zip(_scales(rows, count), least, strict=True))
    quote_scale = price_scale + qty_scale
    whole = rows.wholes[:count]
    if quote_scale > fixed.MAX_SCALE or int(whole[:, :4].max()) >= fixed.MANTISSA_LIMIT // fixed.POW10[price_scale]:
        raise FileFormatError(f"{path}: prices and volumes have together more than {fixed.MAX_SCALE} decimal places")
    candles["origin"] = Origin.EXCHANGE
    candles["flags"] = Flag.CLOSED | Flag.VERIFIED
    candles["source"] = Source.ARCHIVE
    candles["price_scale"] = price_scale
    candles["qty_scale"] = qty_scale
    candles["open_ms"] = rows.times[:count, 0]
    candles["trades"] = rows.times[:count, 2]
    candles["first_id"] = candles["last_id"] = -1
    pow10 = np.array(fixed.POW10, np.int64)

    def fraction(index: int, scale: int) -> Ints:
        widened: Ints = rows.fractions[:count, index] * pow10[scale - rows.digits[:count, index].astype(np.int64)]
        return widened

    for index, name in enumerate(_PRICES):
        candles[name] = whole[:, index] * pow10[price_scale] + fraction(index, price_scale)
    for scale, columns in ((qty_scale, _BASE), (quote_scale, _QUOTE)):
        for name, index in columns.items():
            # whole * 10**scale in two words: its upper digits, and the rest beside the fraction.
            split = pow10[fixed.MAX_SCALE - scale]
            candles[f"{name}_hi"] = whole[:, index] // split
            candles[f"{name}_lo"] = whole[:, index] % split * pow10[scale] + fraction(index, scale)
    return candles
