"""What `klagg status` says of a database."""

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from klagg.cli import main
from klagg.errors import StoreError
from klagg.interval import MINUTE, MINUTE_MS
from klagg.model import Flag, Gap, Instrument, Market, Origin, Status, no_candles
from klagg.status import database_status, status_lines
from klagg.store import Commit, open_store

OPEN_MS = 1_753_900_000_000 // MINUTE_MS * MINUTE_MS
NOW_MS = OPEN_MS + 3 * MINUTE_MS + 5_000


@pytest.fixture
def db(tmp_path: Path) -> str:
    """One usdm instrument with a verified, an unmatched and a partial minute, a gap, and an owner."""
    url = str(tmp_path / "k.db")
    with closing(open_store(url, mode="create")) as store:
        ids = store.put_instruments([Instrument(Market.USDM, "BTCUSDT", Status.TRADING, 1, 3)], OPEN_MS)
        store.set_intervals(Market.USDM, [MINUTE])
        claim = store.claim(Market.USDM, owner="host:1", now_ms=NOW_MS)
        candles = no_candles(3)
        candles["interval"] = MINUTE.code
        candles["open_ms"] = OPEN_MS + np.arange(3) * MINUTE_MS
        candles["origin"] = [Origin.EXCHANGE, Origin.UNMATCHED, Origin.PARTIAL]
        candles["flags"] = [Flag.CLOSED | Flag.VERIFIED, Flag.CLOSED, Flag.CLOSED]
        candles["price_scale"], candles["qty_scale"] = 1, 3
        candles["first_id"] = candles["last_id"] = -1
        for name in ("open", "high", "low", "close"):
            candles[name] = 1_000
        store.commit(
            Commit(
                claim=claim,
                shards=range(256),
                closed_upto_ms=OPEN_MS + 3 * MINUTE_MS,
                instrument_ids=np.full(3, ids["BTCUSDT"], np.int64),
                candles=candles,
                gaps=[Gap(Market.USDM, "", OPEN_MS - MINUTE_MS, OPEN_MS, "memory bound")],
            )
        )
    return url


def test_it_counts_what_the_database_holds(db: str) -> None:
    found = database_status(db, NOW_MS)
    (market,) = found.markets
    assert (market.market, market.symbols, market.intervals, market.series) == ("usdm", 1, ["1m"], 1)
    assert market.origins == {"partial": 1, "exchange": 1, "unmatched": 1}
    assert (market.candles, market.verified, market.unverified, market.urgent) == (3, 1, 1, 1)
    assert market.newest_minute_ms == OPEN_MS + 2 * MINUTE_MS
    assert market.closed_upto_ms == OPEN_MS + 3 * MINUTE_MS
    assert market.lag_ms == 5_000
    assert market.gaps == {"open": 1, "final": 0, "repaired": 0}
    assert (market.newest_gaps[0].reason, market.newest_gaps[0].state) == ("memory bound", "open")
    assert (market.instrument_changes, market.renames) == (1, 0)
    assert found.size_bytes > 0


def test_an_owner_is_one_whose_lease_is_fresh(db: str) -> None:
    assert database_status(db, NOW_MS + 1_000).markets[0].owner == "host:1"
    later = database_status(db, NOW_MS + 60_000).markets[0]
    assert (later.owner, later.last_owner) == (None, "host:1")


def test_the_text_names_the_facts(db: str) -> None:
    text = "\n".join(status_lines(database_status(db, NOW_MS)))
    assert "owner           host:1 (epoch 1)" in text
    assert "unverified      1 (1 urgent)" in text
    assert "lag             0 min 5 s" in text
    assert "all 2025-07-30" in text


def test_an_empty_and_a_missing_database(tmp_path: Path) -> None:
    url = str(tmp_path / "empty.db")
    open_store(url, mode="create").close()
    assert "it holds nothing yet" in "\n".join(status_lines(database_status(url, NOW_MS)))
    with pytest.raises(StoreError, match="no such database"):
        database_status(str(tmp_path / "missing.db"), NOW_MS)
    assert not (tmp_path / "missing.db").exists()


def test_gaps_are_seen_by_what_became_of_them(db: str) -> None:
    with closing(open_store(db, mode="write")) as store:
        for minute in range(12):
            span = OPEN_MS + minute * MINUTE_MS, OPEN_MS + (minute + 1) * MINUTE_MS
            store.record_gap(Gap(Market.USDM, "BTCUSDT", *span, "disk full"), NOW_MS)
        # The first minute is verified, the second unmatched, the third partial: two of them are settled.
        assert len(store.settle_gaps(Market.USDM, NOW_MS)) == 2
    (market,) = database_status(db, NOW_MS).markets
    assert market.gaps == {"open": 11, "final": 0, "repaired": 2}
    assert [gap.start_ms for gap in market.newest_gaps] == [OPEN_MS + n * MINUTE_MS for n in range(11, 1, -1)]
    text = "\n".join(status_lines(database_status(db, NOW_MS)))
    assert "gaps            11 open, 0 final, 2 repaired" in text
    assert ": disk full (open)" in text


def test_the_symbols_of_a_past_time(db: str, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(open_store(db, mode="write")) as store:
        store.put_instruments([Instrument(Market.USDM, "BTCUSDT", Status.RETIRED, 1, 3, native_status="CLOSE")], NOW_MS)
    assert main(["status", "--db", db, "--at", "2025-07-30T18:00Z", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["at_ms"] == 1_753_898_400_000
    assert [(one["symbol"], one["status"], one["price_scale"]) for one in found["symbols"]["usdm"]] == [
        ("BTCUSDT", "trading", 1)
    ]
    assert main(["status", "--db", db, "--at", "2025-07-30T18:00Z"]) == 0
    assert "BTCUSDT         trading (not told), 1 and 3 digits, since its listing, told 2025" in capsys.readouterr().out
    assert main(["status", "--db", db, "--at", "2025-08-30"]) == 0
    assert "no symbol is known to have been listed then" in capsys.readouterr().out


def test_the_command_prints_json(db: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--db", db, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["markets"][0]["candles"] == 3
    assert main(["status", "--db", db, "--market", "spot"]) == 0
    assert "it holds nothing yet" in capsys.readouterr().out
