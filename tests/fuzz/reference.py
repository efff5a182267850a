"""What a plain reader makes of a message: `json` and `Decimal`, one at a time, nothing of klagg's.

A reference is only asked about what klagg accepted (is it the same number?) and about what is plainly well formed (was it
accepted?); in between klagg may be as strict as it likes.
"""

import json
import re
from decimal import Decimal
from typing import Any, NamedTuple

PLAIN = re.compile(r"[0-9]{1,9}(\.[0-9]{1,8})?", re.ASCII)
LARGEST_ID = 2**53
FIRST_MS, LAST_MS = 10**12, 4 * 10**12


class Trade(NamedTuple):
    symbol: str
    number: int
    first_id: int
    last_id: int
    price: Decimal
    qty: Decimal
    time_ms: int
    maker: bool
    market: bool


class Fraction(NamedTuple):
    """A number that is not whole, as it is written: no field that klagg reads may be one."""

    text: str


class NotJson(Exception):
    """Not a JSON text."""


def load(text: bytes) -> Any:
    """The JSON of a text. Bytes that are no UTF-8 may stand where nobody looks."""
    try:
        return json.loads(
            text.decode("utf-8", "replace"), parse_float=Fraction, parse_int=_whole_number, parse_constant=_no_number
        )
    except (ValueError, RecursionError) as error:
        raise NotJson from error


def _whole_number(text: str) -> int | Fraction:
    return int(text) if len(text) < 4_000 else Fraction(text)


def _no_number(text: str) -> None:
    """NaN and its like are Python's, not JSON's."""
    raise ValueError(text)


def is_odd(text: bytes) -> bool:
    """Whether an object names something twice, or a text is no text: readers differ in what they make of that."""
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return True
    twice = False

    def look(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal twice
        twice |= len(pairs) != len(dict(pairs))
        return dict(pairs)

    json.loads(text.decode("utf-8", "replace"), object_pairs_hook=look, parse_int=_whole_number)
    return twice or b"\\ud" in text.lower()


def payload(text: bytes) -> dict[str, Any] | None:
    """The event of a message, wrapped or not; None where there is none."""
    message = load(text)
    if not isinstance(message, dict):
        return None
    data = message.get("data")
    return data if isinstance(data, dict) else message


def trade(event: dict[str, Any]) -> Trade:
    """The trade that an event must mean, if it means one."""
    single = event["e"] == "trade"
    ids = (event["t"],) * 3 if single else (event["a"], event["f"], event["l"])
    price, qty = Decimal(event["p"]), Decimal(event["q"])
    market = price > 0 and qty > 0 and event.get("X") in (None, "MARKET")
    return Trade(event["s"], *ids, price, qty, event["T"], event["m"], market)


def _is_market(event: dict[str, Any]) -> bool:
    """Whether a trade, its form aside, is one of the market: of a known kind, with a price and an amount."""
    return event.get("X") in (None, "MARKET") and Decimal(event["p"]) > 0 and Decimal(event["q"]) > 0


def plainly_a_trade(event: dict[str, Any]) -> bool:
    """Whether nobody could refuse this trade for its form."""
    if event.get("e") not in ("trade", "aggTrade") or not isinstance(event.get("s"), str):
        return False
    own = ("t",) if event["e"] == "trade" else ("a", "f", "l")
    known = {"E", "a", "t", "f", "l", "T"} & event.keys()
    return (
        all(_whole(event.get(name), 0, LARGEST_ID) for name in own)
        and all(_whole(event[name], -LAST_MS, LAST_MS) for name in known - {*own})
        and (event["e"] == "trade" or event["f"] <= event["l"])
        and all(isinstance(event.get(name), str) and PLAIN.fullmatch(event[name]) for name in ("p", "q"))
        and _whole(event.get("T"), FIRST_MS, LAST_MS)
        and isinstance(event.get("m"), bool)
        and isinstance(event.get("X"), str | None)
        and (event.get("X") in ("", "NA", "INSURANCE_FUND", "ADL") or _is_market(event))
        and event.get("k") is None
        and event.get("data") is None
    )


def plainly_a_closing(event: dict[str, Any]) -> bool:
    """Whether nobody could refuse this closing push of a minute for its form."""
    k = event.get("k")
    return (
        event.get("e") == "kline"
        and isinstance(event.get("s"), str)
        and isinstance(k, dict)
        and k.get("x") is True
        and k.get("i") == "1m"
        and all(isinstance(k.get(name), str) and PLAIN.fullmatch(k[name]) for name in "ohlcvqVQ")
        and all(Decimal(k[name]) > 0 for name in "ohlc")
        and _whole(k.get("t"), FIRST_MS, LAST_MS)
        and k["t"] % 60_000 == 0
        and _whole(k.get("n"), 0, LARGEST_ID)
        and all(_whole(k.get(name), -1, LARGEST_ID) for name in "fL")
        and event.keys() <= {"e", "E", "s", "k"}
        and _whole(event.get("E", 1), -LAST_MS, LAST_MS)
    )


def _whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
