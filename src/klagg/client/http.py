"""What the API needs of HTTP: GET with a token, answers whole or line by line, and a service's errors as klagg's own.

The standard library's connection: the API is synchronous, and a first answer must not cost the import of a client library.
"""

import contextlib
import http.client
import json
import socket
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from klagg.errors import ServiceError, UsageError

_WRONG: Final = range(400, 500)
_NOT_THE_QUESTION: Final = {401, 403, 408, 429}
"""What is no mistake of the question."""


class Refused(UsageError):
    """The service refuses the question: its status, and its code for programs."""

    def __init__(self, message: str, status: int, code: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Service:
    """One address: `http://HOST:PORT`, a path before it where a proxy wants one."""

    def __init__(self, url: str, token: str | None, timeout_s: float) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise UsageError(f"{url!r} is no address of a service: write http://HOST:PORT")
        self.url = url.rstrip("/")
        self.timeout_s = timeout_s
        self._token = token
        self._host, self._path = parts.hostname, parts.path.rstrip("/")
        self._make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        try:
            self._port = parts.port
        except ValueError as error:
            raise UsageError(f"{url!r} is no address of a service: {error}") from None
        self._kept: http.client.HTTPConnection | None = None

    def get(self, path: str, query: Mapping[str, object], accept: str = "application/json") -> tuple[bytes, str]:
        """The body of an answer, and its type.

        Raises:
            Refused: the question is wrong.
            ServiceError: there is no answer.

        """
        for is_last in (False, True):
            # A connection that was kept may have been closed by the service: once more on a new one.
            fresh = self._kept is None or is_last
            try:
                connection = self._connection(fresh=fresh)
                connection.request("GET", self._target(path, query), headers=self._headers(accept))
                answer = connection.getresponse()
                body = answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.close()
                if not fresh and not isinstance(error, TimeoutError):
                    continue
                raise self._unreachable(error) from None
            if answer.status != http.client.OK:
                raise self._error(answer.status, body)
            return body, answer.getheader("Content-Type", "")
        raise AssertionError

    def json(self, path: str, query: Mapping[str, object]) -> Any:  # noqa: ANN401 - whatever the service tells
        """The answer as values."""
        body, _ = self.get(path, query)
        try:
            return json.loads(body)
        except ValueError:
            raise ServiceError(f"{self.url}{path}: the answer is no JSON: is this a klagg service?") from None

    def stream(self, path: str, query: Mapping[str, object]) -> "Stream":
        """Server-sent events, on a connection of their own.

        Raises:
            Refused: the question is wrong.
            ServiceError: there is no answer.

        """
        connection = self._make(self._host, self._port, timeout=self.timeout_s)
        try:
            connection.request("GET", self._target(path, query), headers=self._headers("text/event-stream"))
            # With `Connection: close` the connection forgets its socket as soon as it has the answer.
            taken = connection.sock
            answer = connection.getresponse()
            body = None if answer.status == http.client.OK else answer.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._unreachable(error) from None
        if body is not None:
            connection.close()
            raise self._error(answer.status, body)
        return Stream(connection, answer, taken)

    def close(self) -> None:
        """Close the connection that is kept."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def _connection(self, *, fresh: bool) -> http.client.HTTPConnection:
        if fresh or self._kept is None:
            self.close()
            self._kept = self._make(self._host, self._port, timeout=self.timeout_s)
        return self._kept

    def _target(self, path: str, query: Mapping[str, object]) -> str:
        named = {name: value for name, value in query.items() if value is not None}
        return f"{self._path}{path}?{urlencode(named, quote_via=quote)}"

    def _headers(self, accept: str) -> dict[str, str]:
        return {"Accept": accept} | ({"Authorization": f"Bearer {self._token}"} if self._token else {})

    def _unreachable(self, error: Exception) -> ServiceError:
        said = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        return ServiceError(f"{self.url}: the service cannot be reached ({said}): is klagg run or klagg serve there?")

    def _error(self, status: int, body: bytes) -> Refused | ServiceError:
        try:
            told = json.loads(body)["error"]
            code, message = str(told["code"]), str(told["message"])
        except (ValueError, KeyError, TypeError):
            code, message = "", f"HTTP {status}"
        if status == http.client.UNAUTHORIZED:
            return ServiceError(f"{self.url}: it asks for its token: klagg.open(url, token=…), or KLAGG_SERVE_TOKEN")
        if status in _WRONG and status not in _NOT_THE_QUESTION:
            return Refused(message, status, code)
        return ServiceError(f"{self.url}: {message}")


class Stream:
    """An answer that goes on: its bytes, as they come."""

    def __init__(
        self, connection: http.client.HTTPConnection, answer: http.client.HTTPResponse, taken: socket.socket
    ) -> None:
        self._connection = connection
        self._answer = answer
        self._socket = taken

    def read(self, wait_s: float) -> bytes:
        """What has come, waited for at most so long; nothing at its end.

        Raises:
            ServiceError: the connection broke, or nothing came in time.

        """
        try:
            self._socket.settimeout(max(wait_s, 0.001))
            return self._answer.read1(65_536)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise ServiceError(f"the connection broke: {error}") from None

    def interrupt(self) -> None:
        """End a read that another thread is in."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self._answer.close()
        self._connection.close()
