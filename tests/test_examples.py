"""The examples of the Python API run: against databases, with what they show held against the data."""

import contextlib
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from client.made import END_MS, START_MS, Owner
from klagg.interval import HOUR_MS, MINUTE_MS
from klagg.model import Flag, Instrument, Market, Origin, Status, no_candles
from klagg.store import open_store

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("examples") / "klagg.db"
    owner = Owner(path)
    owner.fill()
    yield path
    owner.store.close()


def run(example: str, *arguments: str, folder: Path) -> str:
    command = [sys.executable, str(EXAMPLES / example), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_indicators(made: Path) -> None:
    shown = run("indicators.py", "klagg.db", "BTCUSDT", "5m", folder=made.parent)
    assert "500 completed candles" in shown
    assert "2024-02-02 23:55:00+00:00" in shown
    assert "NaN" not in shown


def test_waiting_for_the_barrier(made: Path) -> None:
    shown = run("wait_for_barrier.py", "klagg.db", "--boundary", str(END_MS), folder=made.parent)
    assert "3 symbols have the minute up to 2024-02-03 00:00:00 UTC" in shown
    done = subprocess.run(
        [
            sys.executable,
            str(EXAMPLES / "wait_for_barrier.py"),
            str(made),
            "--boundary",
            str(END_MS + HOUR_MS),
            "--timeout",
            "0.1",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "BarrierTimeout" in done.stderr


def test_the_backtest_does_not_look_ahead(tmp_path: Path) -> None:
    """A minute closed at 100, and was corrected to 140 half an hour later: only the naive run can know."""
    store = open_store(str(tmp_path / "klagg.db"), mode="create")
    (number,) = store.put_instruments([Instrument(Market.USDM, "BTCUSDT", Status.TRADING, 2, 3)], START_MS).values()
    minutes = no_candles(60)
    minutes["open_ms"] = START_MS + np.arange(60) * MINUTE_MS
    for name in ("open", "high", "low", "close"):
        minutes[name] = 10_000
    minutes["flags"], minutes["origin"], minutes["price_scale"] = Flag.CLOSED, Origin.PARTIAL, 2
    with store.knowing(None):
        store.write(np.full(60, number), minutes)
    corrected = minutes[20:21].copy()
    corrected["close"] = corrected["high"] = 14_000
    corrected["trades"], corrected["volume_lo"], corrected["qty_scale"], corrected["quote_lo"] = 1, 1_000, 3, 12_000_000
    corrected["first_id"] = corrected["last_id"] = -1
    corrected["flags"], corrected["origin"] = Flag.CLOSED | Flag.VERIFIED, Origin.EXCHANGE
    with store.knowing(START_MS + 50 * MINUTE_MS):
        store.write(np.full(1, number), corrected)
    store.close()
    shown = run("as_of_backtest.py", "klagg.db", "BTCUSDT", str(START_MS), str(START_MS + HOUR_MS), folder=tmp_path)
    # At 00:21 the naive run sees a close above the average; then nobody did.
    assert "2024-01-28 00:21 then 0, with today's numbers 1" in shown
    assert "60 decisions, 1 of them on numbers that were not known yet" in shown
    assert re.search(r"as of then \+0\.0000%", shown)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.name)
def test_the_notebooks_cells_run_and_nothing_they_made_is_kept(
    path: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = json.loads(path.read_text("utf-8"))
    assert notebook["nbformat"] == 4
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    monkeypatch.chdir(made.parent)
    names: dict[str, object] = {"__name__": "__main__"}
    out = io.StringIO()
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] != "code":
            continue
        assert (cell["outputs"], cell["execution_count"]) == ([], None)
        with contextlib.redirect_stdout(out):
            exec(compile(cell["source"], f"{path.name} cell {number}", "exec"), names)
    assert "verified, " in out.getvalue()
    assert names["symbols"] == ["1000SHIBUSDT", "BTCUSDT", "ETHUSDT"]
    assert len(names["frame"]) == 3 * 48  # type: ignore[arg-type]
