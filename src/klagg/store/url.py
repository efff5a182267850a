"""Database URLs: what `--db` may say."""

import re
from pathlib import Path
from typing import Final

from klagg.errors import UsageError

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(.*)", re.DOTALL)
_KNOWN: Final = "use a path, sqlite:///relative.db or sqlite:////absolute.db"


def parse_db_url(text: str) -> Path:
    """The database file that a path or a URL names.

    `relative.db`, `sqlite:///relative.db` and `sqlite:////absolute.db` are understood; a leading `~` is the home directory.

    Raises:
        UsageError: empty, an unknown scheme, a host in a sqlite URL, or a database that is not supported yet.

    """
    text = text.strip()
    if not text:
        raise UsageError(f"the database's name is empty: {_KNOWN}")
    if "\0" in text:
        raise UsageError(f"the database's name holds a zero byte: {_KNOWN}")
    match = _SCHEME.fullmatch(text)
    if match is None:
        return _at_home(text, text)
    scheme, rest = match.group(1).lower(), match.group(2)
    if scheme in ("postgresql", "postgres"):
        raise UsageError(f"{_without_password(text)}: PostgreSQL is not supported yet: {_KNOWN}")
    if scheme != "sqlite":
        raise UsageError(f"{_without_password(text)}: unknown database scheme {scheme!r}: {_KNOWN}")
    if not rest.startswith("///"):
        raise UsageError(f"{text}: a sqlite URL has three slashes and a path (four if it is absolute): {_KNOWN}")
    path = rest[3:]
    if not path or path == ":memory:":
        raise UsageError(f"{text}: names no file: {_KNOWN}")
    return _at_home(path, text)


def _at_home(path: str, text: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UsageError(f"{text}: the home directory that ~ stands for is not known: write the whole path") from None


def _without_password(url: str) -> str:
    """The URL as it may be shown."""
    return re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:***@", url)
