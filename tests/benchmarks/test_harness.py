"""The benchmarks run, say what they must, and become a page. No test asserts a time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from klagg.cli import main

CHECKOUT = Path(__file__).parents[2]
CHEAP = ("P2", "P5", "P7", "P8", "P12", "R1", "E1")
FIELDS = {"id", "name", "value", "unit", "goal", "met", "peer", "limit", "samples", "spread", "note"}


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=200)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    page = tmp_path_factory.mktemp("page") / "PERFORMANCE.md"
    ended = run(*CHEAP, "--quick", "--write", str(page))
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()], page.read_text()


def test_each_line_is_one_measurement(measured):
    lines, _ = measured
    assert {line["id"] for line in lines} == set(CHEAP)
    for line in lines:
        assert set(line) == FIELDS
        assert line["value"] is None or line["value"] > 0
        assert line["value"] is not None or line["note"], "what could not be measured says why"
        for other in (line["peer"], line["limit"]):
            assert other is None or (set(other) == {"name", "value", "ratio"} and other["value"] > 0)
        if line["spread"]:
            assert line["spread"][0] <= line["value"] <= line["spread"][1]


def test_a_verdict_follows_from_goal_and_value(measured):
    lines, _ = measured
    for line in lines:
        if line["goal"] is None or line["value"] is None:
            assert line["met"] is None
            continue
        side, bound = line["goal"].split()[:2]
        limit = float(bound.replace(",", ""))
        assert line["met"] == (line["value"] <= limit if side == "≤" else line["value"] >= limit)


def test_every_goal_is_held_against_something_of_the_same_run(measured):
    lines, _ = measured
    for line in lines:
        # A figure that compares two of its own values, or whose peer is not installed, says so.
        assert line["goal"] is None or line["peer"] or line["limit"] or line["note"]


def test_the_page_shows_every_line_and_its_verdict(measured):
    lines, page = measured
    goals = page.partition("## Goals")[2].partition("\n## ")[0]
    for line in lines:
        assert f"| {line['name']} |" in page
        assert (f"| {line['name']} |" in goals) == (line["goal"] is not None)
    assert "`--quick`" in page
    for figure in CHEAP:
        assert f"## {figure}: " in page
    widths = {row.count(" | ") for row in goals.splitlines() if row.startswith("| P")}
    assert len(widths) == 1


def test_an_unknown_figure_is_an_error_that_names_the_known_ones():
    ended = run("P99")
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert "P99" in ended.stderr
    assert "P9" in ended.stderr


def test_klagg_bench_hands_its_arguments_on(capfd):
    assert main(["bench", "P99"]) == 2
    assert "P99" in capfd.readouterr().err


def test_klagg_bench_without_the_source_tree_is_one_clear_line(tmp_path, monkeypatch, capsys):
    # Another project's benchmarks are not klagg's.
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "__main__.py").write_text("raise SystemExit('not these')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("klagg.cli.bench.INSTALLED_FROM", tmp_path)
    assert main(["bench"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "make bench" in line
