"""`klagg doctor` against an offline exchange that is well, and one that is not."""

import asyncio
import json
from pathlib import Path

import pytest

from klagg.cli.doctor import _examine
from klagg.config.settings import Settings
from klagg.model import Market
from klagg.serve.listening import listen
from klagg.service import doctor
from klagg.service.doctor import Grade, examine
from klagg.sim import ExchangeSettings, OfflineExchange
from klagg.store import open_store


def settings(exchange: OfflineExchange, db: Path, **changes: object) -> Settings:
    wanted = {"rest_url": (exchange.rest_url,), "ws_url": (exchange.ws_url,), "serve": "127.0.0.1:0"} | changes
    return Settings(market=("usdm",), db=str(db), **wanted)  # type: ignore[arg-type]


async def found(chosen: Settings) -> dict[str, tuple[Grade, str]]:
    return {finding.what: (finding.grade, finding.detail) async for finding in examine(chosen)}


async def test_all_is_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_store(str(tmp_path / "klagg.db"), mode="create").close()
    async with OfflineExchange(ExchangeSettings(market=Market.USDM, symbols=3, history_ms=0, speed=20.0)) as exchange:
        chosen = settings(exchange, tmp_path / "klagg.db")
        findings = await found(chosen)
        assert [what for what, (grade, _) in findings.items() if grade is Grade.FAILED] == []
        assert {"usdm REST", "usdm clock", "usdm weight", "usdm stream", "database", "disk", "address"} <= set(findings)
        assert await _examine(chosen, as_json=True) == 0
        assert len(json.loads(capsys.readouterr().out)) == len(findings)


async def test_what_stands_in_the_way_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PATIENCE_S", 0.5)
    (tmp_path / "other.db").write_text("no database at all, but a text that is long enough")
    taken = listen("127.0.0.1", 0)
    async with OfflineExchange(ExchangeSettings(market=Market.USDM, symbols=3, history_ms=0)) as exchange:
        exchange.refuse(451, 1, "/time")
        silent = exchange.ws_url + "/public/ws"
        findings = await found(
            settings(exchange, tmp_path / "other.db", ws_url=(silent,), serve=f"127.0.0.1:{taken.getsockname()[1]}")
        )
    taken.close()
    assert findings["usdm REST"][0] is Grade.FAILED
    assert "does not serve this location" in findings["usdm REST"][1]
    assert findings["usdm stream"] == (
        Grade.FAILED,
        f"{silent}: nothing came in 0 s: a firewall or a proxy holds it back",
    )
    assert findings["database"][0] is Grade.FAILED
    assert "in use" in findings["address"][1]


async def test_an_exchange_that_is_not_there(tmp_path: Path) -> None:
    nobody = ("http://127.0.0.1:9",)
    findings = await found(
        Settings(db=str(tmp_path / "k.db"), rest_url=nobody, ws_url=("ws://127.0.0.1:9",), serve="127.0.0.1:0")
    )
    assert findings["usdm REST"][0] is findings["usdm stream"][0] is Grade.FAILED
    assert findings["database"] == (Grade.NOTE, f"{tmp_path / 'k.db'} is not there yet: klagg run makes it")
    name = await found(
        Settings(db=str(tmp_path / "k.db"), rest_url=("http://no.such.host.invalid",), serve="127.0.0.1:0")
    )
    assert name["usdm http name"][0] is not Grade.OK
    await asyncio.sleep(0)
