"""The file of faults: TOML, one `[[fault]]` table for each, checked before anything is played."""

import tomllib
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from klagg.errors import UsageError
from klagg.sim.faults import answers, market, messages, requests, rows, sockets, timing, trades
from klagg.sim.faults.schedule import read_span, tag_of

AnyFault = (
    sockets.Cut
    | sockets.Handshake
    | sockets.Subscription
    | sockets.ShortLife
    | sockets.Silence
    | sockets.DeafSubscription
    | trades.Duplicate
    | trades.Reorder
    | trades.Late
    | trades.Withhold
    | messages.Lose
    | messages.Malformed
    | messages.Truncated
    | messages.Oversized
    | messages.WrongSymbol
    | messages.ZeroPrice
    | requests.HttpError
    | requests.RateLimited
    | requests.Banned
    | requests.NoAnswer
    | requests.SlowAnswer
    | requests.CutAnswer
    | requests.WrongWeight
    | rows.RunningRow
    | rows.UnsettledRow
    | rows.MissingRow
    | answers.EmptyAnswer
    | answers.ShortAnswer
    | answers.OtherPage
    | answers.DoubledRow
    | answers.Disorder
    | answers.LeftOut
    | answers.ImpossibleRow
    | answers.DoubledSymbol
    | answers.MissingSymbol
    | answers.TradeRows
    | timing.TimeDown
    | timing.TimeDelay
    | timing.TimeWrong
    | timing.ClockDrift
    | timing.ClockJump
    | market.ListSymbol
    | market.Delist
    | market.StatusChange
    | market.Scale
)
KINDS: Final[dict[str, type[msgspec.Struct]]] = {tag_of(kind): kind for kind in AnyFault.__args__}
"""Every kind of fault, by its name in the file."""


def load_faults(path: Path) -> tuple[AnyFault, ...]:
    """The faults of a file.

    Raises:
        UsageError: the file cannot be read, or something in it is not as it must be; names what, and what is allowed.
    """
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        raise UsageError(f"--faults {path}: there is no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--faults {path}: cannot be read ({error})") from error
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--faults {path}: is not TOML ({error})") from error
    unknown = sorted(document.keys() - {"fault"})
    if unknown:
        raise UsageError(f"--faults {path}: {unknown[0]} is not known; write [[fault]] tables only")
    tables = document.get("fault", [])
    if not isinstance(tables, list) or not tables:
        raise UsageError(f"--faults {path}: holds no fault; write a [[fault]] table for each")
    return tuple(_read(path, number, table) for number, table in enumerate(tables, 1))


def _read(path: Path, number: int, table: object) -> AnyFault:
    where = f"--faults {path}: fault {number}"
    if not isinstance(table, dict):
        raise UsageError(f"{where}: is no table; write [[fault]]")
    values: dict[str, Any] = table
    name = values.get("kind")
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        known = ", ".join(sorted(KINDS))
        raise UsageError(f"{where}: kind is {name!r}; use one of {known}")
    allowed = [field.encode_name for field in msgspec.structs.fields(kind)]
    for key in values:
        if key != "kind" and key not in allowed:
            raise UsageError(f"{where} ({name}): {key} is not known; it takes {', '.join(sorted(allowed))}")
    try:
        return cast("AnyFault", msgspec.convert(values, kind, dec_hook=read_span))
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at `$")
        key = place.rstrip("`").lstrip(".")
        given = f"{key}: " if key else ""
        raise UsageError(f"{where} ({name}): {given}{reason[:1].lower()}{reason[1:]}") from error
