"""History into the database: minutes from the exchange or from archive files, the longer candles folded from them.

`rest` plans and fetches from the exchange, `stored` is its work in the database, `files` reads archives, `gaps` knows what
the exchange itself does not have.
"""

from klagg.backfill.files import backfill_files
from klagg.backfill.rest import backfill, prepare
from klagg.backfill.summary import BackfillSummary, FileSummary, OnRepaired, Progress

__all__ = [
    "BackfillSummary",
    "FileSummary",
    "OnRepaired",
    "Progress",
    "backfill",
    "backfill_files",
    "prepare",
]
