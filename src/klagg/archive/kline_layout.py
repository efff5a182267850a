"""The columns of a file of klines: by their names where it has a header, else as the exchange's archive has them."""

import csv
from dataclasses import dataclass
from typing import Final

from klagg.archive.layout import UnknownLayout

FIELDS: Final = (
    *("open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "count"),
    *("taker_buy_volume", "taker_buy_quote_volume"),
)
"""What a row must tell, in the order of the archive's columns, a last one that is ignored behind them."""
_OPTIONAL: Final = "close_time"
_NAMES: Final = {name.replace("_", ""): name for name in FIELDS} | {
    "quoteassetvolume": "quote_volume",
    "quotevol": "quote_volume",
    "trades": "count",
    "numberoftrades": "count",
    "tradecount": "count",
    "takerbuybaseassetvolume": "taker_buy_volume",
    "takerbuybasevolume": "taker_buy_volume",
    "takerbuybase": "taker_buy_volume",
    "takerbuyquoteassetvolume": "taker_buy_quote_volume",
    "takerbuyquote": "taker_buy_quote_volume",
}


@dataclass(frozen=True, slots=True)
class KlineLayout:
    """Where each of `FIELDS` stands in a row (-1 for one that is left out), how many cells a row has, the header's text."""

    places: tuple[int, ...]
    width: int
    header: str = ""

    @property
    def is_standard(self) -> bool:
        """Whether the columns are those of the exchange's archive, which the kernel reads."""
        return self.places == STANDARD.places and self.width == STANDARD.width


STANDARD: Final = KlineLayout(tuple(range(len(FIELDS))), len(FIELDS) + 1)


def split(line: str) -> list[str]:
    """The cells of a line, without their quotes and blanks."""
    cells = next(csv.reader([line])) if '"' in line else line.split(",")
    return [cell.strip() for cell in cells]


def is_header(line: str) -> bool:
    """Whether a line names the columns of klines."""
    names = {_known(cell) for cell in split(line)}
    return "open_time" in names and len({"open", "high", "low", "close"} & names) > 1


def is_row(line: str) -> bool:
    """Whether a line is a row of klines as the archive has them, numbers in all its cells."""
    cells = split(line)
    return len(cells) == STANDARD.width and all(_is_number(cell) for cell in cells)


def layout_of(line: str) -> KlineLayout:
    """The layout of a file by its first line.

    Raises:
        UnknownLayout: a needed column is not named, or one is named twice.

    """
    if not is_header(line):
        return STANDARD
    names = [_known(cell) for cell in split(line)]
    for field in FIELDS:
        if names.count(field) > 1:
            raise UnknownLayout(f"the header names two columns for {field}")
    missing = [field for field in FIELDS if field not in names and field != _OPTIONAL]
    if missing:
        raise UnknownLayout(f"the header names no column for {', '.join(missing)}: not a file of the exchange's klines")
    places = tuple(names.index(field) if field in names else -1 for field in FIELDS)
    return KlineLayout(places, len(names), line)


def _known(cell: str) -> str:
    return _NAMES.get("".join(letter for letter in cell.lower() if letter.isalnum()), "")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.isascii()
