"""The list of defects as the table of `docs/GUARANTEES.md` (`python -m mutants --table`)."""

from collections.abc import Iterable
from pathlib import Path

from mutants.defects import DEFECTS

PAGE = Path(__file__).parents[2] / "docs" / "GUARANTEES.md"
HEAD = ["| defect | in | caught by |", "|---|---|---|"]


def rows() -> list[str]:
    """The lines of the table."""
    return HEAD + [f"| {one.name} | `{one.file}` | {_named(one.caught_by)} |" for one in DEFECTS]


def _named(checks: Iterable[str]) -> str:
    named = []
    for check in checks:
        if check.startswith("seed "):
            named.append(f"the simulation, {check.removesuffix(' honest')}")
        else:
            path, *rest = check.split("::")
            named.append(f"`{'::'.join([path.removeprefix('tests/'), *rest])}`")
    return ", or ".join(named)


def written(page: str) -> str:
    """The page with the table in its place: it begins with its head and ends with an empty line."""
    before, head, after = page.partition("\n".join(HEAD) + "\n")
    assert head, "the page has no place for the table"
    _, gap, rest = after.partition("\n\n")
    return before + "\n".join(rows()) + gap + rest
