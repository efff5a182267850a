"""The error tree: exceptions are for the world's mistakes, `assert` is for our own.

Every message is one line that says what is wrong, where, and what to do about it; the command line prints it as it is and
exits with the error's `exit_code`.
"""


class KlaggError(Exception):
    """The root: something in the world is not as it must be."""

    exit_code = 1


class UsageError(KlaggError):
    """The command or its settings are wrong: an unknown interval, symbol, format, setting or a value of the wrong type."""

    exit_code = 2


class NumberError(KlaggError):
    """A decimal that cannot be held exactly: not a plain decimal, or more digits than 18."""


class ClockError(KlaggError):
    """The exchange's time cannot be known."""


class ExchangeError(KlaggError):
    """The exchange cannot be reached, or refuses."""


class RestrictedLocation(ExchangeError):
    """HTTP 451: the exchange does not serve this location; trying again will not help."""


class RequestRejected(ExchangeError):
    """The exchange refused one request: `http_status`, the exchange's `code` and its message."""

    def __init__(self, message: str, *, http_status: int, code: int | None = None) -> None:
        super().__init__(message)
        self.http_status = http_status
        self.code = code


class RateLimited(ExchangeError):
    """HTTP 429 or 418: no request may be sent for `wait_s` more seconds."""

    def __init__(self, message: str, *, wait_s: float) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class MalformedMessage(ExchangeError):
    """A message of the exchange that is not what its protocol says."""


class StoreError(KlaggError):
    """The database cannot be used: no database, not klagg's, of a newer version, locked, read-only, full."""


class StoreUnavailable(StoreError):
    """The database did not take this write now (locked, full, input or output error); the same write may succeed later."""


class MalformedRow(StoreError):
    """A stored row that contradicts itself; names symbol, interval, field and value."""


class ClaimRefused(StoreError):
    """Another process owns the shards and its lease is fresh."""


class ClaimLost(StoreError):
    """Another process has taken the shards over: this one must stop writing at once."""


class ServiceError(KlaggError):
    """A running service cannot be reached, or gives no answer that can be used."""


class BarrierTimeout(KlaggError, TimeoutError):
    """A barrier was waited for, and did not come in time."""


class FileFormatError(KlaggError):
    """A trade or candle file that cannot be read; names file, line number and reason."""


class NoCandles(KlaggError):
    """The database holds no candle of what was asked for; says what it holds."""
