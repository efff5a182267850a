"""The guard: which candle may replace which, decided by the database at the write, whoever writes.

One statement inserts a closed candle or replaces the stored one: `rules.decide`, in its `WHERE` and its `SET`; a property test
holds it equal to that. Two functions of this connection, called only where a candle is already
stored, tell the writer what happened to each row; they decide nothing but the comparison of candles of different scales.
"""
# ruff: noqa: S608  # statements are built from names that stand in this package; values are bound

import sqlite3
from typing import TYPE_CHECKING, Final

import numpy as np

from klagg.fixed import join, rescale
from klagg.model import NUMBERS, Ints, Origin, Source
from klagg.rules import EVIDENT, FINAL, Leave
from klagg.store.schema import KEY, VALUES

if TYPE_CHECKING:
    from klagg.store.rows import Mask


_SCALED: Final = ("price_scale", "qty_scale", *NUMBERS)


def _differ(scaled: tuple[int, ...]) -> bool:
    """Whether two candles of different scales differ in their numbers; arguments: `_SCALED` of the one, then the other's."""
    one, other = (dict(zip(_SCALED, half, strict=True)) for half in (scaled[: len(_SCALED)], scaled[len(_SCALED) :]))
    price_scale = max(one["price_scale"], other["price_scale"])
    qty_scale = max(one["qty_scale"], other["qty_scale"])
    return _numbers_at(one, price_scale, qty_scale) != _numbers_at(other, price_scale, qty_scale)


def _numbers_at(row: dict[str, int], price_scale: int, qty_scale: int) -> tuple[int, ...]:
    prices = (rescale(row[name], row["price_scale"], price_scale) for name in ("open", "high", "low", "close"))
    volumes = (
        rescale(join(row[f"{name}_hi"], row[f"{name}_lo"]), row["qty_scale"], qty_scale)
        for name in ("volume", "taker_volume")
    )
    quotes = (
        rescale(
            join(row[f"{name}_hi"], row[f"{name}_lo"]), row["price_scale"] + row["qty_scale"], price_scale + qty_scale
        )
        for name in ("quote", "taker_quote")
    )
    return (*prices, *volumes, *quotes, row["trades"])


def _list(prefix: str, names: tuple[str, ...]) -> str:
    return ", ".join(f"{prefix}.{name}" for name in names)


