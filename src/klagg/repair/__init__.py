"""Repair: what is not verified is fetched from the exchange, compared or replaced, and folded on.

| module | is about |
|---|---|
| `plan` | what to ask for, cheapest first |
| `queue` | what waits: the database's unverified candles, and the spans that others ask for |
| `patience` | when what could not be settled is tried again |
| `agenda` | what is asked for next, and what is on its way |
| `holes` | missed trades, asked for by id while the engine still waits for them |
| `settling` | what an answer means for the stored candles, in one transaction |
| `planner` | what is put on the agenda, newest first |
| `repairer` | when what is asked for, what becomes of it, and who is told |
"""

from klagg.repair.repairer import OnRepaired, Repairer, RepairStats

__all__ = ["OnRepaired", "RepairStats", "Repairer"]
