"""The pure engine: arrays, kernels, and nothing of the outside world.

It is told trades and the time and returns candles; it knows no socket, no clock, no database.
"""
