"""docs/LOGS.md names every log event of the code with its levels and fields, and none that is not there."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "klagg"
PAGE = ROOT / "docs" / "LOGS.md"
LEVELS = {"debug", "info", "warning", "error"}
ADDED_TO_ALL = {"event", "level", "time"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def in_the_code() -> dict[str, tuple[set[str], set[str]]]:
    """Levels and fields of each event, over all the places that log it."""
    found: dict[str, tuple[set[str], set[str]]] = defaultdict(lambda: (set(), set()))
    for path in sorted(SOURCE.rglob("*.py")):
        for scope, call in calls(ast.parse(path.read_text("utf-8"))):
            levels = levels_of(call.func, scope)
            if not levels or is_the_note_itself(path, scope):
                continue
            note = isinstance(call.func, ast.Attribute) and call.func.attr == "note"
            assert all(keyword.arg for keyword in call.keywords), f"{path}:{call.lineno}: fields must be named"
            fields = {"market", "detail"} if note else {str(keyword.arg) for keyword in call.keywords}
            names = strings(call.args[0], scope)
            assert names, f"{path}:{call.lineno}: the event must be a plain string, or a name given plain strings"
            for name in names:
                found[name][0].update(levels)
                found[name][1].update(fields)
    return dict(found)


def calls(tree: ast.Module) -> Iterator[tuple[Function, ast.Call]]:
    """Every call in a function, with the innermost function around it."""

    def walk(node: ast.AST, scope: Function | None) -> Iterator[tuple[Function, ast.Call]]:
        for child in ast.iter_child_nodes(node):
            inner = child if isinstance(child, Function) else scope
            if isinstance(child, ast.Call) and inner is not None:
                yield inner, child
            yield from walk(child, inner)

    yield from walk(tree, None)


def levels_of(called: ast.expr, scope: Function) -> set[str]:
    """The levels that a call logs at: `log.info`, a name given `log.info if … else log.debug`, or `recent.note`."""
    match called:
        case ast.Attribute(value=ast.Name(id="log"), attr=level) if level in LEVELS:
            return {level}
        case ast.Attribute(value=ast.Name(id=owner) | ast.Attribute(attr=owner), attr="note") if "recent" in owner:
            return {"warning"}
        case ast.IfExp(body=body, orelse=other):
            return levels_of(body, scope) | levels_of(other, scope)
        case ast.Name(id=name):
            return {level for value in given_to(name, scope) for level in levels_of_value(value, scope)}
    return set()


def levels_of_value(value: ast.expr, scope: Function) -> set[str]:
    return set() if isinstance(value, ast.Name) else levels_of(value, scope)


def strings(value: ast.expr, scope: Function) -> set[str]:
    """The strings that an expression may be."""
    match value:
        case ast.Constant(value=str(text)):
            return {text}
        case ast.IfExp(body=body, orelse=other):
            return strings(body, scope) | strings(other, scope)
        case ast.Name(id=name):
            return {text for given in given_to(name, scope) if given is not value for text in strings(given, scope)}
    return set()


def given_to(name: str, scope: Function) -> list[ast.expr]:
    """What a name is given in a function."""
    return [
        node.value
        for node in ast.walk(scope)
        if isinstance(node, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id == name for target in node.targets)
    ]


def is_the_note_itself(path: Path, scope: Function) -> bool:
    """`Recent.note` logs what it is told; its callers are what is documented."""
    return path.name == "recent.py" and scope.name == "note"


def on_the_page() -> dict[str, tuple[set[str], set[str]]]:
    rows = re.findall(r"^\| `([a-z_.]+)` \| ([a-z, ]+) \| (.*?) ?\| .+ \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert len({event for event, _, _ in rows}) == len(rows), "an event stands twice on the page"
    return {
        event: (set(re.findall(r"[a-z]+", levels)), set(re.findall(r"`([a-z_]+)`", fields)))
        for event, levels, fields in rows
    }


def test_every_event_is_on_the_page_and_no_other() -> None:
    assert sorted(in_the_code()) == sorted(on_the_page())


def test_levels_and_fields_are_those_of_the_code() -> None:
    page, code = on_the_page(), in_the_code()
    wrong = {event: {"page": page[event], "code": code[event]} for event in page.keys() & code.keys()}
    assert {event: both for event, both in wrong.items() if both["page"] != both["code"]} == {}


def test_no_field_takes_the_name_of_what_every_event_has() -> None:
    assert {event for event, (_, fields) in in_the_code().items() if fields & ADDED_TO_ALL} == set()
