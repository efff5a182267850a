"""Recorded trades as a market: reads recordings with its own plain reader and serves them as a tape.

Understood, also as .gz and .zip: JSON lines of `trade` and `aggTrade` events (raw or combined, with or without a receive
time before them, other events and the stream's URL passed over) and of REST aggregate rows; CSV of Binance's archives
(`trades`, `aggTrades`, with or without header) and of a recorder whose header names the columns.
"""

import csv
import gzip
import io
import itertools
import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from klagg.errors import FileFormatError
from klagg.sim.block import Block
from klagg.sim.calendar import HOUR_MS, MINUTE_MS
from klagg.sim.contracts import Contract
from klagg.sim.settings import ExchangeSettings

_QUOTES: Final = ("USDT", "USDC", "FDUSD", "BUSD", "USD_PERP", "USD", "BTC", "ETH", "BNB", "TRY", "EUR")
_SYMBOL_IN_NAME: Final = re.compile(r"[A-Z0-9]{5,}(?:_PERP|_\d{6})?")
_HEADERS: Final = {
    "symbol": ("symbol",),
    "agg_id": ("agg_trade_id",),
    "trade_id": ("tradeid", "id", "trade_id"),
    "price": ("price",),
    "qty": ("quantity", "qty"),
    "first_id": ("first_trade_id",),
    "last_id": ("last_trade_id",),
    "time": ("transactiontime", "transact_time", "time"),
    "maker": ("isbuyermarketmaker", "is_buyer_maker"),
    "kind": ("xunknownparameter",),
}
_AGG_COLUMNS: Final = ("agg_id", "price", "qty", "first_id", "last_id", "time", "maker")
_TRADE_COLUMNS: Final = ("trade_id", "price", "qty", "", "time", "maker")


@dataclass(frozen=True, slots=True)
class _Trade:
    """One recorded trade; `agg_id` is -1 for a single trade, whose id is both `first_id` and `last_id`."""

    symbol: str
    agg_id: int
    price: str
    qty: str
    first_id: int
    last_id: int
    time_ms: int
    maker: bool


class RecordedTape:
    """The trades of recordings; nothing before the first and nothing after the last."""

    def __init__(self, blocks: dict[str, Block]) -> None:
        self._blocks = blocks

    def hour(self, contract: Contract, hour: int) -> Block:
        """See `Tape`."""
        block = self._whole(contract)
        return block.between(hour * HOUR_MS, (hour + 1) * HOUR_MS)

    def hour_of_id(self, contract: Contract, agg_id: int) -> int:
        """See `Tape`."""
        block = self._whole(contract)
        place = min(int(np.searchsorted(block.agg_id, agg_id, "left")), len(block) - 1)
        return int(block.time_ms[place]) // HOUR_MS if len(block) else 0

    def first_trade_ms(self, contract: Contract) -> int | None:
        """See `Tape`."""
        block = self._whole(contract)
        return int(block.time_ms[0]) if len(block) else None

    def last_price_before(self, contract: Contract, t_ms: int) -> int | None:
        """See `Tape`."""
        block = self._whole(contract)
        count = int(np.searchsorted(block.time_ms, t_ms, "left"))
        return int(block.price[count - 1]) if count else None

    def forget(self, contract: Contract) -> None:
        """See `Tape`: nothing is derived."""

    def _whole(self, contract: Contract) -> Block:
        block = self._blocks.get(contract.symbol, Block.empty())
        if not len(block):
            return block
        end_ms = int(block.time_ms[-1]) + 1 if contract.retired_ms is None else contract.retired_ms
        return block.between(contract.listed_ms, end_ms)


