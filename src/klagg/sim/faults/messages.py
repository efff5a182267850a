"""Messages of the stream that are harmed on their way: lost, malformed, cut short, too long, of another symbol, without a price."""

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Annotated, Final

import msgspec

from klagg.sim.faults.playing import Playing
from klagg.sim.faults.schedule import Fault, fits

_TRADE: Final = ("*@aggTrade", "*@trade")
_PRICE: Final = re.compile(r'"([poc])":"[^"]*"')
_SYMBOL: Final = re.compile(r'"s":"[^"]*"')
_TIME: Final = re.compile(r'"[Tt]":\d+,')
_ID: Final = re.compile(r'"([af]|t)":(\d+)')

Harm = Callable[[str], list[str]]
"""The frames that are sent in place of one."""


class MessageFault(Fault, frozen=True, kw_only=True):
    """A fault of single messages."""

    streams: tuple[str, ...] = ("*@aggTrade", "*@trade", "*@kline_*")
    """Patterns of the stream's name."""
    also: bool = False
    """Whether the message itself comes too, after the harmed one."""


class Lose(MessageFault, frozen=True, kw_only=True, tag_field="kind", tag="lose"):
    """A message never comes."""


class Malformed(MessageFault, frozen=True, kw_only=True, tag_field="kind", tag="malformed"):
    """A message is broken in one of many ways: no JSON, no UTF-8, a field missing, of a wrong type, out of range."""


class Truncated(MessageFault, frozen=True, kw_only=True, tag_field="kind", tag="truncated"):
    """A message ends in its middle."""


class Oversized(MessageFault, frozen=True, kw_only=True, tag_field="kind", tag="oversized"):
    """A message has a field of `bytes` characters that nobody asked for."""

    size: Annotated[int, msgspec.Meta(ge=1, le=100_000_000)] = 1_000_000


class WrongSymbol(MessageFault, frozen=True, kw_only=True, tag_field="kind", tag="wrong_symbol"):
    """A message names another symbol than its stream."""

    streams: tuple[str, ...] = _TRADE
    symbol: str = "NOSUCHUSDT"


class ZeroPrice(MessageFault, frozen=True, kw_only=True, tag_field="kind", tag="zero_price"):
    """A trade has the price 0."""

    streams: tuple[str, ...] = _TRADE


class MessageFaults:
    """What happens to every message of a stream, for all who listen to it alike."""

    def __init__(self, faults: Sequence[Playing[MessageFault]], passed: Callable[[], int]) -> None:
        self._faults = faults
        self._passed = passed
        self._sent: Counter[str] = Counter()

    def harm(self, stream: str) -> Harm | None:
        """What to do to the next message of a stream; None for nothing."""
        if not self._faults:
            return None
        self._sent[stream] += 1
        number = self._sent[stream]
        for playing in self._faults:
            fault = playing.fault
            if fits(stream, fault.streams) and playing.strikes(self._passed(), stream, number):
                return _harming(fault, playing.draw("how", stream, number))
        return None


def _harming(fault: MessageFault, draw: float) -> Harm:
    def harm(text: str) -> list[str]:
        return [*_harmed(fault, text, draw), *([text] if fault.also else [])]

    return harm


def _harmed(fault: MessageFault, text: str, draw: float) -> list[str]:
    match fault:
        case Malformed():
            return [_WAYS[int(draw * len(_WAYS))](text)]
        case Truncated():
            return [text[: int(draw * len(text))]]
        case Oversized():
            return [text.replace("{", f'{{"padding":"{"x" * fault.size}",', 1)]
        case WrongSymbol():
            return [_SYMBOL.sub(lambda _: f'"s":{json.dumps(fault.symbol)}', text)]
        case ZeroPrice():
            return [_PRICE.sub(r'"\1":"0.00"', text)]
        case _:
            return []


def _with_price(written: str) -> Harm:
    return lambda text: [_PRICE.sub(rf'"\1":{written}', text, count=1)]


def _one(harm: Harm) -> Callable[[str], str]:
    return lambda text: harm(text)[0]


_WAYS: Final[tuple[Callable[[str], str], ...]] = (
    lambda text: text.replace("{", "<", 1),
    lambda text: text.replace(":", ";"),
    lambda _: "upstream connect error or disconnect/reset before headers",
    lambda _: "",
    lambda _: "null",
    lambda _: "[" * 100_000,
    # A lone byte that no UTF-8 has; the socket writes it as it is.
    lambda text: text.replace('"e"', '"e\udcff"', 1),
    lambda text: text + text,
    lambda text: _TIME.sub("", text),
    lambda text: _TIME.sub('"T":-5,"t":-5,', text, count=1),
    lambda text: _ID.sub(r'"\1":99999999999999999999999999', text, count=1),
    lambda text: _ID.sub(r'"\1":"\2"', text, count=1),
    lambda text: re.sub(r'"data":\{.*', '"data":{}}', text) if '"data":{' in text else "{}",
    *(
        _one(_with_price(written))
        for written in ("12.5", "null", '"1e5"', '"-3.5"', '"NaN"', '""', '" 1"', '"0x10"', '"' + "9" * 50 + '"')
    ),
)
"""How a message can be malformed. None of them is a message of the protocol with other numbers."""
