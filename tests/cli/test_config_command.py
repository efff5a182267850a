"""`klagg config`."""

import json
from pathlib import Path

import pytest

from klagg.cli import main


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_init_writes_a_file_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "init"]) == 0
    assert capsys.readouterr().out == "klagg.toml\n"
    Path("klagg.toml").write_text('db = "mine.db"\n')
    assert main(["config", "init"]) == 2
    assert "replace it with --force" in capsys.readouterr().err
    assert Path("klagg.toml").read_text() == 'db = "mine.db"\n'
    assert main(["config", "init", "--force"]) == 0
    assert "mine.db" not in Path("klagg.toml").read_text()


def test_init_where_nothing_can_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "init", "nowhere/klagg.toml"]) == 1
    assert "nowhere/klagg.toml cannot be written: No such file" in capsys.readouterr().err


def test_show_tells_where_each_value_came_from(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("klagg.toml").write_text("workers = 3\n")
    monkeypatch.setenv("KLAGG_DB", "environment.db")
    assert main(["config", "show", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["db"] == {"value": "environment.db", "source": "KLAGG_DB"}
    assert shown["workers"] == {"value": 3, "source": "klagg.toml"}
    assert shown["history"] == {"value": "2d", "source": "default"}
    assert main(["config", "show"]) == 0
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    assert rows["workers"] == ["3", "klagg.toml"]


def test_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "schema"]) == 0
    assert "symbols" in json.loads(capsys.readouterr().out)["properties"]
