"""Deliberate defects must not go unseen: the checks can fail. `make mutants` tries all of them, these tests a few."""

import ast
from pathlib import Path

import pytest

from mutants.defects import BY_NAME, DEFECTS, Defect
from mutants.table import PAGE, rows, written
from mutants.trial import ROOT, try_out
from simulation.plan import make
from simulation.shrink import play, shrink

LEAST = 40
TRIED = (
    "endTime is excluded",
    "a chart's bars hold the one that opens at its end",
    "the native API's end is included",
    "a lower rank replaces a higher one",
    "a failed write is taken for done",
    "changes are not published",
)
"""One of each kind, and quick: kernels are left to `make mutants`, which compiles them anew for each."""


def test_the_list_is_long_and_each_defect_can_be_put_in() -> None:
    assert len(DEFECTS) >= LEAST
    assert len(BY_NAME) == len(DEFECTS)
    for one in DEFECTS:
        text = (ROOT / "src" / "klagg" / one.file).read_text("utf-8")
        assert text.count(one.old) == 1, f"{one.name}: its text stands {text.count(one.old)} times in {one.file}"
        assert one.new != one.old
        assert one.caught_by
        if one.file.endswith(".py"):
            ast.parse(text.replace(one.old, one.new))


@pytest.mark.parametrize("check", sorted({check for one in DEFECTS for check in one.caught_by if "::" in check}))
def test_each_check_is_there(check: str) -> None:
    path, name = check.split("::")
    assert f"def {name.partition('[')[0]}(" in (ROOT / path).read_text("utf-8")


def test_the_page_has_the_list() -> None:
    page = PAGE.read_text("utf-8")
    assert "\n".join(rows()) in page, "the table is made: python -m mutants --table"
    assert written(page) == page


@pytest.mark.parametrize("name", TRIED)
def test_a_deliberate_defect_is_caught(name: str) -> None:
    trial = try_out(BY_NAME[name])
    assert trial.caught, f"{name} goes unseen by {' '.join(trial.defect.caught_by)}\n{trial.text}"


def test_what_cannot_be_run_is_not_taken_for_caught() -> None:
    one = BY_NAME["endTime is excluded"]
    broken = Defect(one.name, one.file, one.old, "%%%", one.caught_by)
    assert try_out(broken).caught is None


def test_a_check_that_does_not_see_a_defect_is_told() -> None:
    one = BY_NAME["endTime is excluded"]
    blind = Defect(one.name, one.file, one.old, one.new, (BY_NAME["weeks begin on Thursday"].caught_by[0],))
    assert try_out(blind).caught is False


def test_the_tree_itself_is_never_touched(tmp_path: Path) -> None:
    from mutants.trial import applied

    one = BY_NAME["endTime is excluded"]
    source = applied(one, tmp_path)
    assert one.new in (source / "klagg" / one.file).read_text("utf-8")
    assert one.old in (ROOT / "src" / "klagg" / one.file).read_text("utf-8")


def test_the_shortest_story_keeps_only_what_the_failure_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    from klagg.service import market

    # A start knows nothing of what was stored: it takes no more than one end of a process to show it.
    monkeypatch.setattr(market, "stored_seeds", lambda *_: {})
    story = shrink(play(make(70, plain=True)))
    assert story.failed
    assert len(story.plan.happenings) <= 2, str(story)
