"""Files that are no recordings and databases that are none: one line that names file, line and reason, and nothing written."""

import gzip
import io
import itertools
import os
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from contextlib import closing
from pathlib import Path

import pytest
import zstandard

from klagg.archive.order import InOrder
from klagg.cli import main
from klagg.export import text
from klagg.store import SqliteStore, database

HEADER = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker"
ROWS = [f"{n},100.5,0.01,{n},{n},{1_722_470_400_000 + n * 100},True" for n in range(1, 3_000)]
WHOLE = "\n".join([HEADER, *ROWS]) + "\n"
MESSAGE = '{"e":"aggTrade","E":1,"s":"AAAUSDT","a":%d,"p":"1.5","q":"2","f":1,"l":1,"T":1722470400000,"m":true}'


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def fails(arguments: str, capsys: pytest.CaptureFixture[str], code: int = 1) -> str:
    """The one line that a command fails with."""
    capsys.readouterr()
    assert main(arguments.split()) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("klagg: ")
    assert err.count("\n") == 1
    assert "unexpected" not in err
    return err


def zipped(**files: str) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as pack:
        for name, text in files.items():
            pack.writestr(name, text)
    return memory.getvalue()


def broken(row: str) -> bytes:
    """A recording whose 2,501st line is another."""
    lines = WHOLE.splitlines()
    lines[2_500] = row
    return "\n".join(lines).encode()


