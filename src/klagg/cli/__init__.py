"""The command line: `klagg`.

Nothing heavy is imported here or by the command modules at their top, so that `klagg --help` answers at once.
"""

import os
import sys
from collections.abc import Sequence
from typing import Final

from klagg.errors import KlaggError

EXIT_FAILURE: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130
EXIT_BROKEN_PIPE: Final = 141
DEBUG_VARIABLE: Final = "KLAGG_DEBUG"
REPORT: Final = "this is a fault of klagg: please report it with what KLAGG_DEBUG=1 prints"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: the entry point `klagg`.

    Errors become one line on stderr: 1 for a failure, 2 for wrong usage, 130 for Ctrl-C.
    """
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read stdout has left: what Python still flushes at its end must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BaseExceptionGroup as group:
        return _failed(_first(group))
    except Exception as error:  # noqa: BLE001 - the last stop: nobody gets a traceback who did not ask for one
        return _failed(error)
    return code


def _run(arguments: Sequence[str] | None) -> int:
    from cyclopts import CycloptsError

    from klagg.cli.app import app

    try:
        result = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        chain = " ".join(("klagg", *(error.command_chain or ())))
        message = _one_line(str(error)).rstrip("., ")
        print(f"klagg: {message}; see {chain} --help", file=sys.stderr)
        return EXIT_USAGE
    return result if isinstance(result, int) else 0


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _failed(error: BaseException) -> int:
    """Say what went wrong in one line; the exit code."""
    if os.environ.get(DEBUG_VARIABLE) == "1":
        import traceback

        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    if isinstance(error, KlaggError):
        print(f"klagg: {_one_line(str(error))}", file=sys.stderr)
        return error.exit_code
    print(f"klagg: unexpected {type(error).__name__}: {_one_line(str(error))} ({REPORT})", file=sys.stderr)
    return EXIT_FAILURE


def _one_line(text: str) -> str:
    return " ".join(text.split())
