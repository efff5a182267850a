"""How a second export knows what has changed: each file carries the digest of the candles it was written from.

The digest is computed in the database, some times as quickly as the candles are read; a file that carries the same one, made by
the same options, is left as it is. What is written is digested before it is read, so candles that change meanwhile make the next
run write the file again.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from klagg.export.source import Source

KEY: Final = "klagg"
"""The name under which a file's schema carries it."""
_LAYOUT: Final = 1
"""Raised whenever the same candles would be written otherwise."""


def fingerprint(source: Source, start_ms: int, end_ms: int, options: Mapping[str, object]) -> str | None:
    """What tells the candles of a range, and how they are written, from others; None where there is none."""
    digest = source.store.digest(
        source.instrument_id, source.series.interval, start_ms, end_ms, as_of_ms=source.as_of_ms
    )
    if digest[0] == 0:
        return None
    told = {"layout": _LAYOUT, "unmatched": source.unmatched, "as_of_ms": source.as_of_ms, **options}
    return json.dumps({**told, "digest": digest}, sort_keys=True)


def carried(path: Path, format_name: Literal["parquet", "arrow"]) -> str | None:
    """The fingerprint of a file; None where there is no such file, it is not whole, or it carries none."""
    try:
        if format_name == "parquet":
            schema = pq.read_schema(path)
        else:
            with pa.memory_map(str(path)) as file:
                schema = pa.ipc.open_file(file).schema
    except (OSError, pa.ArrowInvalid):
        return None
    found = (schema.metadata or {}).get(KEY.encode())
    return None if found is None else str(found, "utf-8")
