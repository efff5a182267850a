"""Candles that are complete, true, durable and on time."""

__version__ = "0.1.0"
