"""The native API, `/v1`: what the exchange's own forms have no place for.

Where each candle comes from, whether it is verified, its revisions, what was known at an instant, any interval, a whole market at
one instant; and with every answer how much of it is verified and what is missing.
"""
