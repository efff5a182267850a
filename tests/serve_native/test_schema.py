"""The description against what is served: schemathesis asks what it allows and what it does not, and finds no 5xx and no other shape."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from serve_native.rig import Owner, served

EXAMPLES = {GenerationMode.POSITIVE: 20, GenerationMode.NEGATIVE: 10}
STREAMS = "/v1/feed"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A served database, in a loop and thread of its own: schemathesis is not asynchronous."""
    owner = Owner(tmp_path_factory.mktemp("schema") / "klagg.db")
    owner.close(12)
    owner.settle("BTCUSDT", 3, 10_999)
    found: list[str] = []
    ready, loop = threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        async with served(owner.path) as rig:
            async with rig.http.get(f"http://{rig.base}/v1/docs"):
                found.append(f"http://{rig.base}")
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(20)
    yield found[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()
    owner.store.close()


CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_every_route_is_as_it_is_described(base: str, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"{base}/v1/openapi.json").exclude(path=STREAMS)
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) > 12
    asked = 0
    for operation in operations:

        @settings(
            max_examples=EXAMPLES[mode],
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case) -> None:
            nonlocal asked
            asked += 1
            case.call_and_validate(checks=CHECKS)

        with contextlib.suppress(Unsatisfiable):  # nothing can be wrong of a route without parameters
            ask()
    assert asked > 100


async def test_nothing_of_the_page_comes_from_elsewhere(base: str) -> None:
    async with aiohttp.ClientSession() as http:
        for path in ("/v1/docs", "/v1/docs/docs.js", "/v1/docs/docs.css"):
            async with http.get(base + path) as response:
                text = await response.text()
                assert response.status == 200
                assert "default-src 'self'" in response.headers["Content-Security-Policy"]
                assert "//" not in text.replace("// Shows", "").replace("://", "//" if "http" in text else "")
        async with http.get(base + "/v1/openapi.json") as response:
            described = await response.json()
    paths = set(described["paths"])
    assert paths >= {
        "/v1/candles",
        "/v1/feed",
        "/v1/events",
        "/v1/overview",
        "/v1/minutes",
        "/v1/status",
        "/v1/ops",
        "/udf/history",
    }
    assert not [path for path in paths if not path.startswith(("/v1/", "/udf/"))]
    for path, item in described["paths"].items():
        for parameter in item["get"].get("parameters", []):
            assert parameter.get("description") or parameter["schema"].get("description"), (path, parameter["name"])
        assert item["get"]["summary"], path


def test_what_the_documents_say_is_all_there() -> None:
    page = (Path(__file__).parents[2] / "docs" / "API.md").read_text("utf-8")
    for path in (
        "/v1/candles",
        "/v1/candle",
        "/v1/symbols",
        "/v1/gaps",
        "/v1/barriers",
        "/v1/events",
        "/v1/feed",
        "/v1/overview",
    ):
        assert f"`{path}" in page