T = 1_722_470_650_000
BROKEN = {
    "empty": (b"", "the file is empty"),
    "blank": (b"\n\n \n", "nothing in it but blank lines"),
    "binary": (bytes(range(256)) * 20, "binary"),
    "text": (b"hello\nworld\n", "line 1: the header names no column for"),
    "UTF-16": (WHOLE.encode("utf-16"), "binary"),
    "latin-1": ("id,pr\xefce\n".encode("latin-1"), "not UTF-8"),
    "a database": (b"SQLite format 3\0" + bytes(100), "an SQLite database"),
    "parquet": (b"PAR1" + bytes(100), "a Parquet file"),
    "a symbol list": (b'{"timezone":"UTC","symbols":[]}\n', "there are no trades in it"),
    "klines": (b"1723161240000,1,1,1,1,2,1723161299999,2,1,0,0,0\n", "klines, not trades: klagg backfill"),
    "missing columns": (b"agg_trade_id,price\n1,2\n", "names no column for"),
    "gz cut short": (gzip.compress(WHOLE.encode())[:-500], "truncated"),
    "gz damaged": (gzip.compress(WHOLE.encode())[:200] + b"\0" * 300, "broken or truncated"),
    "zst cut short": (zstandard.compress(WHOLE.encode())[:-20], "truncated"),
    "zip cut short": (zipped(a=WHOLE)[:-60], "broken or truncated"),
    "zip of two": (zipped(a=WHOLE, b=WHOLE), "the zip holds 2 files"),
    "zip of none": (zipped(), "the zip holds 0 files"),
    "zip of an empty file": (zipped(a=""), "the file is empty"),
    "few columns": (broken("2500,100.5,0.01"), "line 2501: 3 columns where 7 are expected"),
    "cut in the last line": (WHOLE.encode()[:-30], "line 3000: "),
    "NaN": (broken(f"2500,NaN,1,2500,2500,{T},True"), "line 2501: price 'NaN' is not a plain decimal"),
    "infinity": (broken(f"2500,inf,1,2500,2500,{T},True"), "line 2501: price 'inf'"),
    "negative price": (broken(f"2500,-1.5,1,2500,2500,{T},True"), "line 2501: price -1.5 is negative"),
    "huge price": (broken(f"2500,{'9' * 5_000},1,2500,2500,{T},True"), "line 2501: price '9999"),
    "negative id": (broken(f"-7,1.5,1,2500,2500,{T},True"), "line 2501: trade id -7 is negative"),
    "ids back to front": (
        broken(f"2500,1.5,1,2500,2400,{T},True"),
        "line 2501: last trade id 2400 is before the first",
    ),
    "time in seconds": (broken("2500,1.5,1,2500,2500,1722470650,True"), "line 2501: time 1722470650 is neither"),
    "time far back": (broken(f"2500,1.5,1,2500,2500,{T - 10**9},True"), "line 2501: trade 2500 is dated"),
    "no boolean": (broken(f"2500,1.5,1,2500,2500,{T},maybe"), "line 2501: is_buyer_maker 'maybe'"),
    "broken JSON": (f'{MESSAGE % 1}\n{MESSAGE % 2}\n{{"e":\n'.encode(), "line 3: broken JSON"),
    "JSON cut short": (f"{MESSAGE % 1}\n{(MESSAGE % 2)[:40]}".encode(), "line 2: broken JSON"),
    "a trade without a price": (
        f"{MESSAGE % 1}\n{(MESSAGE % 2).replace('1.5', '')}".encode(),
        "line 2: a broken aggTrade: it has no p",
    ),
    "a huge line": (b'{"e":"aggTrade","x":"' + b"x" * (65 << 20), "a line is longer than 64 MiB"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_recording_is_one_line_and_makes_no_database(
    what: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    content, reason = BROKEN[what]
    Path("x.csv").write_bytes(content)
    err = fails("replay x.csv --symbol AAAUSDT", capsys)
    assert "x.csv: " in err
    assert reason in err
    assert len(err) < 400
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]


def dump(path: str = "klagg.db") -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


@pytest.mark.parametrize("what", ["few columns", "gz cut short", "time far back", "JSON cut short"])
def test_a_broken_recording_leaves_a_database_as_it_was(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("whole.csv").write_text(WHOLE)
    assert main(["replay", "whole.csv", "--symbol", "AAAUSDT", "--intervals", "1m"]) == 0
    kept = dump()
    Path("x.csv").write_bytes(BROKEN[what][0])
    fails("replay whole.csv x.csv --symbol BBBUSDT --intervals 5m", capsys)
    assert dump() == kept


def test_header_only_and_no_file_at_all(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "cannot be read: No such file" in fails("replay none.csv --symbol A", capsys, 2)
    assert "cannot be read: Is a directory" in fails("replay . --symbol A", capsys, 2)
    Path("x.csv").write_text(HEADER + "\n")
    assert main(["replay", "x.csv", "--symbol", "AAAUSDT"]) == 0
    assert "trades        0 in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (
            b"1723161240000,1,1,1,1,2,1723161299999,2,1,0,0,0\n1723161300000,1,1,x,1,2,1723161359999,2,1,0,0,0\n",
            "line 2: low 'x'",
        ),
        (
            b"1723161240000,1,1,1,1,2,1723161299999,2,1,0,0,0\n1723161300000,1,1,1,1,2,1723161359999,2,-1,0,0,0\n",
            "line 2: count -1",
        ),
    ],
)
def test_a_broken_file_of_klines(
    content: bytes, reason: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    Path("k.csv").write_bytes(content)
    assert reason in fails("backfill --from k.csv --symbols AAAUSDT", capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["k.csv"]


# --- databases --------------------------------------------------------------------------------------------------------

COMMANDS = ["check", "status", "export --symbol AAAUSDT --interval 1m", "replay whole.csv --symbol AAAUSDT"]


def somebody_elses() -> None:
    with closing(sqlite3.connect("klagg.db")) as connection:
        connection.execute("CREATE TABLE candle (x)")


def of_a_newer_version() -> None:
    main(["replay", "whole.csv", "--symbol", "AAAUSDT"])
    with closing(sqlite3.connect("klagg.db")) as connection:
        connection.execute("PRAGMA user_version = 99")


def cut_short() -> None:
    main(["replay", "whole.csv", "--symbol", "AAAUSDT"])
    with closing(sqlite3.connect("klagg.db")) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    os.truncate("klagg.db", 9_000)


def without_a_table() -> None:
    main(["replay", "whole.csv", "--symbol", "AAAUSDT"])
    with closing(sqlite3.connect("klagg.db")) as connection:
        connection.execute("DROP TABLE shard")


NO_DATABASES = {
    "text": (lambda: Path("klagg.db").write_text("hello, this is no database\n" * 50), "is no database"),
    "a few bytes": (lambda: Path("klagg.db").write_bytes(b"abc"), "is no database"),
    "random": (lambda: Path("klagg.db").write_bytes(bytes(range(255, 0, -1)) * 99), "is no database"),
    "a directory": (lambda: Path("klagg.db").mkdir(), "is a directory, not a database"),
    "somebody else's": (somebody_elses, "a database of something else, without klagg's tables"),
    "a newer version": (of_a_newer_version, "has version 99, this klagg knows"),
    "cut short": (cut_short, "is damaged: restore it from a copy"),
    "a table less": (without_a_table, "klagg's table shard is missing"),
}


@pytest.mark.parametrize("what", NO_DATABASES)
def test_what_is_no_database_of_klagg_is_left_alone(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    make, reason = NO_DATABASES[what]
    Path("whole.csv").write_text(WHOLE)
    make()
    before = Path("klagg.db").read_bytes() if Path("klagg.db").is_file() else b""
    for command in COMMANDS:
        assert reason in fails(command, capsys), command
    assert (Path("klagg.db").read_bytes() if Path("klagg.db").is_file() else b"") == before


def test_an_empty_file_is_filled_and_has_nothing_to_read(capsys: pytest.CaptureFixture[str]) -> None:
    Path("klagg.db").touch()
    Path("whole.csv").write_text(WHOLE)
    assert "the database is empty" in fails("check", capsys)
    assert main(["replay", "whole.csv", "--symbol", "AAAUSDT"]) == 0
    assert main(["check"]) == 0


def test_places_where_no_database_can_be(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    Path("whole.csv").write_text(WHOLE)
    assert "there is no such database" in fails("check --db none.db", capsys)
    assert "the directory" in fails("replay whole.csv --symbol A --db no/where.db", capsys)
    assert "unknown database scheme 'mysql'" in fails("check --db mysql://h/x", capsys, 2)
    assert "PostgreSQL is not supported yet" in fails("check --db postgresql://u:secret@h/x", capsys, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["whole.csv"]


def test_a_locked_database(capsys: pytest.CaptureFixture[str]) -> None:
    Path("whole.csv").write_text(WHOLE)
    assert main(["replay", "whole.csv", "--symbol", "AAAUSDT"]) == 0
    with closing(sqlite3.connect("klagg.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert "is locked by another process" in fails("replay whole.csv --symbol BBBUSDT", capsys)
        capsys.readouterr()
        assert main(["check"]) == 0  # reading is not hindered
        other.execute("ROLLBACK")
        other.execute("PRAGMA journal_mode = DELETE")
        other.execute("BEGIN EXCLUSIVE")
        assert "is locked by another process" in fails("status", capsys)


def test_a_full_disk_leaves_the_database_as_it_was() -> None:
    """The kernel refuses every file that grows past a size: what SQLite meets is a full disk."""
    Path("whole.csv").write_text(WHOLE)
    assert main(["replay", "whole.csv", "--symbol", "AAAUSDT"]) == 0
    kept = dump()
    long = [f"{n},100.5,0.01,{n},{n},{1_722_470_400_000 + n * 60_000},True" for n in range(1, 9_000)]
    Path("long.csv").write_text("\n".join([HEADER, *long]) + "\n")
    code = (
        "import resource, signal, sys; from klagg.cli import main; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000));"
        "sys.exit(main(['replay', 'long.csv', '--symbol', 'BBBUSDT']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "the disk is full" in done.stderr or "input or output error" in done.stderr
    assert dump() == kept


@pytest.mark.skipif(shutil.which("unshare") is None or os.geteuid() != 0, reason="needs root and unshare")
def test_a_read_only_place_can_be_read_and_not_written() -> None:
    """A read-only mount, because permissions do not bind root."""
    Path("place").mkdir()
    Path("whole.csv").write_text(WHOLE)
    assert main(["replay", "whole.csv", "--symbol", "AAAUSDT", "--db", "place/klagg.db"]) == 0
    klagg = f"{sys.executable} -m klagg.cli"
    script = (
        f"mount --bind -o ro place place 2>/dev/null || exit 77; {klagg} check --db place/klagg.db >/dev/null || exit 78;"
        f"{klagg} replay whole.csv --symbol BBBUSDT --db place/klagg.db"
    )
    arguments = ["unshare", "--mount", "sh", "-c", script]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("mounting is not allowed here")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "place/klagg.db: the database is read-only" in done.stderr


# --- broken off -------------------------------------------------------------------------------------------------------


def interrupt_at(call: int, monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
    """Ctrl-C at the n-th call of a function."""
    real, calls = getattr(owner, name), itertools.count(1)

    def interrupted(*arguments: object, **named: object) -> object:
        if next(calls) == call:
            raise KeyboardInterrupt
        return real(*arguments, **named)

    monkeypatch.setattr(owner, name, interrupted)


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [(InOrder, "take", 1), (SqliteStore, "write", 1), (database, "_migrate", 1)],
)
def test_ctrl_c_in_a_replay_is_130_and_leaves_nothing(
    owner: object,
    name: str,
    call: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    Path("whole.csv").write_text(WHOLE)
    interrupt_at(call, monkeypatch, owner, name)
    assert main(["replay", "whole.csv", "--symbol", "AAAUSDT"]) == 130
    assert capsys.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["whole.csv"]


def test_ctrl_c_in_an_export_leaves_the_file_as_it_was(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Path("whole.csv").write_text(WHOLE)
    assert main(["replay", "whole.csv", "--symbol", "AAAUSDT"]) == 0
    Path("out.csv").write_text("mine\n")
    before = sorted(path.name for path in tmp_path.iterdir() if "klagg.db" not in path.name)
    capsys.readouterr()
    interrupt_at(3, monkeypatch, text, "decimals")
    assert main(["export", "--symbol", "AAAUSDT", "--interval", "1m", "--out", "out.csv"]) == 130
    assert capsys.readouterr() == ("", "")
    assert Path("out.csv").read_text() == "mine\n"
    assert sorted(path.name for path in tmp_path.iterdir() if "klagg.db" not in path.name) == before


def test_a_reader_that_leaves_early_is_no_error() -> None:
    long = [f"{n},100.5,0.01,{n},{n},{1_722_470_400_000 + n * 60_000},True" for n in range(1, 30_000)]
    Path("long.csv").write_text("\n".join([HEADER, *long]) + "\n")
    assert main(["replay", "long.csv", "--symbol", "AAAUSDT", "--intervals", "1m"]) == 0
    command = [sys.executable, "-m", "klagg.cli", "export", "--symbol", "AAAUSDT", "--interval", "1m"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
