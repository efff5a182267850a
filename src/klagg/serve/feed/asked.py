"""What a reader of the feed asks for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from klagg.serve.feed.filter import Filter, filter_of
from klagg.serve.native.problem import Problem
from klagg.serve.source import Live

PARAMETERS: Final = frozenset(
    {"since", "market", "symbols", "symbol", "intervals", "interval", "kinds", "open", "candles", "access_token"}
)
_TRUE: Final = {"true": True, "1": True, "include": True, "false": False, "0": False, "exclude": False, "": False}


@dataclass(frozen=True, slots=True)
class Asked:
    """Which events after which number (None: from now on), whether with their candles, and whether running ones are pushed."""

    wanted: Filter
    since: int | None
    full: bool
    with_running: bool


def asked(live: Live, query: Mapping[str, str | None], last_event_id: str | None = None) -> Asked:
    """The parameters of a feed; `Last-Event-ID` goes before `since`: it is what the reader saw last.

    Raises:
        Problem: one of them cannot be.

    """
    since = seq_of(last_event_id, "Last-Event-ID") if last_event_id else seq_of(query.get("since"), "since")
    return Asked(filter_of(live, query), since, _switch(query, "candles"), _switch(query, "open"))


def seq_of(text: str | None, parameter: str) -> int | None:
    """A sequence number.

    Raises:
        Problem: it is none.

    """
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise Problem("bad_sequence", "A sequence number is a whole number from 0 on.", 400, parameter)
    return int(text)


def _switch(query: Mapping[str, str | None], name: str) -> bool:
    value = _TRUE.get((query.get(name) or "").lower())
    if value is None:
        raise Problem("bad_parameter", f"{name} is true or false.", 400, name)
    return value
