"""The way in: what is named, a database or a service."""

import os

from klagg.client.reader import Reader

TIMEOUT_S = 30.0
"""How long an answer of a service is waited for."""


def open(  # noqa: A001 - the verb people expect
    url: str | os.PathLike[str], *, market: str | None = None, token: str | None = None, timeout: float = TIMEOUT_S
) -> Reader:
    """Read a database (a path, `sqlite:///relative.db`) or a running service (`http://127.0.0.1:8420`).

    Args:
        url: the path or the address.
        market: `usdm` or `spot`; by default the only one that is there, else usdm.
        token: the token of a service that asks for one; by default `KLAGG_SERVE_TOKEN`.
        timeout: how many seconds an answer of a service is waited for.

    Raises:
        UsageError: an unknown scheme, or a market that is not there.
        StoreError: no such database, or it cannot be read.
        ServiceError: the service cannot be reached.

    """
    text = os.fspath(url)
    if text.lower().startswith(("http://", "https://")):
        from klagg.client.service import ServiceReader

        return ServiceReader(text, market, token or os.environ.get("KLAGG_SERVE_TOKEN"), timeout)
    from klagg.client.database import DatabaseReader

    return DatabaseReader(text, market)
