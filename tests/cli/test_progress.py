"""Where stderr is no terminal, progress is a log line now and then."""

from types import SimpleNamespace

import pytest

from klagg import logs
from klagg.cli import progress


@pytest.mark.parametrize(("level", "expected"), [("info", [31, 61]), ("error", [])])
def test_a_line_twice_a_minute_whatever_else_is_logged(
    level: str, expected: list[int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now_s = 1_000
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now_s))
    logs.set_up("json", "error")
    lines = progress.ProgressLines(level)
    for second in range(70):
        now_s = 1_000 + second
        lines.tell(second + 1, 100, 12.4, 99.6, 7.0)
    told = capsys.readouterr().err.splitlines()
    assert [line for line in told if "backfill.progress" not in line] == []
    assert [
        f'"done": {done}, "total": 100, "per_s": 12, "weight_per_min": 100, "left_s": 7' in line
        for done, line in zip(expected, told, strict=True)
    ] == [True] * len(expected)
