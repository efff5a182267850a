"""Every range that a request names, at its edges: the exchange's are inclusive at both ends."""

import json
from typing import Any

import numpy as np
import pytest

from klagg.interval import MINUTE_MS
from klagg.model import Flag, Market
from serve.fakes import START_MS, candle
from serve.test_address import Rig, open_rig

PREFIX = {Market.USDM: "/fapi/v1", Market.SPOT: "/api/v3"}
PATHS = [
    (Market.USDM, "klines?symbol=BTCUSDT"),
    (Market.USDM, "continuousKlines?pair=BTCUSDT&contractType=PERPETUAL"),
    (Market.SPOT, "klines?symbol=BTCUSDT"),
    (Market.SPOT, "uiKlines?symbol=BTCUSDT"),
]
CLOSED = 6
"""Closed minutes before the one that runs, which opens at `START_MS`."""
AROUND = [-(CLOSED + 1) * MINUTE_MS, *(n * MINUTE_MS + d for n in (-CLOSED, -3, -1, 0) for d in (-1, 0, 1)), MINUTE_MS]


def fill(rig: Rig) -> list[int]:
    """Six closed minutes and a running one; their opens."""
    opens = [START_MS + n * MINUTE_MS for n in range(-CLOSED, 1)]
    rig.source.minutes["BTCUSDT"] = np.concatenate(
        [candle(open_ms, 100 + n, flags=Flag.CLOSED.value) for n, open_ms in enumerate(opens[:-1])]
    )
    for one in rig.live.listings(rig.live.market).values():
        one.instrument.extra["contract_type"] = "PERPETUAL"
    rig.live.trade("BTCUSDT", 500, 2)
    return opens


async def opens_of(rig: Rig, market: Market, path: str, **asked: int | None) -> Any:
    named = "".join(f"&{name}={value}" for name, value in asked.items() if value is not None)
    _, text, _ = await rig.get(f"{PREFIX[market]}/{path}&interval=1m{named}")
    answer = json.loads(text)
    return [row[0] for row in answer] if isinstance(answer, list) else answer["code"]


@pytest.mark.parametrize(("market", "path"), PATHS)
async def test_start_and_end_are_both_included(market: Market, path: str) -> None:
    async with open_rig(market=market) as rig:
        opens = fill(rig)
        for start_ms in (None, *(START_MS + at for at in AROUND)):
            for end_ms in (None, *(START_MS + at for at in AROUND)):
                expected: Any = [t for t in opens if (start_ms or 0) <= t <= (end_ms or t)]
                if market is Market.USDM and start_ms and end_ms and start_ms > end_ms:
                    expected = -1023
                told = await opens_of(rig, market, path, startTime=start_ms, endTime=end_ms)
                assert told == expected, (start_ms, end_ms)


@pytest.mark.parametrize(("market", "path"), PATHS)
@pytest.mark.parametrize("limit", [1, 2, CLOSED, CLOSED + 1, CLOSED + 2])
async def test_a_limit_counts_the_oldest_from_a_start_and_else_the_newest(
    market: Market, path: str, limit: int
) -> None:
    async with open_rig(market=market) as rig:
        opens = fill(rig)
        assert await opens_of(rig, market, path, limit=limit) == opens[-limit:]
        assert await opens_of(rig, market, path, limit=limit, startTime=opens[0]) == opens[:limit]
        assert await opens_of(rig, market, path, limit=limit, endTime=opens[-2]) == opens[:-1][-limit:]
        assert (
            await opens_of(rig, market, path, limit=limit, startTime=opens[1], endTime=opens[-1]) == opens[1:][:limit]
        )


async def test_a_row_ends_a_millisecond_before_the_next_begins_and_spot_takes_microseconds() -> None:
    async with open_rig(market=Market.SPOT) as rig:
        opens = fill(rig)
        asked = {"startTime": opens[1] * 1_000, "endTime": opens[2] * 1_000}
        assert await opens_of(rig, Market.SPOT, "klines?symbol=BTCUSDT", **asked) == opens[1:3]
        _, text, _ = await rig.get("/api/v3/klines?symbol=BTCUSDT&interval=1m")
        assert [row[6] for row in json.loads(text)] == [open_ms + MINUTE_MS - 1 for open_ms in opens]
