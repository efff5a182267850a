"""What is built is what the sources say, and is served as it should be; without a browser and without Node."""

import gzip
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from litestar import Litestar
from litestar.testing import TestClient

from klagg.serve.page import FOR_EVER, POLICY, page_routes, read_page

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "page"
BUILT = ROOT / "src" / "klagg" / "serve" / "page" / "built"


def digest(folder: Path, *, without: str) -> str:
    """As page/vite.config.js computes it."""
    found = hashlib.sha256()
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_relative_to(folder / without))
    for name, path in sorted((path.relative_to(folder).as_posix(), path) for path in files):
        found.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()


def test_the_built_files_are_those_of_the_sources() -> None:
    told = json.loads((BUILT / "BUILD.json").read_text())
    assert told["sources"] == digest(SOURCES, without="node_modules"), "page/ was changed: run make page"
    assert told["built"] == digest(BUILT, without="BUILD.json"), "built files were changed by hand: run make page"


@pytest.mark.skipif(
    shutil.which("npm") is None or not (SOURCES / "node_modules").is_dir(),
    reason="the page's toolchain is not installed",
)
def test_a_fresh_build_is_the_committed_one(tmp_path: Path) -> None:
    fresh = tmp_path / "built"
    command = ["npx", "--no-install", "vite", "build", "--outDir", str(fresh), "--logLevel", "error"]
    subprocess.run(command, cwd=SOURCES, check=True, env={**os.environ, "NO_COLOR": "1"}, timeout=120)
    assert digest(fresh, without="BUILD.json") == digest(BUILT, without="BUILD.json")


def test_no_registry_is_named_in_the_lock() -> None:
    lock = (SOURCES / "package-lock.json").read_text()
    assert '"resolved"' not in lock
    assert "registry" not in lock


@pytest.fixture(scope="module")
def client() -> TestClient[Litestar]:
    return TestClient(Litestar(page_routes(), openapi_config=None))


def test_the_page_is_asked_for_again_and_what_it_names_is_kept_for_ever(client: TestClient[Litestar]) -> None:
    index = client.get("/")
    assert index.status_code == 200
    assert index.headers["content-type"] == "text/html; charset=utf-8"
    assert index.headers["cache-control"] == "no-cache"
    assert index.headers["content-security-policy"] == POLICY
    assert client.get("/", headers={"if-none-match": index.headers["etag"]}).status_code == 304
    named = [name for name in read_page() if name.startswith("assets/index-")]
    assert len(named) == 2
    for name in named:
        assert f"/{name}" in index.text
        asset = client.get(f"/{name}")
        assert asset.headers["cache-control"] == FOR_EVER
        assert asset.headers["content-type"].startswith("text/")
        assert asset.headers["content-encoding"] == "gzip"
        assert (
            asset.content
            == (BUILT / name).read_bytes()
            == client.get(f"/{name}", headers={"accept-encoding": ""}).content
        )
    assert client.get("/assets/NOTICE.txt").headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    "path", ["/assets/none.js", "/assets/", "/assets/..%2findex.html", "/assets/BUILD.json", "/BUILD.json"]
)
def test_nothing_else_is_there(client: TestClient[Litestar], path: str) -> None:
    assert client.get(path).status_code == 404


def test_the_page_is_small() -> None:
    """All that a browser fetches to show it, compressed: stated in the documentation."""
    assert sum(len(asset.packed) for name, asset in read_page().items() if not name.endswith(".txt")) < 100_000


def test_nothing_inline_and_nothing_from_elsewhere() -> None:
    """The policy would stop it in the browser; here the reason is named."""
    page = read_page()
    index = page["index.html"].body.decode()
    assert "style=" not in index
    assert "<script>" not in index
    assert "://" not in index
    packed = next(asset for name, asset in page.items() if name.endswith(".css"))
    style = gzip.decompress(packed.packed).decode()
    assert "url(" not in style
    assert "@import" not in style
