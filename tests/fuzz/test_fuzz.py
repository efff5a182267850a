"""The decoders under made, mutated and random bytes; and every case that a fuzzer once found."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from fuzz.seeds import MAKERS
from fuzz.targets import TARGETS

CASES = sorted(path for path in (Path(__file__).parent / "cases").glob("*/*") if path.is_file())
EXAMPLES = {"trade_files": 120, "kline_files": 120, "configuration": 150}
QUICK = 500


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What is refused here is refused in masses: nobody reads that log."""
    with capture_logs():
        yield


@pytest.mark.parametrize("case", CASES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_was_found_once(case: Path) -> None:
    TARGETS[case.parent.name](case.read_bytes())


@pytest.mark.parametrize("target", TARGETS)
def test_samples_changed(target: str) -> None:
    @settings(max_examples=EXAMPLES.get(target, QUICK), deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, 2**63))
    def run(seed: int) -> None:
        TARGETS[target](MAKERS[target](random.Random(seed)))

    run()


@pytest.mark.parametrize("target", TARGETS)
def test_bytes_at_random(target: str) -> None:
    @settings(max_examples=EXAMPLES.get(target, QUICK) // 3, deadline=None)
    @given(st.binary(max_size=200))
    def run(data: bytes) -> None:
        TARGETS[target](data)

    run()
