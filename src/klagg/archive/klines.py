"""Archive files of klines into candles."""

import os
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from klagg import fixed
from klagg.archive import kernels
from klagg.archive.chunk import CHUNK_ROWS
from klagg.archive.layout import KLINE_COLUMNS
from klagg.archive.names import archive_name
from klagg.archive.recognise import recognise
from klagg.archive.rows import BadRow, exact, integer, split_cells, time_ms_of
from klagg.archive.text import line_blocks
from klagg.errors import FileFormatError, UsageError
from klagg.interval import BY_NAME, DAY_MS, INTERVALS, MONTH_STEP, Interval
from klagg.model import Candles, Flag, Ints, Market, Origin, Source, no_candles

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

    Candles have origin `exchange` and are closed and verified; a chunk is at one price and one quantity scale, wide
    enough for every number in it. `off_grid` counts rows whose open is no open of the interval (the exchange's archive
    has a few, after outages): they are left out.
    """

    def __init__(self, path: Path, symbol: str, interval: Interval) -> None:
        self.path = path
        self.symbol = symbol
        self.interval = interval
        self.rows = 0
        self.off_grid = 0

    def __iter__(self) -> Iterator[Candles]:
        """The file's candles.

        Raises:
            FileFormatError: a broken row: file, line and reason.

        """
        self.rows = self.off_grid = 0
        for rows, count in _row_chunks(self.path):
            candles = _candles(rows, count, self.path)
            on_grid = _on_grid(candles["open_ms"], self.interval)
            self.off_grid += count - int(np.count_nonzero(on_grid))
            candles = candles[on_grid]
            candles["interval"] = self.interval.code
            self.rows += len(candles)
            if len(candles):
                yield candles


def read_klines(
    path: str | os.PathLike[str],
    *,
    market: Market | None = None,  # noqa: ARG001 - klines look alike on every market; the caller's choice stands
    symbol: str | None = None,
    interval: Interval | None = None,
) -> KlineReader:
    """The reader of an archive file of klines.

    Args:
        path: the file, unpacked where it is gzip, zip or zstd.
        market: the market they are taken for; nothing in such a file tells it.
        symbol: where the file's name does not say it.
        interval: where neither the file's name nor the length of its rows says it.

    Raises:
        UsageError: no such file; the symbol is not known; the interval given is not the file's.
        FileFormatError: it is empty, binary, truncated, or no file of klines.

    """
    path = Path(path)
    file = recognise(path).file
    if file.kind != "klines":
        raise FileFormatError(f"{path}: the file holds trades, not klines: klagg replay reads it")
    name = archive_name(path)
    symbol = symbol or (name.symbol if name is not None else None)
    if symbol is None:
        raise UsageError(f"{path}: the file's name does not say the symbol: give --symbol")
    chunks = _row_chunks(path)
    first = next(chunks, None)
    chunks.close()
    lengths: Counter[int] = Counter()
    if first is not None:
        rows, count = first
        lengths.update((rows.times[:count, 1] - rows.times[:count, 0] + 1).tolist())
    found = _interval_of(lengths, path) if lengths else None
    said = interval or (name.interval if name is not None else None)
    if said is not None and found is not None and said is not found:
        raise UsageError(f"{path}: the rows are {found} candles, not {said}")
    chosen = found or said
    if chosen is None:
        raise UsageError(f"{path}: the file has no rows, and its name does not say the interval: give --interval")
    return KlineReader(path, symbol, chosen)


def _interval_of(lengths: Counter[int], path: Path) -> Interval:
    length = lengths.most_common(1)[0][0]
    for interval in INTERVALS:
        if interval.step_ms == length and interval.step_ms != MONTH_STEP:
            return interval
    if 28 * DAY_MS <= length <= 31 * DAY_MS:
        return BY_NAME["1M"]
    known = " ".join(BY_NAME)
    raise FileFormatError(f"{path}: rows of {length} ms are of no interval klagg knows ({known})")


def _row_chunks(path: Path) -> Generator[tuple[_Rows, int]]:
    state = np.zeros(kernels.STATE_WORDS, np.int64)
    rows = _Rows()
    for block in line_blocks(path):
        buf = np.frombuffer(block, np.uint8)
        state[kernels.POSITION] = 0
        while state[kernels.POSITION] < len(buf):
            if kernels.parse_klines(rows.times, rows.wholes, rows.fractions, rows.digits, state, buf):
                _take_odd(rows, state, block, path)
            if state[kernels.ROWS] == CHUNK_ROWS:
                yield rows, CHUNK_ROWS
                rows = _Rows()
                state[kernels.ROWS] = 0
    if state[kernels.ROWS]:
        yield rows, int(state[kernels.ROWS])


def _take_odd(rows: _Rows, state: Ints, block: bytes, path: Path) -> None:
    """Read the row at `state` plainly, and move on past it; the header is known by its first cell."""
    start = int(state[kernels.POSITION])
    end = block.index(b"\n", start)
    line = block[start:end].decode(errors="replace").removesuffix("\r")
    state[kernels.POSITION] = end + 1
    state[kernels.LINES] += 1
    if not line.strip() or line.lower().replace("_", "").startswith("opentime,"):
        return
    try:
        _put(rows, int(state[kernels.ROWS]), line)
    except BadRow as error:
        raise FileFormatError(f"{path}: line {state[kernels.LINES]}: {error}") from error
    state[kernels.ROWS] += 1


def _put(rows: _Rows, at: int, line: str) -> None:
    """One row of klines, read plainly: the kernel's twin.

    Raises:
        BadRow: it cannot be read.

    """
    cells = split_cells(line, KLINE_COLUMNS)
    count = integer(cells[8], "count")
    if count < 0:
        raise BadRow(f"count {count} is negative")
    rows.times[at] = (
        time_ms_of(integer(cells[0], "open time"), "open time"),
        time_ms_of(integer(cells[6], "close time"), "close time"),
        count,
    )
    for index, (name, cell) in enumerate(zip(_COLUMNS, _CELLS, strict=True)):
        whole, _, fraction = cells[cell].partition(".")
        exact(whole, name)
        digits = fraction.rstrip("0")
        if "e" in cells[cell].lower() or (fraction and not fraction.isascii()) or (digits and not digits.isdigit()):
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


def _candles(rows: _Rows, count: int, path: Path) -> Candles:
    """Candles at one scale, wide enough for every number.

    Raises:
        FileFormatError: the numbers of one chunk do not fit a common scale.

    """
    candles = no_candles(count)
    if count == 0:
        return candles
    digits = rows.digits[:count].max(axis=0).astype(np.int64)
    price_scale = int(digits[:4].max())
    qty_scale = int(max(digits[4], digits[6]))
    # The quote volume is a sum of products: where stripped zeros left the factors too narrow, the price is widened.
    price_scale = max(price_scale, int(max(digits[5], digits[7])) - qty_scale)
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
