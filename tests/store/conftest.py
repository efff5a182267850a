"""A fresh store with three instruments."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from klagg.model import Market
from klagg.store import open_store
from store.samples import SYMBOLS, T0, Owned, instrument


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "klagg.db"


@pytest.fixture
def owned(db: Path) -> Iterator[Owned]:
    store = open_store(str(db), mode="create")
    ids = store.put_instruments([instrument(symbol) for symbol in SYMBOLS], T0)
    yield Owned(store, ids, store.claim(Market.USDM, owner="first", now_ms=T0))
    store.close()
