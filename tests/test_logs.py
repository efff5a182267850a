"""Where logs go and what they look like."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from klagg import logs


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    structlog.reset_defaults()
    logging.root.handlers[:], logging.root.level = handlers, level


def test_elsewhere_than_on_a_terminal_logs_are_json_lines() -> None:
    out = io.StringIO()
    logs.set_up(stream=out)
    structlog.get_logger().info("clock.calibrated", offset_ms=3)
    logging.getLogger("aiohttp").warning("late %s", "answer")
    logging.getLogger("aiohttp").info("chatter")
    first, second = (json.loads(line) for line in out.getvalue().splitlines())
    assert first["event"] == "clock.calibrated"
    assert first["level"] == "info"
    assert first["offset_ms"] == 3
    assert first["time"].endswith("Z")
    assert (second["event"], second["logger"], second["level"]) == ("late answer", "aiohttp", "warning")


def test_the_level_is_a_floor() -> None:
    out = io.StringIO()
    logs.set_up("json", "warning", out)
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud")
    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == ["loud"]


def test_console_is_for_reading() -> None:
    out = io.StringIO()
    logs.set_up("console", stream=out)
    structlog.get_logger().info("tick.closed", minute_ms=60_000)
    assert "tick.closed" in out.getvalue()
    assert "minute_ms=60000" in out.getvalue()
    assert "\x1b[" not in out.getvalue()


def test_lines_go_to_what_stands_for_stderr_now(monkeypatch: pytest.MonkeyPatch) -> None:
    logs.set_up("console")
    live_view = io.StringIO()
    monkeypatch.setattr("sys.stderr", live_view)
    structlog.get_logger().info("market.live")
    logging.getLogger("aiohttp").warning("late")
    assert "market.live" in live_view.getvalue()
    assert "late" in live_view.getvalue()
