"""An answer of `/v1/candles` as columns."""

import json
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from klagg.errors import ServiceError
from klagg.export import Numbers
from klagg.export.arrow import arrow_schema
from klagg.export.columns import DECIMALS, TIMES

_NAMES: Final = {"open_time": "open_time_ms", "close_time": "close_time_ms", "known_time": "known_ms"}
"""The names of times in JSON."""


def of_arrow(body: bytes, numbers: Numbers) -> tuple[pa.Table, dict[str, Any]]:
    """The candles of an Arrow stream, and what it says of them.

    Raises:
        ServiceError: it is none.

    """
    try:
        table = pa.ipc.open_stream(body).read_all()
        meta = json.loads((table.schema.metadata or {})[b"klagg"])
        columns = []
        for field in arrow_schema(numbers=numbers):
            column = table[field.name]
            if field.name in DECIMALS and numbers == "float64":
                # By its text a decimal becomes the nearest float; Arrow's own cast is not always that.
                column = pc.cast(pc.cast(column, pa.string()), pa.float64())
            columns.append(column.cast(field.type))
        return pa.table(columns, schema=arrow_schema(numbers=numbers)), meta
    except (pa.ArrowInvalid, KeyError, ValueError) as error:
        raise ServiceError(
            f"the answer is no table of candles ({error}): is this a klagg service of this version?"
        ) from None


def of_json(body: bytes, numbers: Numbers) -> tuple[pa.Table, dict[str, Any]]:
    """The candles of a JSON answer, numbers with the digits that are stored, and what it says of them.

    Raises:
        ServiceError: it is none.

    """
    try:
        told = json.loads(body)
        rows, meta = told["candles"], told["meta"]
        columns = []
        schema = arrow_schema(numbers=numbers)
        for field in schema:
            values = [row[_NAMES.get(field.name, field.name)] for row in rows]
            if field.name in DECIMALS and numbers == "float64":
                values = list(map(float, values))
            columns.append(
                pa.array(values, pa.int64()).cast(field.type) if field.name in TIMES else pa.array(values, field.type)
            )
        return pa.table(columns, schema=schema), meta
    except (pa.ArrowInvalid, KeyError, TypeError, ValueError) as error:
        raise ServiceError(
            f"the answer is no list of candles ({error}): is this a klagg service of this version?"
        ) from None
