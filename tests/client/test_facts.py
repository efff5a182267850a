"""Symbols, status, gaps and barriers by the Python API; what stands in the way; what it costs to import."""

import subprocess
import sys
from pathlib import Path

import pytest

import klagg
from client.conftest import Served, free_port
from client.made import END_MS, HOLE_MS, LEARNED_MS, LISTED_MS, START_MS


def test_symbols(database: klagg.Reader, service: klagg.Reader) -> None:
    assert database.symbols() == service.symbols()
    found = {one.symbol: one for one in database.symbols()}
    assert list(found) == ["1000SHIBUSDT", "BTCUSDT", "ETHUSDT"]
    assert found["1000SHIBUSDT"] == klagg.Symbol(
        "usdm", "1000SHIBUSDT", "trading", "TRADING", "1000SHIB", "USDT", 8, 0, LISTED_MS, None
    )
    assert (found["ETHUSDT"].status, found["ETHUSDT"].retired_ms) == ("retired", LEARNED_MS)
    for at in (START_MS, LISTED_MS - 1, LISTED_MS, LEARNED_MS - 1, LEARNED_MS):
        assert database.symbols(at) == service.symbols(at)
    assert [one.symbol for one in database.symbols(LEARNED_MS)] == ["1000SHIBUSDT", "BTCUSDT"]


def test_status(database: klagg.Reader, service: klagg.Reader) -> None:
    assert database.status() == service.status()
    (market,) = database.status().markets
    assert (market.market, market.symbols, market.durable_ms) == ("usdm", 2, END_MS)
    assert (market.open_gaps, market.final_gaps) == (1, 1)
    assert database.status().of("spot") is None


def test_gaps(database: klagg.Reader, service: klagg.Reader) -> None:
    for state in ("open", "final", "repaired", "all"):
        assert database.gaps(state) == service.gaps(state)
    (gap,) = database.gaps()
    assert (gap.symbol, gap.start_ms, gap.end_ms, gap.reason, gap.state) == (
        *("ETHUSDT", *HOLE_MS),
        "the disk was full",
        "open",
    )
    assert len(database.gaps("all", limit=1)) == 1
    for reader in (database, service):
        with pytest.raises(klagg.UsageError):
            reader.gaps("lost")


def test_barriers(database: klagg.Reader, service: klagg.Reader) -> None:
    assert database.barriers() == service.barriers()
    durable = [one for one in database.barriers() if one.kind == "barrier_durable"]
    assert (durable[0].boundary_ms, durable[0].market) == (END_MS, "usdm")


def test_the_market_is_the_one_that_is_there(served: Served) -> None:
    for place in (str(served.path), f"sqlite:///{served.path}", served.url):
        with klagg.open(place) as reader:
            assert reader.market == "usdm"
        with pytest.raises(klagg.UsageError):
            klagg.open(place, market="spot")


@pytest.mark.parametrize(
    ("place", "error", "reason"),
    [
        ("none.db", klagg.StoreError, "none.db"),
        ("mongodb://x/y", klagg.UsageError, "unknown database scheme"),
        ("http://", klagg.UsageError, "no address of a service"),
        ("http://127.0.0.1:999999", klagg.UsageError, "no address of a service"),
        ("http://127.0.0.1:{port}", klagg.ServiceError, "the service cannot be reached"),
    ],
)
def test_what_cannot_be_opened(
    place: str, error: type[klagg.KlaggError], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=reason) as raised:
        klagg.open(place.format(port=free_port()), timeout=5)
    assert "\n" not in str(raised.value)
    assert isinstance(raised.value, klagg.KlaggError)


def test_importing_costs_nothing() -> None:
    script = "import klagg, sys; heavy = {'numpy', 'pyarrow', 'sqlite3', 'asyncio', 'structlog'} & set(sys.modules); print(heavy)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_every_name_is_there_and_typed() -> None:
    stub = Path(klagg.__file__).with_suffix(".pyi").read_text("utf-8")
    for name in klagg.__all__:
        assert hasattr(klagg, name)
        assert f" {name}:" in stub.replace("__version__", " __version__") or f" as {name}\n" in stub
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        klagg.nothing  # noqa: B018
    assert Path(klagg.__file__).with_name("py.typed").is_file()
