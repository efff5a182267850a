"""History into the database: minutes from the exchange or from archive files, the longer candles folded from them.

`rest` fetches from the exchange what `plan` lays out, `stored` is its work in the database, `files` brings archives and
recordings that `sources` found, `gaps` finds the minutes that are not there between others, `differences` tells where two
sources have other numbers for one candle; `patience` waits for a busy database.
"""

from klagg.backfill.differences import Difference, Differences
from klagg.backfill.files import FileProgress, backfill_files
from klagg.backfill.patience import patiently, patiently_blocking
from klagg.backfill.rest import backfill, prepare
from klagg.backfill.sources import find_files
from klagg.backfill.summary import BackfillSummary, FileSummary, OnRepaired, Pace, Progress

__all__ = [
    "BackfillSummary",
    "Difference",
    "Differences",
    "FileProgress",
    "FileSummary",
    "OnRepaired",
    "Pace",
    "Progress",
    "backfill",
    "backfill_files",
    "find_files",
    "patiently",
    "patiently_blocking",
    "prepare",
]
