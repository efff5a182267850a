"""The data commands against an offline exchange of their own, as a person would use them."""

import csv
import io
import json
import re
import sqlite3
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from klagg import clock
from klagg.cli import main

SYMBOL = "BTCUSDT"


@pytest.fixture(scope="module")
def rest_url() -> Iterator[str]:
    arguments = [sys.executable, "-m", "klagg.cli", "exchange", "--port", "0", "--symbols", "2", "--history", "2h"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().split()[1]
        process.terminate()
        process.communicate(timeout=30)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_backfill_check_status_and_export_work_together(rest_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "backfill",
        "--rest-url",
        rest_url,
        "--symbols",
        SYMBOL,
        "--start",
        "-1h",
        "--intervals",
        "5m",
        "--json",
    ]
    assert main(arguments) == 0
    first = json.loads(capsys.readouterr().out)
    assert 59 <= first["written"] <= 61  # the minutes of an hour, and the 5m candle that began before it
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["written"] <= 2  # only what has settled meanwhile
    assert main(["check", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"]
    assert report["parents_compared"] >= 10
    assert main(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["markets"][0]["unverified"] == 0
    assert main(["export", "--symbol", "btc/usdt:usdt", "--interval", "1m"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    query = f"symbol={SYMBOL}&interval=1m&startTime={rows[0]['open_time']}&limit={len(rows)}"
    with urllib.request.urlopen(f"{rest_url}/fapi/v1/klines?{query}") as answer:
        theirs = json.load(answer)
    ours = [list(row.values()) for row in rows]
    assert [list(map(Decimal, row)) for row in ours] == [list(map(Decimal, row)) for row in theirs]


def test_audit_and_check_find_and_repair(rest_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*words: str) -> tuple[int, dict[str, Any]]:
        code = main([*words, "--json"])
        return code, json.loads(capsys.readouterr().out)

    exchange = ["--rest-url", rest_url]
    assert run("backfill", *exchange, "--symbols", SYMBOL, "--start", "-1h", "--intervals", "5m")[0] == 0
    code, report = run("audit", *exchange)
    assert (code, report["ok"], report["total"]) == (0, True, 0)
    assert report["compared"] > 50
    with sqlite3.connect("klagg.db") as database:
        (open_ms,) = database.execute("SELECT min(open_ms) + 900000 FROM candle WHERE series % 16 = 0").fetchone()
        minute = f"series % 16 = 0 AND open_ms = {open_ms}"
        assert database.execute(f"UPDATE candle SET trades = trades + 1 WHERE {minute}").rowcount == 1
    code, report = run("audit", *exchange)
    assert (code, report["counts"]["verified_differs"]) == (1, 1)
    (finding,) = report["findings"]
    assert (finding["symbol"], finding["interval"], finding["open_time_ms"]) == (SYMBOL, "1m", open_ms)
    (texts,) = finding["fields"].values()
    assert int(texts["database"]) == int(texts["exchange"]) + 1
    assert report["by_symbol"] == {SYMBOL: {"verified_differs": 1}}
    code, report = run("check", "--repair")
    assert (code, report["ok"], report["found"]["ok"]) == (0, True, False)
    assert report["handed_over"] == report["mended"]["taken_back_to_unverified"] > 0
    code, report = run("audit", *exchange, "--repair")
    assert (code, report["repaired"]) == (0, report["total"])
    assert report["total"] >= 1
    assert run("audit", *exchange)[1]["total"] == 0
    assert main(["check"]) == 0
    capsys.readouterr()
    assert main(["audit", "--rest-url", "http://127.0.0.1:9"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_check_names_what_is_wrong(rest_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backfill", "--rest-url", rest_url, "--symbols", SYMBOL, "--start", "-30m"]) == 0
    capsys.readouterr()
    minutes = "series % 16 = 0"
    with sqlite3.connect("klagg.db") as database:
        database.execute(
            f"DELETE FROM candle WHERE {minutes} AND open_ms = (SELECT min(open_ms) + 300000 FROM candle WHERE {minutes})"
        )
    database.close()
    assert main(["check"]) == 1
    out, err = capsys.readouterr()
    assert f"hole: usdm {SYMBOL} 1m" in out
    assert err == ""
    assert main(["check", "--symbols", "NOPE*"]) == 2
    assert "glob 'NOPE*' matches none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        ("--symbols NOPEUSDT", 2, "unknown symbol 'NOPEUSDT' on market usdm"),
        ("--start soon", 2, "'soon' is not a time"),
        ("--market usdm,spot --rest-url spot=http://127.0.0.1:1", 2, "works on one market"),
        ("--from missing.csv", 2, "missing.csv: there is no such file"),
        ("--from rest.csv --start -1d", 2, "archive files are read whole"),
    ],
)
def test_backfill_refuses_in_one_line_and_makes_no_database(
    rest_url: str, arguments: str, code: int, expected: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    urls = [] if "--rest-url" in arguments else ["--rest-url", rest_url]
    assert main(["backfill", *arguments.split(), *urls]) == code
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert expected in err
    assert list(tmp_path.iterdir()) == []


def test_replay_prints_rates_and_counts(capsys: pytest.CaptureFixture[str]) -> None:
    rows = "\n".join(f"{n},100.5,0.01,{n},{n},{1_722_470_400_000 + n * 1_000},True" for n in range(1, 400))
    Path(f"{SYMBOL}-aggTrades-part.csv").write_text(rows + "\n")
    assert main(["replay", f"{SYMBOL}-aggTrades-part.csv", "--symbol", SYMBOL, "--db", "r.db", "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["trades"], done["symbols"]) == (399, 1)
    assert main(["export", "--db", "r.db", "--symbol", SYMBOL, "--interval", "1m", "--full"]) == 0
    exported = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["origin"] for row in exported][:3] == ["partial", "trades", "trades"]


@pytest.mark.parametrize("content", [b"", b"\x00\x01\x02", b"hello\nworld\n"])
def test_replay_of_no_recording_is_one_line_and_makes_no_database(
    content: bytes, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    Path("x.csv").write_bytes(content)
    assert main(["replay", "x.csv", "--symbol", SYMBOL]) in {1, 2}
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "x.csv" in err
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]


def test_an_exchange_out_of_reach_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["backfill", "--rest-url", "http://127.0.0.1:1", "--market", "usdm"]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "cannot be read after 5 attempts" in err
    assert "klagg demo" in err
    assert list(tmp_path.iterdir()) == []


class Refusing(BaseHTTPRequestHandler):
    """An address that is not the exchange's, or an exchange that refuses."""

    status, body = 200, b""

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


@pytest.mark.parametrize("command", ["backfill", "run --no-serve"])
@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (
            451,
            b"{}",
            "does not serve this location \\(HTTP 451\\): set HTTPS_PROXY, .*--rest-url.* or try `klagg demo`",
        ),
        (
            403,
            b"<html>firewall</html>",
            "after 5 attempts: cannot get an answer from .* \\(HTTP 403\\): check the network",
        ),
        (500, b"<h1>sorry</h1>", "after 5 attempts: cannot get an answer from .* \\(HTTP 500\\)"),
        (200, b"<html>hello</html>", "/time is answered by something else .*check --rest-url"),
        (200, b'{"hello": 1}', "/time is answered by something else .*check --rest-url"),
        (404, b"no such page", "HTTP 404, not as the exchange refuses: check --rest-url"),
    ],
)
def test_what_is_not_the_exchange_or_refuses_is_one_line(
    command: str,
    status: int,
    body: bytes,
    says: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(clock, "BACKOFF_LAST_S", 0.01)
    handler = type("Handler", (Refusing,), {"status": status, "body": body})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        assert main([*command.split(), "--rest-url", url, "--log-level", "error"]) == 1
        server.shutdown()
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if "compiling kernels" not in line]
    assert (out, len(lines)) == ("", 1)
    assert lines[0].startswith("klagg: ")
    assert re.search(says, lines[0]), lines[0]
    assert command != "backfill" or list(tmp_path.iterdir()) == []


def test_a_malformed_row_stops_a_start_by_name(rest_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backfill", "--rest-url", rest_url, "--symbols", SYMBOL, "--start", "-30m"]) == 0
    with sqlite3.connect("klagg.db") as database:
        database.execute("UPDATE candle SET high = 1 WHERE series % 16 = 0")
    database.close()
    capsys.readouterr()
    arguments = ["run", "--no-serve", "--rest-url", rest_url, "--ws-url", rest_url.replace("http", "ws")]
    assert main([*arguments, "--log-level", "error"]) == 1
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if "compiling kernels" not in line]
    assert (out, len(lines)) == ("", 1)
    assert f"usdm {SYMBOL} 1m: high is 1, which is below its open or close" in lines[0]
