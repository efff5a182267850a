"""What a start makes of any list and of whatever the database knows."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klagg.config.values import SymbolFilter
from klagg.errors import UsageError
from klagg.model import Instrument, Market, Status
from klagg.service.sorting import FEW, Sorting
from klagg.store import StoredInstrument

NAMES = [f"S{n}" for n in range(14)]
WORDS = {Status.TRADING: "TRADING", Status.HALTED: "BREAK", Status.PENDING: "PRE_TRADING", Status.RETIRED: "GONE"}


def one(symbol: str, status: Status) -> Instrument:
    return Instrument(Market.SPOT, symbol, status, 2, 2, native_status=WORDS[status])


def known(number: int, symbol: str, status: Status) -> StoredInstrument:
    return StoredInstrument(number, one(symbol, status), 5_000 if status is Status.RETIRED else None)


statuses = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(list(Status)))


@given(listed=statuses, stored=statuses)
def test_who_does_not_trade_is_nobody_unless_it_has_a_life_here(
    listed: dict[str, Status], stored: dict[str, Status]
) -> None:
    sorting = Sorting(
        Market.SPOT,
        SymbolFilter.parse(["all"], Market.SPOT),
        [known(number, symbol, status) for number, (symbol, status) in enumerate(stored.items(), 1)],
    )
    instruments = [one(symbol, status) for symbol, status in listed.items()]
    alive = {symbol for symbol, status in stored.items() if status is not Status.RETIRED}
    trading = {symbol for symbol, status in listed.items() if status is Status.TRADING}
    try:
        found = sorting.sort(instruments)
    except UsageError:
        assert not trading
        return
    assert {each.symbol for each in found.trading} == trading
    assert found.again == trading & (stored.keys() - alive)
    assert found.were_paused == {symbol for symbol in trading if stored.get(symbol) is Status.HALTED}
    assert found.stopped.keys() == alive - trading
    assert {each.symbol for each in found.absent} == alive - listed.keys()
    left = {symbol for symbol, each in found.stopped.items() if each.status is Status.RETIRED}
    said = {symbol for symbol in alive & listed.keys() if listed[symbol] is Status.RETIRED}
    assert left == (set() if len(said) > max(len(alive) // 2, FEW) else said), "absence alone is no end"
    assert found.unseen_end == {symbol for symbol in found.stopped if stored[symbol] is not Status.HALTED}
    assert sorting.is_doubtful(instruments) == (len(alive - listed.keys()) > max(len(alive) // 2, FEW))


def test_a_symbol_that_never_traded_here_cannot_be_run_while_it_does_not_trade() -> None:
    wanted = SymbolFilter.parse(["S0"], Market.SPOT)
    halted = one("S0", Status.HALTED)
    with pytest.raises(UsageError, match=r"no symbol to run .* \(S0 BREAK\)"):
        Sorting(Market.SPOT, wanted, []).sort([halted])
    paused = Sorting(Market.SPOT, wanted, [StoredInstrument(1, replace(halted, status=Status.TRADING), None)])
    assert paused.sort([halted]).paused == ["S0"]
    assert paused.sort([]).paused == ["S0"], "an empty list does not end a service that knows its symbols"
