"""P9: how long a start takes, from the process to the first live minute."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.core import CHECKOUT, Figure, Measurement, Plan, Yardstick, at_most, median, say, spread

SYMBOLS = 500
STARTS = 5
IMPORTS = 5
PEERS = ("numba", "ccxt", "nautilus_trader.data.aggregation")
LIVE = "market.live"
STAGES = ("market.claimed", "market.loaded", LIVE)
TIMEOUT_S = 180.0
MILLI = 1e3

HOW = f"""
`klagg run` as a process of its own against `klagg exchange` on the same machine, {SYMBOLS} symbols, seven intervals, on a database that
a first run has filled and left in order, kernels already compiled: the time from the spawn to the log event `{LIVE}`, after which
candles are made of every symbol. It includes calibrating, the symbol list, the claim, the load, subscribing, and the minutes since the
run before. Imports are timed inside fresh processes, by `time.perf_counter` around the statement; peers beside them. Medians.
"""


def environment() -> dict[str, str]:
    """The environment of this process, without settings of klagg."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("KLAGG_")}
    return {**own, "PYTHONPATH": os.pathsep.join([str(CHECKOUT / "src"), own.get("PYTHONPATH", "")]).rstrip(os.pathsep)}


def import_times(module: str, times: int, python: str = sys.executable) -> list[float]:
    """Milliseconds of importing it in fresh processes; none where it cannot be imported."""
    code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    spent = []
    for _ in range(times + 1):
        ended = subprocess.run([python, "-c", code], env=environment(), capture_output=True, text=True, check=False)
        if ended.returncode != 0:
            return []
        spent.append(float(ended.stdout.split()[-1]) * MILLI)
    return spent[1:]


def interpreters() -> list[str]:
    """The one that runs, and that of the tests: the peers live in either."""
    tests = CHECKOUT / ".venv" / "bin" / "python"
    return list(dict.fromkeys([sys.executable, *([str(tests)] if tests.exists() else [])]))


def peer_times(module: str, times: int) -> list[float]:
    for python in interpreters():
        spent = import_times(module, times, python)
        if spent:
            return spent
    return []


def measure_imports(plan: Plan) -> Iterator[Measurement]:
    times = plan.pick(IMPORTS, 1)
    ours = import_times("klagg", times)
    peers = {module: peer_times(module, times) for module in PEERS}
    heaviest = next((module for module in reversed(PEERS) if peers[module]), None)
    yield Measurement(
        "P9",
        "import klagg",
        median(ours),
        "ms",
        goal=at_most(100),
        peer=Yardstick(f"import {heaviest}", median(peers[heaviest])) if heaviest else None,
        samples=times,
        spread=spread(ours),
    )
    service = import_times("klagg.service.run", times)
    yield Measurement(
        "P9", "import of all that klagg run needs", median(service), "ms", samples=times, spread=spread(service)
    )
    for module, spent in peers.items():
        yield Measurement(
            "P9",
            f"import {module} (peer)",
            median(spent) if spent else None,
            "ms",
            samples=len(spent),
            spread=spread(spent) if spent else None,
            note="" if spent else "not installed",
        )


@contextlib.contextmanager
def process(arguments: Sequence[str], folder: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A klagg command that is ended, whatever happens; stderr goes to `log`."""
    command = [sys.executable, "-m", "klagg.cli", *arguments]
    with log.open("wb") as errors:
        child = subprocess.Popen(command, env=environment(), cwd=folder, stdout=subprocess.PIPE, stderr=errors)
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        assert child.stdout
        child.stdout.close()


def start_to_live(arguments: Sequence[str], folder: Path) -> dict[str, float]:
    """Start the service, and end it once it is live: the milliseconds from the spawn to each stage."""
    log = folder / "run.log"
    started = time.perf_counter()
    with process(arguments, folder, log) as child, log.open("rb") as lines:
        seen: dict[str, float] = {}
        rest = b""
        while LIVE not in seen:
            *whole, rest = (rest + lines.read()).split(b"\n")
            now = time.perf_counter()
            for line in whole:
                with contextlib.suppress(ValueError):
                    event = json.loads(line).get("event")
                    if event in STAGES:
                        seen[event] = (now - started) * MILLI
            if child.poll() is not None or now - started > TIMEOUT_S:
                raise RuntimeError(f"klagg run did not come to life: {log.read_text()[-2_000:]}")
            time.sleep(0.002)
    return seen


def measure_start(plan: Plan) -> Iterator[Measurement]:
    symbols, times = plan.pick(SYMBOLS, 3), plan.pick(STARTS, 1)
    with tempfile.TemporaryDirectory(prefix="klagg-benchmarks-") as name:
        folder = Path(name)
        exchange = ("exchange", "--port", "0", "--symbols", str(symbols), "--history", "3h")
        with process(exchange, folder, folder / "exchange.log") as child:
            assert child.stdout
            addresses = dict(child.stdout.readline().decode().split() for _ in range(2))
            run = (
                *(
                    "run",
                    "--db",
                    "start.db",
                    "--no-serve",
                    "--log-format",
                    "json",
                    "--log-level",
                    "info",
                    "--history",
                    "1m",
                ),
                *("--rest-url", addresses["rest"], "--ws-url", addresses["ws"]),
            )
            say("P9: the first run, which fills the database")
            first = start_to_live(run, folder)
            starts = [start_to_live(run, folder) for _ in range(times)]
    lives = [stages[LIVE] for stages in starts]
    noted = (f"{stage} at {median([stages[stage] for stages in starts]):,.0f} ms" for stage in STAGES[:-1])
    bare = import_times("numba", 1)
    yield Measurement(
        "P9",
        f"process start to live, {symbols} symbols, warm kernel cache",
        median(lives),
        "ms",
        goal=at_most(1_500),
        limit=Yardstick("import numba, which the engine cannot do without", median(bare)),
        samples=times,
        spread=spread(lives),
        note="; ".join(noted),
    )
    yield Measurement("P9", "the same, on a database that does not exist yet", first[LIVE], "ms")


def measure(plan: Plan) -> Iterator[Measurement]:
    yield from measure_imports(plan)
    yield from measure_start(plan)


FIGURE = Figure("P9", "Start", HOW, measure)
