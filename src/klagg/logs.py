"""Where logs go: stderr, as JSON lines, or made for reading on a terminal."""

import logging
import sys
from typing import Any, Final, Literal, TextIO, cast

import structlog


class _Stderr:
    """Whatever stands for stderr when a line is written: a live view puts itself there, to show lines above itself."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()

    def isatty(self) -> bool:
        return sys.stderr.isatty()


LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def set_up(
    log_format: Literal["json", "console"] | None = None, level: str = "info", stream: TextIO | None = None
) -> None:
    """Send every log event to `stream` (stderr); without a format, console on a terminal and JSON elsewhere.

    Events of libraries that use the standard logging are warnings at least, and come the same way.
    """
    out = cast("TextIO", stream or _Stderr())
    as_json = log_format == "json" or (log_format is None and not out.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    last: list[Any] = (
        [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
        if as_json
        else [structlog.dev.ConsoleRenderer(colors=out.isatty(), timestamp_key="time")]
    )
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    only_rendered = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name], processors=[only_rendered, *last]
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
