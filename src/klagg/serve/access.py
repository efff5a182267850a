"""Who may read: a token where it is asked for, the host's own names where it is not, and pages of this address only.

Clients that can be given nothing but a base URL send the token as the password of one: `http://klagg:TOKEN@host:8420`.
"""

import base64
import binascii
import hmac
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from klagg.errors import UsageError

OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})
"""What anybody may ask: a supervisor's questions, whose answers tell nothing else."""
MIN_TOKEN: Final = 16
_LOCAL_HOST: Final = re.compile(r"(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?", re.ASCII | re.IGNORECASE)
"""The whole of a Host header: a parser of addresses takes `[::1].elsewhere` for `::1`."""


@dataclass(frozen=True, slots=True)
class Denied:
    """A request that is refused before anything looks at it."""

    status: int
    message: str


@dataclass(frozen=True, slots=True)
class Access:
    """The rules of one address. Without a token it is for this host alone, unless it is `open_to_all`."""

    token: str | None = None
    open_to_all: bool = False

    @classmethod
    def for_host(cls, host: str, token: str | None, *, open_to_all: bool) -> "Access":
        """The rules for an address to listen on.

        Raises:
            UsageError: others can reach it, and neither a token nor the leave to do without one is given; or a short token.

        """
        if token is not None and len(token) < MIN_TOKEN:
            raise UsageError(f"the token has {len(token)} characters: give one of at least {MIN_TOKEN}")
        if token is None and not open_to_all and not is_loopback(host):
            raise UsageError(
                f"--serve {host}: others can reach this address: set a token (KLAGG_SERVE_TOKEN), give --serve-open "
                "where everybody may read, or serve on 127.0.0.1"
            )
        return cls(token, open_to_all)

    def denied(self, path: str, headers: Mapping[str, str], *, websocket: bool = False) -> Denied | None:
        """Why a request is refused, if it is. `headers`: lower-case names."""
        if websocket and not _same_origin(headers):
            return Denied(403, "Pages of other addresses may not connect.")
        if self.token is not None:
            if path in OPEN_PATHS or self._knows_token(headers.get("authorization", "")):
                return None
            return Denied(401, "A token is asked for: send it as Authorization: Bearer TOKEN.")
        if not self.open_to_all and not _LOCAL_HOST.fullmatch(headers.get("host", "")):
            # A page elsewhere may have its own name resolved to this host: then the name gives it away.
            return Denied(403, "This address serves its own host only: ask it as 127.0.0.1 or localhost.")
        return None

    def _knows_token(self, authorization: str) -> bool:
        assert self.token is not None
        scheme, _, given = authorization.partition(" ")
        if scheme.lower() == "basic":
            try:
                given = base64.b64decode(given, validate=True).decode().partition(":")[2]
            except (binascii.Error, ValueError):
                return False
        elif scheme.lower() != "bearer":
            return False
        return hmac.compare_digest(given.strip().encode(), self.token.encode())


def is_loopback(host: str) -> bool:
    """Whether only this host can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _same_origin(headers: Mapping[str, str]) -> bool:
    """Whether a WebSocket is opened by no page (programs send no Origin), or by a page of this address."""
    origin = headers.get("origin")
    if origin is None:
        return True
    try:
        return urlsplit(origin).netloc == headers.get("host", "")
    except ValueError:
        return False
