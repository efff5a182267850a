import csv
import json
from pathlib import Path

import pytest

from klagg.errors import FileFormatError
from klagg.model import Market
from klagg.sim import ExchangeSettings
from klagg.sim.calendar import MINUTE_MS
from klagg.sim.recording import load_recordings
from klagg.sim.venue import Venue
from sim import witness
from sim.client import START_MS, Open

OFFICIAL = [
    (Market.USDM, "usdm_BTCUSDT_20240808_trade.jsonl.gz", "usdm_BTCUSDT_20240808_klines_1m.csv", "1m", 5),
    (Market.USDM, "usdm_ETHUSDT_20240718-19_trade.jsonl.gz", "usdm_ETHUSDT_20240718-19_klines_1m.csv", "1m", 7),
    (Market.USDM, "usdm_TRXUSDT_20250304_trade.csv.gz", "usdm_TRXUSDT_20250304_klines_1m.csv", "1m", 15),
    (Market.SPOT, "spot_BTCUSDT_20240808-09_trade.jsonl.gz", "spot_BTCUSDT_20240808-09_klines_5m.csv", "5m", 2),
]


@pytest.mark.parametrize(("market", "trades", "klines", "interval", "whole"), OFFICIAL)
def test_a_recordings_candles_are_the_exchanges(
    shared_data: Path, market: Market, trades: str, klines: str, interval: str, whole: int
):
    settings = ExchangeSettings(market=market, replay=(shared_data / trades,))
    tape, contracts, start_ms = load_recordings(settings)
    venue = Venue(settings, start_ms, contracts, tape)
    block = tape.hour(contracts[0], start_ms // 3_600_000)
    venue.set_offset(3_600_000)
    with (shared_data / klines).open() as file:
        official = [row for row in csv.reader(file) if row[0].isdigit()]
    last_ms = max(
        int(block.time_ms[-1]), int(tape.hour(contracts[0], start_ms // 3_600_000 + 1).time_ms.max(initial=0))
    )
    # The first trade's candle is not covered whole, nor is the last one's unless the recording reaches its end.
    covered = [row for row in official if int(row[0]) > start_ms and int(row[6]) - 500 < last_ms]
    assert len(covered) >= whole
    for row in covered:
        ours = venue.klines(contracts[0].symbol, interval, int(row[0]), int(row[0]) + 1)[0]
        theirs = [int(row[0]), *row[1:6], int(row[6]), row[7], int(row[8]), *row[9:11], "0"]
        assert witness.of_row(ours) == witness.of_row(theirs)


async def test_a_replay_is_served_live_and_at_another_time(open_exchange: Open, tmp_path: Path):
    path = tmp_path / "trades.jsonl"
    common = {"e": "aggTrade", "s": "ABCUSDT", "q": "2"}
    lines = [
        common | {"a": 7 + n, "p": f"{10 + n}.50", "f": n, "l": n, "T": 1_000_000 + n * 500, "m": n % 2 == 0}
        for n in range(40)
    ]
    path.write_text("\n".join(f"123456 {json.dumps(line)}" for line in lines))
    client = await open_exchange(replay=(path,), start_ms=START_MS, speed=60.0)
    async with client.connect("/market/ws/abcusdt@aggTrade") as socket:
        got = [json.loads((await socket.receive()).data) for _ in range(30)]
    assert [row["a"] for row in got] == list(range(got[0]["a"], got[0]["a"] + 30))
    assert (got[0]["T"] - 1_000_000) % 500 == 0
    assert START_MS <= got[0]["T"] < START_MS + 2 * MINUTE_MS
    info = await client.get("/fapi/v1/exchangeInfo")
    assert [(row["symbol"], row["pricePrecision"]) for row in info["symbols"]] == [("ABCUSDT", 1)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hello world\n1,2\n", "line 2"),
        ('{"e":"trade","s":"A"}\n', "line 1"),
        ("", "holds no trades"),
        ('{"e":"kline"}\n', "holds no trades"),
    ],
)
def test_what_is_no_recording_is_named(tmp_path: Path, text: str, words: str):
    path = tmp_path / "ABCUSDT.txt"
    path.write_text(text)
    with pytest.raises(FileFormatError, match=words):
        load_recordings(ExchangeSettings(replay=(path,)))
