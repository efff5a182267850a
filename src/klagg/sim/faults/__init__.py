"""Faults that the offline exchange plays: what goes wrong between an exchange and its clients, when, and how often.

The exchange's own candles stay true: faults change what clients are sent, never what happened. Only a market change (a
listing, a halt, a finer grid) is part of the truth itself.

`schedule` says when a fault plays, `playing` draws lots from the seed and counts; one module for each group: `sockets`,
`trades`, `messages`, `requests`, `rows`, `answers`, `timing`, `market`; `file` reads and checks the TOML, `faults` puts all together.
"""

from klagg.sim.faults.faults import Faults
from klagg.sim.faults.file import AnyFault, load_faults

__all__ = ["AnyFault", "Faults", "load_faults"]