def _statement() -> str:
    columns = (*KEY, *VALUES, "source", "verified", "known_ms")
    verified, known = f"?{len(columns) - 1}", f"?{len(columns)}"
    number, leave = f"?{len(columns) + 1}", f"?{len(columns) + 2}"
    same = f"""CASE
      WHEN candle.price_scale = excluded.price_scale AND candle.qty_scale = excluded.qty_scale
      THEN ({_list("candle", NUMBERS)}) = ({_list("excluded", NUMBERS)})
      ELSE NOT klagg_differ({_list("candle", _SCALED)}, {_list("excluded", _SCALED)}) END"""
    # A comparison that found the numbers equal brings no ids and no lower origin: what the trades told stays.
    confirms = f"(excluded.verified AND candle.origin <> {FINAL.value} AND {same})"
    # Two files of the exchange's archive that contradict each other: the newer is kept, and neither is verified.
    disputes = (
        f"(excluded.verified AND candle.verified AND excluded.source = {Source.ARCHIVE.value} "
        f"AND candle.source <> {Source.API.value} AND NOT {same})"
    )
    disputed = (
        f"(candle.origin = {Origin.EXCHANGE.value} AND NOT candle.verified AND candle.source = {Source.ARCHIVE.value})"
    )
    origin = (
        f"CASE WHEN {disputes} THEN {Origin.EXCHANGE.value} "
        f"WHEN {confirms} THEN max(candle.origin, excluded.origin) ELSE excluded.origin END"
    )
    is_verified = f"(excluded.verified AND NOT {disputes})"
    # Times of knowing run forward, whatever the clock of the writer says: each state of a candle has its span.
    later = "max(candle.known_ms, excluded.known_ms)"
    replaced = (*(name for name in VALUES if name not in ("first_id", "last_id", "origin")),)
    assignments = ",\n    ".join(f"{name} = excluded.{name}" for name in replaced)
    return f"""
  INSERT INTO candle ({", ".join(columns)}, verified_ms, revision)
  VALUES ({", ".join(f"?{n + 1}" for n in range(len(columns)))}, CASE WHEN {verified} THEN {known} ELSE 0 END, 0)
  ON CONFLICT (series, open_ms) DO UPDATE SET
    {assignments},
    first_id = CASE WHEN excluded.first_id < 0 AND {same} THEN candle.first_id ELSE excluded.first_id END,
    last_id = CASE WHEN excluded.last_id < 0 AND {same} THEN candle.last_id ELSE excluded.last_id END,
    origin = {origin},
    source = CASE WHEN candle.verified AND excluded.verified AND {same}
      THEN max(candle.source, excluded.source) ELSE excluded.source END,
    verified = {is_verified},
    known_ms = CASE WHEN {same} THEN candle.known_ms ELSE {later} END,
    verified_ms = CASE
      WHEN NOT {is_verified} THEN 0
      WHEN candle.verified AND {same} THEN candle.verified_ms
      ELSE {later} END,
    revision = klagg_replaced({number}, candle.origin, candle.verified, candle.revision, NOT {same}, {origin}, {is_verified})
  WHERE CASE WHEN CASE
    WHEN excluded.verified AND {disputed} THEN excluded.source = {Source.API.value}
    WHEN excluded.verified THEN NOT candle.verified OR {same} OR {disputes}
      OR (excluded.source, excluded.origin) >= (candle.source, candle.origin)
    WHEN candle.verified THEN 0
    WHEN excluded.origin = {FINAL.value} AND candle.origin <> {FINAL.value} AND candle.trades > 0 THEN 0
    WHEN candle.origin = {FINAL.value} AND excluded.origin <> {FINAL.value} AND excluded.trades > 0 THEN 1
    WHEN excluded.origin > candle.origin THEN 1
    WHEN excluded.origin = candle.origin THEN
      {leave} > {Leave.UNFENCED.value} OR excluded.origin <> {Origin.PARTIAL.value} OR excluded.trades >= candle.trades
    ELSE {leave} = {Leave.OWNER_AMENDS.value} AND candle.origin <= {EVIDENT[-1].value}
    END THEN 1 ELSE klagg_refused({number}, candle.revision) END"""


UPSERT: Final = _statement()
"""Parameters: as `rows.closed_rows` yields them."""


class Outcome:
    """What the guard did with each row of one batch."""

    def __init__(self, count: int) -> None:
        self.accepted: Mask = np.ones(count, np.bool_)
        self.changed: Mask = np.zeros(count, np.bool_)
        """The numbers of an existing closed candle changed."""
        self.settled: Mask = np.zeros(count, np.bool_)
        """By this row the candle left the repair queue, or never enters it."""
        self.revisions: Ints = np.zeros(count, np.int64)
        """As now stored (of a refused row: the stored candle's)."""
        self.left: list[tuple[int, int, int]] = []
        """Row number, origin and verified of each stored candle that was replaced."""
        self.origins: dict[int, int] = {}
        """The stored origin, where the stored candle was better than the row's."""
        self.disputed: list[int] = []
        """Row numbers of offers that contradict what the exchange said before: neither is verified now."""

    def among(self, judged: "Mask") -> "Outcome":
        """The outcome of a batch of which only these rows came to the guard: the others were not accepted."""
        whole = Outcome(len(judged))
        for name, default in (("accepted", False), ("changed", False), ("settled", False), ("revisions", -1)):
            column = getattr(whole, name)
            column[:] = default
            column[judged] = getattr(self, name)
        return whole


class Recorder:
    """The connection's functions that the statement calls, writing into the `Outcome` of the batch under way."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.outcome = Outcome(0)
        connection.create_function("klagg_replaced", 7, self._replaced)
        connection.create_function("klagg_refused", 2, self._refused)
        connection.create_function(
            "klagg_differ", 2 * len(_SCALED), lambda *scaled: _differ(scaled), deterministic=True
        )

    def _replaced(
        self, row: int, origin: int, verified: int, revision: int, differs: int, now_origin: int, now_verified: int
    ) -> int:
        outcome = self.outcome
        if verified and not now_verified:
            outcome.disputed.append(row)
        outcome.left.append((row, origin, verified))
        outcome.origins[row] = now_origin
        outcome.changed[row] = bool(differs)
        outcome.revisions[row] = revision + differs
        return revision + differs

    def _refused(self, row: int, revision: int) -> int:
        self.outcome.accepted[row] = False
        self.outcome.revisions[row] = revision
        return 0
