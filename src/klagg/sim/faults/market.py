"""Changes of the market itself, which its candles know: listings, delistings, halts, finer grids."""

from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec

from klagg.errors import UsageError
from klagg.model import Market
from klagg.sim.contracts import Contract, fresh_contract
from klagg.sim.faults.altered import AlteredTape, Finer
from klagg.sim.faults.schedule import Span
from klagg.sim.settings import ExchangeSettings
from klagg.sim.tape import Tape

SPOT_DECIMALS: Final = 8
Digits = Annotated[int, msgspec.Meta(ge=0, le=2)]


class Change(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"length": "for"}):
    """A change of one symbol."""

    symbol: str
    after: Span
    market: Market | None = None


class ListSymbol(Change, frozen=True, kw_only=True, tag_field="kind", tag="list"):
    """A symbol begins to trade: a new one, or one of the market, which was not there before."""


class Delist(Change, frozen=True, kw_only=True, tag_field="kind", tag="delist"):
    """A symbol's trading ends for good."""


class StatusChange(Change, frozen=True, kw_only=True, tag_field="kind", tag="status"):
    """A symbol has another status, and no trades, for a while."""

    status: Literal["HALT", "BREAK", "PRE_SETTLE", "UNDER_REVIEW", "PENDING_TRADING"] = "HALT"
    length: Span


class Scale(Change, frozen=True, kw_only=True, tag_field="kind", tag="scale"):
    """A symbol's grid becomes finer: prices and quantities have so many more digits."""

    price_digits: Digits = 1
    quantity_digits: Digits = 0


def change_market(
    changes: Sequence[Change], settings: ExchangeSettings, start_ms: int, contracts: list[Contract], tape: Tape
) -> Tape:
    """Put the changes into the contracts (in place); the tape that goes with them.

    Raises:
        UsageError: a symbol that the market does not have, or cannot be changed so.
    """
    by_symbol = {contract.symbol: contract for contract in contracts}
    altered = AlteredTape(tape)
    for change in changes:
        at_ms = start_ms + change.after
        contract = by_symbol.get(change.symbol)
        if isinstance(change, ListSymbol) and contract is None and not settings.replay:
            contract = by_symbol[change.symbol] = fresh_contract(settings, change.symbol, at_ms)
            contracts.append(contract)
        if contract is None:
            some = ", ".join(list(by_symbol)[:5])
            raise UsageError(
                f"faults: {settings.market} has no symbol {change.symbol!r} to change; it has {some}"
                + (", …" if len(by_symbol) > 5 else "")
            )
        match change:
            case ListSymbol():
                contract.listed_ms = at_ms
                # Futures are announced before they trade; on spot a symbol appears with its first trade.
                contract.visible_from_ms = at_ms if settings.is_spot else 0
            case Delist():
                contract.retired_ms = at_ms
            case StatusChange():
                contract.pauses = (*contract.pauses, (at_ms, at_ms + change.length, change.status))
                altered.halt(contract, at_ms, at_ms + change.length)
            case Scale():
                _refine(change, settings, contract)
                altered.refine(contract, Finer(at_ms, change.price_digits, change.quantity_digits))
    return altered if altered.changes else tape


def _refine(change: Scale, settings: ExchangeSettings, contract: Contract) -> None:
    finest = max(contract.price_decimals + change.price_digits, contract.qty_decimals + change.quantity_digits)
    if settings.is_spot and finest > SPOT_DECIMALS:
        raise UsageError(f"faults: {change.symbol} would have {finest} decimal places; spot writes {SPOT_DECIMALS}")
    if contract.finer_from_ms:
        raise UsageError(f"faults: {change.symbol} has two scale changes; write one")
