"""A made database, `klagg serve` over it, and a reader of each."""

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import klagg
from client.made import Owner
from klagg.serve.listening import listen


def free_port() -> int:
    bound = listen("127.0.0.1", 0)
    port: int = bound.getsockname()[1]
    bound.close()
    return port


@dataclass
class Served:
    """A database, and a service over it that can be stopped and started."""

    path: Path
    owner: Owner
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [
            sys.executable,
            "-m",
            "klagg.cli",
            "serve",
            "--db",
            str(self.path),
            "--serve",
            f"127.0.0.1:{self.port}",
        ]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{self.url}/healthz", timeout=5).close()
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
            else:
                return
        pytest.fail("klagg serve did not come up")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@contextmanager
def serving(path: Path) -> Iterator[Served]:
    served = Served(path, Owner(path))
    served.owner.fill()
    served.start()
    try:
        yield served
    finally:
        served.stop()
        served.owner.store.close()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("client") / "klagg.db") as one:
        yield one


@pytest.fixture(scope="module")
def database(served: Served) -> Iterator[klagg.Reader]:
    with klagg.open(served.path) as reader:
        yield reader


@pytest.fixture(scope="module")
def service(served: Served) -> Iterator[klagg.Reader]:
    with klagg.open(served.url) as reader:
        yield reader


@pytest.fixture(params=["database", "service"])
def reader(request: pytest.FixtureRequest) -> klagg.Reader:
    found: klagg.Reader = request.getfixturevalue(request.param)
    return found
