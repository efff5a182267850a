"""Settings from flags, environment and file; what is refused, and how it is said."""

import re
import tomllib
from pathlib import Path

import pytest

from klagg.config import Settings, example, json_schema, load
from klagg.errors import UsageError
from klagg.interval import DAY_MS
from klagg.model import Market


def test_defaults(tmp_path: Path) -> None:
    loaded = load(environment={}, folder=tmp_path)
    assert loaded.settings == Settings()
    assert set(loaded.sources.values()) == {"default"}
    assert loaded.settings.one_market is Market.USDM
    assert loaded.settings.history_ms == 2 * DAY_MS
    assert loaded.settings.margin is None


def test_flags_come_before_environment_before_file(tmp_path: Path) -> None:
    (tmp_path / "klagg.toml").write_text('db = "file.db"\nhistory = "3d"\nworkers = 3\nsymbols = "BTCUSDT ETHUSDT"\n')
    environment = {
        "KLAGG_DB": "environment.db",
        "KLAGG_HISTORY": "4d",
        "KLAGG_TAKE_OVER": "true",
        "KLAGG_PORT": "tcp://",
    }
    loaded = load({"db": "flag.db", "rest_url": None}, environment=environment, folder=tmp_path)
    settings, sources = loaded.settings, loaded.sources
    assert (settings.db, sources["db"]) == ("flag.db", "--db")
    assert (settings.history, sources["history"]) == ("4d", "KLAGG_HISTORY")
    assert (settings.workers, sources["workers"]) == (3, str(tmp_path / "klagg.toml"))
    assert (settings.rest_url, sources["rest_url"]) == ((), "default")
    assert settings.symbols == ("BTCUSDT", "ETHUSDT")
    assert settings.take_over is True


def test_the_file_may_be_named(tmp_path: Path) -> None:
    path = tmp_path / "other.toml"
    path.write_text('market = ["usdm", "spot"]\n[rest_url]\nspot = "http://a"\nusdm = "http://b"\n')
    for loaded in (load(config=path, environment={}), load(environment={"KLAGG_CONFIG": str(path)})):
        assert loaded.settings.markets == (Market.USDM, Market.SPOT)
        assert loaded.settings.rest_urls == {Market.SPOT: "http://a", Market.USDM: "http://b"}
    with pytest.raises(UsageError, match=r"missing.toml does not exist: write one with klagg config init"):
        load(config=tmp_path / "missing.toml", environment={})


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("workers = 'two'", r"klagg.toml: setting workers = 'two': expected int, got str"),
        ("workers = 0", r"setting workers = 0: expected int >= 1"),
        ("take_over = 1", r"setting take_over = 1: expected bool"),
        ("symbols = [1]", r"setting symbols = \[1\]: expected str"),
        ("log_format = 'yaml'", r"setting log_format = 'yaml': invalid enum value 'yaml'"),
        ("simbols = 'all'", r"unknown setting 'simbols'; did you mean symbols\?"),
        ("[stream]\nurl = 'x'", r"unknown setting 'stream'"),
        ("workers = !", r"klagg.toml: not valid TOML: .*line 1"),
        ("history = '2 fortnights'", r"'2 fortnights' is not a duration: .*klagg.toml"),
        ("intervals = '7m'", r"unknown interval '7m': use one of 1m 3m"),
        ("market = 'coinm'", r"unknown market 'coinm': use usdm or spot"),
        ("market = []", r"no market is given"),
        ("margin_ms = -5", r"margin_ms -5"),
    ],
)
def test_a_bad_file_is_one_clear_line(tmp_path: Path, content: str, expected: str) -> None:
    (tmp_path / "klagg.toml").write_text(content)
    with pytest.raises(UsageError) as raised:
        load(environment={}, folder=tmp_path)
    assert re.search(expected, str(raised.value)), raised.value
    assert "\n" not in str(raised.value)


def test_a_bad_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "klagg.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"klagg.toml: cannot be read"):
        load(environment={}, folder=tmp_path)


def test_a_bad_variable_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="environment variable KLAGG_WORKERS: setting workers = 'many': expected int"):
        load(environment={"KLAGG_WORKERS": "many"}, folder=tmp_path)


def test_one_market_refuses_several() -> None:
    settings = Settings(market=("usdm,spot",))
    with pytest.raises(UsageError, match="works on one market, not usdm, spot"):
        _ = settings.one_market


@pytest.mark.parametrize(("written", "expected"), [(None, None), ("auto", "auto"), (35, 35), ("35", 35)])
def test_margin(written: int | str | None, expected: int | str | None) -> None:
    assert Settings(margin_ms=written).margin == expected


def test_the_example_file_names_every_setting_and_is_valid_when_uncommented(tmp_path: Path) -> None:
    text = example()
    assert tomllib.loads(text) == {}
    uncommented = re.sub(r"^# (?=[a-z_]+ = )", "", text, flags=re.MULTILINE)
    assert set(tomllib.loads(uncommented)) == set(json_schema()["properties"])
    (tmp_path / "klagg.toml").write_text(uncommented)
    load(environment={}, folder=tmp_path)


def test_the_schema_forbids_unknown_settings_and_describes_each() -> None:
    schema = json_schema()
    assert schema["additionalProperties"] is False
    assert all(body["description"] for body in schema["properties"].values())
    assert schema["properties"]["workers"]["minimum"] == 1
