"""The errors of the native API: a code, a sentence, and the parameter at fault."""

from typing import Any, Final

import msgspec


class Problem(Exception):
    """A request that is not answered."""

    def __init__(self, code: str, message: str, status: int = 400, parameter: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.parameter = parameter

    @property
    def body(self) -> bytes:
        """`{"error": {"code", "message", "parameter"}}`."""
        return problem_body(self.code, self.message, self.parameter)


CODES: Final = {401: "unauthorized", 403: "forbidden", 404: "not_found", 405: "method_not_allowed", 413: "too_much"}
CODES_MORE: Final = {414: "too_long", 429: "too_many_requests", 500: "internal", 503: "unavailable"}


def code_of(status: int) -> str:
    """The code of what is refused before a request is looked at."""
    return (CODES | CODES_MORE).get(status, "bad_request")


def problem_body(code: str, message: str, parameter: str | None = None) -> bytes:
    """The body of an error."""
    error: dict[str, Any] = {"code": code, "message": message, "parameter": parameter}
    return msgspec.json.encode({"error": error})


def is_native(path: str) -> bool:
    """Whether a path's errors are the native ones."""
    return path.startswith(("/v1/", "/udf/"))