def load_recordings(settings: ExchangeSettings) -> tuple[RecordedTape, list[Contract], int]:
    """The tape, the contracts and the start instant of the recordings in the settings.

    Without a `start_ms` the market has the recordings' own time (the first one's, where they are aligned); with one they
    are moved by whole minutes to begin there.

    Raises:
        FileFormatError: a file cannot be read, or holds no trades.
    """
    by_symbol: dict[str, list[_Trade]] = {}
    end_ms: int | None = None
    for path in settings.replay:
        trades = list(_read(path))
        if not trades:
            raise FileFormatError(f"{path}: holds no trades; give recorded trades or aggregate trades")
        last_ms = max(trade.time_ms for trade in trades)
        end_ms = last_ms if end_ms is None else end_ms
        align_ms = settings.replay_align_ms
        move_ms = (end_ms - last_ms) // align_ms * align_ms if align_ms else 0
        for trade in trades:
            by_symbol.setdefault(trade.symbol, []).append(replace(trade, time_ms=trade.time_ms + move_ms))
    first_ms, last_ms = _span(by_symbol.values())
    if settings.replay_last_ms is not None:
        first_ms = max(first_ms, last_ms - settings.replay_last_ms)
    shift_ms = 0
    if settings.start_ms is not None:
        shift_ms = -((first_ms - settings.start_ms) // MINUTE_MS) * MINUTE_MS
    blocks, contracts = {}, []
    for symbol, trades in by_symbol.items():
        contract, block = _columns(symbol, trades, shift_ms)
        blocks[symbol] = block
        contracts.append(contract)
    start_ms = first_ms if settings.start_ms is None else settings.start_ms
    return RecordedTape(blocks), contracts, start_ms


def _span(recorded: Iterable[list[_Trade]]) -> tuple[int, int]:
    """The times of the first and the last trade."""
    times = [trade.time_ms for trades in recorded for trade in trades]
    return min(times), max(times)


def _columns(symbol: str, trades: Sequence[_Trade], shift_ms: int) -> tuple[Contract, Block]:
    """The contract and the trades of one symbol, each id once, in id order."""
    ordered = sorted({(t.agg_id, t.first_id): t for t in trades}.values(), key=lambda t: (t.agg_id, t.first_id))
    for before, after in itertools.pairwise(ordered):
        if after.time_ms < before.time_ms:
            raise FileFormatError(
                f"{symbol}: trade {after.first_id} has a time before that of trade {before.first_id}; "
                "the offline exchange replays only recordings whose times follow the ids"
            )
    price_decimals = max(_places(trade.price) for trade in ordered)
    qty_decimals = max(_places(trade.qty) for trade in ordered)
    first = ordered[0]
    # Trades that are no market trades are left out, so single trades get aggregate ids of their own, without holes.
    ids = [t.agg_id if t.agg_id >= 0 else first.first_id + place for place, t in enumerate(ordered)]
    columns = (
        ids,
        [_whole(trade.price, price_decimals) for trade in ordered],
        [_whole(trade.qty, qty_decimals) for trade in ordered],
        [trade.first_id for trade in ordered],
        [trade.last_id for trade in ordered],
        [trade.time_ms + shift_ms for trade in ordered],
        [int(trade.maker) for trade in ordered],
    )
    quote = next((quote for quote in _QUOTES if symbol.endswith(quote)), "")
    contract = Contract(
        symbol=symbol,
        base=symbol.removesuffix(quote),
        quote=quote,
        price_decimals=price_decimals,
        tick=1,
        qty_decimals=qty_decimals,
        step=1,
        base_price=float(first.price),
        per_day=0,
        listed_ms=(first.time_ms + shift_ms) // MINUTE_MS * MINUTE_MS,
    )
    return contract, Block(*(np.array(column, np.int64) for column in columns))


def _places(text: str) -> int:
    return len(text.partition(".")[2].rstrip("0"))


def _whole(text: str, decimals: int) -> int:
    whole, _, fraction = text.partition(".")
    return int(whole + fraction.rstrip("0").ljust(decimals, "0"))


def _read(path: Path) -> Iterator[_Trade]:
    """The market trades of one file."""
    try:
        with path.open("rb") as file:
            magic = file.read(2)
        if magic == b"PK":
            with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as member:
                yield from _parse(path, io.TextIOWrapper(member, "utf-8"))
        else:
            opener = gzip.open if magic == b"\x1f\x8b" else open
            with opener(path, "rt", encoding="utf-8") as lines:
                yield from _parse(path, lines)
    except (OSError, EOFError, UnicodeDecodeError, zipfile.BadZipFile) as error:
        raise FileFormatError(f"{path}: cannot be read as recorded trades ({error}); check the file") from error


def _parse(path: Path, lines: Iterator[str]) -> Iterator[_Trade]:
    names: tuple[str, ...] | None = None
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or "wss://" in text:
            continue
        try:
            brace = text.find("{")
            if brace >= 0:
                trade = _from_json(json.loads(text[brace:]), path)
            else:
                cells = next(csv.reader([text]))
                if not cells[0][:1].isdigit():
                    names = _named(cells)
                    continue
                names = names or (_AGG_COLUMNS if cells[5][:1].isdigit() else _TRADE_COLUMNS)
                trade = _from_cells(dict(zip(names, cells, strict=False)), path)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise FileFormatError(f"{path}: line {number} is not a recorded trade ({error!r})") from error
        if trade is not None:
            yield trade


def _named(cells: list[str]) -> tuple[str, ...]:
    """The columns of a header in our words."""
    return tuple(next((ours for ours, theirs in _HEADERS.items() if cell.lower() in theirs), "") for cell in cells)


def _from_json(message: dict[str, Any], path: Path) -> _Trade | None:
    data = message.get("data", message)
    if not isinstance(data, dict) or data.get("e", "aggTrade") not in ("trade", "aggTrade"):
        return None
    symbol = data.get("s") or _symbol_of(path)
    if "a" in data and "f" in data:
        return _market_trade(
            _Trade(
                symbol, int(data["a"]), data["p"], data["q"], int(data["f"]), int(data["l"]), int(data["T"]), data["m"]
            ),
            "MARKET",
        )
    trade_id = int(data["t"])
    trade = _Trade(symbol, -1, data["p"], data["q"], trade_id, trade_id, int(data["T"]), data["m"])
    return _market_trade(trade, data.get("X", "MARKET"))


def _from_cells(cells: dict[str, str], path: Path) -> _Trade | None:
    time = int(cells["time"])
    time_ms = time // 1_000 if time >= 10**14 else time
    maker = cells["maker"].lower() in ("1", "true")
    symbol = cells.get("symbol") or _symbol_of(path)
    if "agg_id" in cells:
        first, last, agg_id = int(cells["first_id"]), int(cells["last_id"]), int(cells["agg_id"])
    else:
        first = last = int(cells["trade_id"])
        agg_id = -1
    trade = _Trade(symbol, agg_id, cells["price"], cells["qty"], first, last, time_ms, maker)
    return _market_trade(trade, cells.get("kind", "MARKET"))


def _market_trade(trade: _Trade, kind: str) -> _Trade | None:
    """The trade, unless the exchange counts it in no candle."""
    return trade if kind == "MARKET" and float(trade.price) > 0 and float(trade.qty) > 0 else None


def _symbol_of(path: Path) -> str:
    """The symbol in a file's name, for rows that do not say theirs."""
    match = _SYMBOL_IN_NAME.search(path.name.replace("-", " ").replace("_2", " 2"))
    if match is None:
        raise ValueError("neither the row nor the file's name has a symbol")
    return match[0]
