"""Work of one symbol that failed for a reason nobody foresaw: it is put aside on record, and the others' goes on."""

import traceback
from collections.abc import Sequence
from typing import Final

import structlog

from klagg.errors import ClaimLost, ClockError
from klagg.model import Market
from klagg.service.recent import Recent

log = structlog.get_logger()

NAMED: Final = 10
"""Symbols named in one line of the log."""


def put_aside(recent: Recent, market: Market, symbols: Sequence[str], error: Exception) -> None:
    """Say what failed, with the traceback, and count it.

    Raises:
        ClaimLost | ClockError: ownership or the time is lost, which is not one symbol's matter.
    """
    if isinstance(error, ClaimLost | ClockError):
        raise error
    named = list(symbols[:NAMED])
    text = "".join(traceback.format_exception(error))
    log.error("symbol.put_aside", market=market.value, symbols=named, reason=repr(error), traceback=text)
    recent.keep("symbol.put_aside", f"{', '.join(named)}: {error!r}")
