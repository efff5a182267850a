"""One hour of one symbol's aggregate trades, as columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Block:
    """Aggregate trades in id order, all columns int64 of one length.

    `price` and `qty` are whole numbers of the contract's smallest written units (10^-price_decimals, 10^-qty_decimals);
    `maker` is 1 where the buyer was the maker; times are UTC ms.
    """

    agg_id: Ints
    price: Ints
    qty: Ints
    first_id: Ints
    last_id: Ints
    time_ms: Ints
    maker: Ints

    def __len__(self) -> int:
        return len(self.agg_id)

    @property
    def nbytes(self) -> int:
        """The memory of the columns."""
        return 7 * self.agg_id.nbytes

    def cut(self, start: int, stop: int) -> Self:
        """The trades at positions `[start, stop)`, as views."""
        if start <= 0 and stop >= len(self):
            return self
        rows = slice(max(0, start), max(0, stop))
        return type(self)(*(column[rows] for column in self.columns()))

    def between(self, start_ms: int, end_ms: int) -> Self:
        """The trades of `[start_ms, end_ms)`."""
        return self.cut(
            int(np.searchsorted(self.time_ms, start_ms, "left")), int(np.searchsorted(self.time_ms, end_ms, "left"))
        )

    def columns(self) -> tuple[Ints, ...]:
        """All columns in the order of the fields."""
        return (self.agg_id, self.price, self.qty, self.first_id, self.last_id, self.time_ms, self.maker)

    @classmethod
    def empty(cls) -> Self:
        """No trades."""
        none = np.zeros(0, np.int64)
        return cls(none, none, none, none, none, none, none)

    @classmethod
    def joined(cls, blocks: Sequence["Block"]) -> Self:
        """Several blocks that follow each other, as one."""
        if not blocks:
            return cls.empty()
        return cls(*(np.concatenate(column) for column in zip(*(block.columns() for block in blocks), strict=True)))
