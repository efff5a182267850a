from pathlib import Path

import pytest

from klagg.errors import UsageError
from klagg.store import open_store, parse_db_url


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("relative.db", "relative.db"),
        ("./a b/ü.db", "a b/ü.db"),
        ("/absolute.db", "/absolute.db"),
        ("sqlite:///relative.db", "relative.db"),
        ("sqlite:////absolute/x.db", "/absolute/x.db"),
        ("SQLITE:///x.db", "x.db"),
        ("~/x.db", str(Path.home() / "x.db")),
    ],
)
def test_paths_and_urls(text, path):
    assert parse_db_url(text) == Path(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("mysql://u@h/db", "unknown database scheme 'mysql'"),
        ("postgresql://u:secret@h/db", "not supported yet"),
        ("postgres://u@h/db", "not supported yet"),
        ("sqlite://host/x.db", "three slashes"),
        ("sqlite:x.db", "three slashes"),
        ("sqlite:///", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("  ", "empty"),
    ],
)
def test_what_is_refused(text, says):
    with pytest.raises(UsageError, match=says) as caught:
        open_store(text, mode="read")
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
