"""Candles that are complete, true, durable and on time.

`klagg.open` reads a database or a running service: see docs/PYTHON.md. What `__init__.pyi` lists is imported when it is first
used, so that `import klagg` costs nothing.
"""

from importlib import import_module

__version__ = "0.1.0"

_ERRORS = (
    *("KlaggError", "UsageError", "NumberError", "StoreError", "StoreUnavailable", "MalformedRow", "ServiceError"),
    "BarrierTimeout",
)
_CLIENT = (
    *(
        "Barrier",
        "BarrierEvent",
        "CandleEvent",
        "CandleKind",
        "Candles",
        "CutEvent",
        "Event",
        "Feed",
        "Gap",
        "GapEvent",
    ),
    *("Kind", "MarketStatus", "Missing", "Reader", "Status", "Symbol", "SymbolEvent", "open"),
)
_HOME = dict.fromkeys(_ERRORS, "klagg.errors") | dict.fromkeys(_CLIENT, "klagg.client")

__all__ = ["__version__", *_HOME]  # noqa: PLE0604 - names of strings


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'klagg' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
