"""What a person or a script sees of the command line: one line on stderr, the exit code, nothing else."""

import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from klagg import cli
from klagg.cli import main
from klagg.errors import ClaimRefused, KlaggError


@pytest.fixture(autouse=True)
def _quiet_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command runs in an empty folder."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("frobnicate", 'Unknown command "frobnicate".*; see klagg --help'),
        ("run --symbolz x", "Unknown option: --symbolz.*Did you mean.*; see klagg run --help"),
        ("run --workers two", "--workers.*see klagg run --help"),
        ("run --workers 0", "setting workers = 0: expected int >= 1"),
        ("run --serve nowhere", "'nowhere' is no HOST:PORT"),
        ("run --serve 127.0.0.1:8420 --no-serve", "contradict"),
        ("run --intervals 7m", "unknown interval '7m': use one of 1m 3m"),
        ("run --market coinm", "unknown market 'coinm'"),
        ("run --margin-ms -5", "margin_ms '-5'"),
        ("run --history soon", "'soon' is not a duration"),
        ("run --market usdm,spot --rest-url http://a", "several markets run, so write spot=URL"),
        ("run --rest-url ftp://a", "rest_url 'ftp://a' is no base URL"),
        ("run --config missing.toml", "missing.toml does not exist"),
        ("run --log-format yaml", 'Invalid value "yaml" for --log-format'),
        ("demo --seconds 0", "--seconds 0"),
        ("exchange --faults f.toml", "there is no such file"),
        ("exchange --port 70000", "--port 70000"),
        ("exchange --symbols 0", "symbols is 0"),
        ("exchange --replay missing.csv", "missing.csv: there is no such file"),
        ("export", "--symbol"),
        ("export --symbol A --interval 1m --format xml", 'Invalid value "xml" for --format'),
        ("replay", "no file is given"),
        ("backfill --from ftp", "--from ftp"),
        ("status --db mongodb://x/y", "unknown database scheme 'mongodb'"),
        ("connect nothing", "nothing"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(
    arguments: str, expected: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(arguments.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("klagg: ")
    assert err.count("\n") == 1
    assert re.search(expected, err), err
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_setting_in_the_file_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "klagg.toml").write_text("sybmols = 'all'\n")
    assert main(["run"]) == 2
    assert "klagg.toml: unknown setting 'sybmols'; did you mean symbols?" in capsys.readouterr().err


def test_a_failure_is_one_line_and_its_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> int:
        raise ExceptionGroup("tasks", [ExceptionGroup("inner", [ClaimRefused("owned by\nanother")])])

    monkeypatch.setattr(cli, "_run", refuse)
    assert main([]) == 1
    assert capsys.readouterr().err == "klagg: owned by another\n"


def test_an_unexpected_exception_asks_for_a_report_and_shows_a_traceback_only_on_demand(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> int:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(cli, "_run", fail)
    assert main([]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "unexpected ZeroDivisionError: oops" in err
    assert "please report it" in err
    monkeypatch.setenv("KLAGG_DEBUG", "1")
    assert main([]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_is_quiet_and_130(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", interrupt)
    assert main([]) == 130
    assert capsys.readouterr().err == ""


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert re.fullmatch(r"klagg \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)


def test_error_classes_say_their_exit_codes() -> None:
    assert KlaggError.exit_code == 1


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from klagg.cli import main; main(['run', '--help']); "
        "print([m for m in ('numpy', 'numba', 'aiohttp', 'pyarrow') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_a_reader_that_leaves_is_no_error() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "klagg.cli", "config", "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    process.wait(30)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_exchange_prints_its_addresses_and_ends_in_order(number: signal.Signals) -> None:
    arguments = [sys.executable, "-m", "klagg.cli", "exchange", "--port", "0", "--symbols", "2", "--history", "1h"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        rest = process.stdout.readline().split()
        ws = process.stdout.readline().split()
        assert (rest[0], ws[0]) == ("rest", "ws")
        assert ws[1].startswith("ws://127.0.0.1:")
        with urllib.request.urlopen(f"{rest[1]}/fapi/v1/time") as answer:
            assert b"serverTime" in answer.read()
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 0
    assert f"klagg run --market usdm --rest-url {rest[1]} --ws-url {ws[1]}" in err
    assert "Traceback" not in err
