"""The file of faults: what is in it, what is refused, when a fault's turns are."""

import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import fields

from klagg.errors import UsageError
from klagg.sim import load_faults
from klagg.sim.faults.file import KINDS
from klagg.sim.faults.schedule import Fault, Span, tag_of
from klagg.sim.faults.trades import Late

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "faults.toml"
COMMON = {"after", "for", "every", "share", "times", "market"}


def test_the_example_has_every_kind() -> None:
    faults = load_faults(EXAMPLE)
    assert {tag_of(type(fault)) for fault in faults} == KINDS.keys()
    late = next(fault for fault in faults if isinstance(fault, Late))
    assert (late.least, late.most, late.share, late.after) == (5_000, 180_000, 0.001, 0)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_page_has_every_key(kind: str) -> None:
    page = (ROOT / "docs" / "EXCHANGE.md").read_text("utf-8")
    (row,) = [line for line in page.splitlines() if line.startswith(f"| `{kind}` |")]
    own = {field.encode_name for field in fields(KINDS[kind])}
    if issubclass(KINDS[kind], Fault):
        own -= COMMON
        own -= {"paths"} if "`paths`" in page else set()
    assert {key for key in own - {"market", "every"} if f"`{key}`" not in row} - COMMON == set()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no fault"),
        ("fault = 3", "holds no fault"),
        ("[[fault]]\n", "fault 1: kind is None; use one of banned, clock_drift"),
        ("[[fault]]\nkind = 'lat'", "fault 1: kind is 'lat'"),
        (
            "[[fault]]\nkind = 'cut'\n[[fault]]\nkind = 'late'\nhow = 1",
            "fault 2 (late): how is not known; it takes after,",
        ),
        ("[[fault]]\nkind = 'late'\nshare = 2", "fault 1 (late): share: expected `float` <= 1.0"),
        ("[[fault]]\nkind = 'late'\nshare = 'x'", "fault 1 (late): share: expected `float`, got `str`"),
        ("[[fault]]\nkind = 'late'\nleast = 5", "least: 5 is no duration"),
        ("[[fault]]\nkind = 'late'\nleast = '-5s'", "least: '-5s' is no duration; write \"250ms\""),
        ("[[fault]]\nkind = 'late'\ntimes = 0", "times: expected `int` >= 1"),
        ("[[fault]]\nkind = 'late'\nmarket = 'coinm'", "market: invalid enum value 'coinm'"),
        ("[[fault]]\nkind = 'handshake'\nhow = 'late'", "how: invalid enum value 'late'"),
        ("[[fault]]\nkind = 'status'\nsymbol = 'A'\nafter = '1s'", "missing required field `for`"),
        ("[[fault]]\nkind = 'clock_drift'\nshare = 0.5", "share is not known"),
        ("seed = 3", "seed is not known"),
        ("[[fault]\n", "is not TOML"),
        ("fault = [1]", "fault 1: is no table"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "faults.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as error:
        load_faults(path)
    assert words in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_or_binary_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        load_faults(tmp_path / "none.toml")
    (tmp_path / "b").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="cannot be read"):
        load_faults(tmp_path / "b")


@given(
    after=st.integers(0, 50),
    length=st.none() | st.integers(0, 30),
    every=st.none() | st.integers(1, 40),
    until=st.integers(0, 200),
)
def test_turns_and_their_length_agree(after: int, length: int | None, every: int | None, until: int) -> None:
    fault = Fault(
        after=Span(after),
        length=None if length is None else Span(length),
        every=None if every is None else Span(every),
    )
    turns = [fault.turn_at(at) for at in range(until)]
    assert fault.active_ms(until) == sum(turn is not None for turn in turns)
    on = [turn for turn in turns if turn is not None]
    assert on == sorted(on)
    if every is None:
        assert set(on) <= {0}


def test_the_command_plays_a_file_and_says_how_often(tmp_path: Path) -> None:
    path = tmp_path / "faults.toml"
    path.write_text('[[fault]]\nkind = "http_error"\nstatus = 500\n[[fault]]\nkind = "late"\nafter = "1d"\n')
    command = [sys.executable, "-m", "klagg.cli", "exchange", "--port", "0", "--symbols", "3", "--history", "0"]
    with subprocess.Popen(
        [*command, "--faults", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        rest_url = run.stdout.readline().split()[1]
        with pytest.raises(urllib.error.HTTPError, match="500"):
            urllib.request.urlopen(f"{rest_url}/fapi/v1/ping")
        run.send_signal(signal.SIGTERM)
        _, said = run.communicate(timeout=20)
    assert run.returncode == 0
    assert "usdm fault http_error struck 1 times" in said
    assert "usdm fault late struck 0 times" in said
