"""Commands that come with a later version: a call of one says so, whatever follows its name."""

from collections.abc import Callable
from typing import Annotated, Final, NoReturn

from cyclopts import Parameter

from klagg.errors import UsageError

INSTEAD: Final = {
    "tail": "read the newest candles with klagg export, or by the database's view candles",
}
"""What to do until then, by command."""


def later(name: str) -> Callable[..., NoReturn]:
    """The command of that name."""

    def command(
        *words: Annotated[str, Parameter(allow_leading_hyphen=True, help="Anything.")],  # noqa: ARG001 - whatever follows
    ) -> NoReturn:
        raise UsageError(f"klagg {name} comes with a later version; until then: {INSTEAD[name]}")

    command.__doc__ = "Comes with a later version."
    return command
