"""One REST request as the exchange understands it: parameters, and the errors it answers with."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

import msgspec

from klagg.interval import MINUTE_MS

MICROSECONDS_FROM: Final = 10**14
"""A time at or above this is in microseconds (spot takes both)."""
MAX_PARAMETERS: Final = 32
_NUMBER: Final = re.compile(r"[0-9]{1,19}", re.ASCII)
_ZONE: Final = re.compile(r"([+-]?)(\d{1,2})(?::([0-5]\d))?", re.ASCII)


class Refused(Exception):
    """A request that is not answered: the HTTP status, the exchange's code and message."""

    def __init__(self, code: int, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status

    @property
    def body(self) -> bytes:
        """The exchange's error body."""
        return msgspec.json.encode({"code": self.code, "msg": self.message})


def missing(name: str) -> Refused:
    """A mandatory parameter is not there."""
    return Refused(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")


def invalid(name: str) -> Refused:
    """A parameter's value cannot be."""
    return Refused(-1130, f"Data sent for parameter '{name}' is not valid.")


def illegal(name: str, legal: str) -> Refused:
    """A parameter holds what it must not."""
    return Refused(-1100, f"Illegal characters found in parameter '{name}'; legal range is '{legal}'.")


@dataclass(frozen=True, slots=True)
class Query:
    """The parameters of a request, each once, and the time unit of its answer (1: ms, 1000: µs)."""

    params: Mapping[str, str]
    unit: int = 1

    @classmethod
    def read(cls, query_string: bytes, unit: int = 1) -> tuple["Query", Refused | None]:
        """The query of a URL, and what is wrong with it: it is charged for all the same."""
        try:
            text = query_string.decode("ascii")
            pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_PARAMETERS, errors="strict")
        except (ValueError, UnicodeError):
            return cls({}, unit), Refused(-1101, "Too many parameters, or parameters that are not valid UTF-8.")
        query = cls(dict(pairs), unit)
        if len(query.params) != len(pairs):
            return query, Refused(-1101, "Duplicate values for a parameter detected.")
        return query, None

    def required(self, name: str) -> str:
        """A parameter that must be there."""
        value = self.params.get(name)
        if value is None:
            raise missing(name)
        if not value:
            raise Refused(-1105, f"Parameter '{name}' was empty.")
        return value

    def number(self, name: str) -> int | None:
        """An integer parameter, or None where it is not given."""
        if name not in self.params:
            return None
        value = self.required(name)
        if not _NUMBER.fullmatch(value):
            raise illegal(name, "^[0-9]{1,20}$")
        return int(value)

    def time_ms(self, name: str) -> int | None:
        """A time parameter in milliseconds."""
        value = self.number(name)
        return value // 1_000 if value is not None and value >= MICROSECONDS_FROM else value

    def symbols(self) -> list[str] | None:
        """The symbols that `symbol` or `symbols` names; None for all."""
        if "symbol" in self.params:
            return [self.required("symbol")]
        if "symbols" not in self.params:
            return None
        try:
            names = msgspec.json.decode(self.params["symbols"], type=list[str])
        except msgspec.MsgspecError:
            names = []
        if not names:
            raise illegal("symbols", r'^\[("[A-Z0-9-_.]{1,20}"(,"[A-Z0-9-_.]{1,20}"){0,}){0,1}\]$')
        return names

    def zone_ms(self) -> int:
        """`timeZone`: hours, or hours and minutes, from -12:00 to +14:00."""
        match = _ZONE.fullmatch(self.params.get("timeZone", "0").strip())
        if match is None:
            raise invalid("timeZone")
        minutes = (int(match[2]) * 60 + int(match[3] or 0)) * (-1 if match[1] == "-" else 1)
        if not -12 * 60 <= minutes <= 14 * 60:
            raise invalid("timeZone")
        return minutes * MINUTE_MS


def json_list(items: Iterable[bytes]) -> bytes:
    """A JSON array of encoded items."""
    return b"[" + b",".join(items) + b"]"
