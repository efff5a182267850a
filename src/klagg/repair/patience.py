"""When what could not be settled is tried again: candles, symbols that fail or are refused, the exchange as a whole. Pure."""

from collections.abc import Iterable
from typing import Final

from klagg.interval import DAY_MS

Key = tuple[int, int, int]
"""One candle: instrument id, interval code, open."""

RETRY_MS: Final = 30_000
"""A candle that an answer lacked is not asked for again sooner, nor before it is older by a quarter."""
FOLD_RETRY_MS: Final = 10_000
"""A longer candle that waits for its children is folded again this often from what is stored."""
FAILED_FIRST_MS: Final = 5_000
"""The rest of a symbol whose request failed; it doubles with every further failure."""
FAILED_LAST_MS: Final = 60_000
REFUSED_RETRY_MS: Final = 600_000
"""The rest of a symbol that the exchange refuses (400, 404): a new listing may be refused during its first hour."""
REFUSALS: Final = 12
"""So many refusals in a row, two hours of them, go on record; from then on the symbol is asked for once a day."""
REFUSED_LAST_MS: Final = DAY_MS
WAITING_BOUND: Final = 500_000
"""Candles that wait for their next try (some 100 MB at the very worst); when full, those are forgotten whose time is nearest: they
are tried again at once."""
PRUNE_FROM: Final = 20_000
"""From so many on, those whose time has come are forgotten now and then."""
MANY: Final = 3
"""So many symbols that fail one after the other, and nothing that succeeds between: it is the exchange, or the database."""
PAUSE_FIRST_MS: Final = 1_000
PAUSE_LAST_MS: Final = 30_000


class Patience:
    """Who waits until when. Times are the exchange's."""

    def __init__(self) -> None:
        self._candles: dict[Key, int] = {}
        self._prune_at = PRUNE_FROM
        self._lacked: set[Key] = set()
        self._symbols: dict[int, int] = {}
        self._refusals: dict[int, int] = {}
        self._failures: dict[int, int] = {}
        self._failing: set[int] = set()
        self._pauses = 0
        self._paused_until_ms = 0

    def is_ready(self, key: Key, now_ms: int) -> bool:
        """Whether a candle may be tried now (its symbol aside)."""
        return self._candles.get(key, 0) <= now_ms

    def put_off(self, keys: Iterable[Key], until_ms: int, now_ms: int) -> None:
        """Leave candles alone until an instant."""
        self._candles.update(dict.fromkeys(keys, until_ms))
        if len(self._candles) > self._prune_at:
            self._candles = {key: until for key, until in self._candles.items() if until > now_ms}
            self._prune_at = max(PRUNE_FROM, 2 * len(self._candles))
        if len(self._candles) > WAITING_BOUND:
            waiting = sorted(((until, key) for key, until in self._candles.items() if until > now_ms), reverse=True)
            self._candles = {key: until for until, key in waiting[: WAITING_BOUND // 2]}

    def lacked(self, key: Key, end_ms: int, now_ms: int) -> None:
        """An answer should have had a candle and had not."""
        if len(self._lacked) >= WAITING_BOUND:
            self._lacked.clear()
        self._lacked.add(key)
        self.put_off([key], now_ms + max(RETRY_MS, (now_ms - end_ms) // 4), now_ms)

    def is_absent(self, keys: Iterable[Key]) -> None:
        """Candles that the exchange was seen not to have are looked at again: the answer has to span them."""
        self._lacked.update(keys)

    def has_lacked(self, key: Key) -> bool:
        """Whether an answer has lacked a candle already."""
        return key in self._lacked

    def settled(self, keys: Iterable[Key]) -> None:
        """Candles have come to an end."""
        for key in keys:
            self._candles.pop(key, None)
            self._lacked.discard(key)

    def is_resting(self, instrument_id: int, now_ms: int) -> bool:
        """Whether nothing of a symbol may be asked for now."""
        return self._symbols.get(instrument_id, 0) > now_ms

    def resting(self, now_ms: int) -> list[int]:
        """The symbols of which nothing may be asked for now."""
        return [instrument_id for instrument_id, until_ms in self._symbols.items() if until_ms > now_ms]

    def pause_ms(self, now_ms: int) -> int:
        """For how long nothing at all may be asked for."""
        return max(self._paused_until_ms - now_ms, 0)

    def refused(self, instrument_id: int, now_ms: int) -> bool:
        """The exchange refuses a symbol: it rests. Returns whether that has gone on long enough to be put on record."""
        count = self._refusals[instrument_id] = self._refusals.get(instrument_id, 0) + 1
        self._symbols[instrument_id] = now_ms + (REFUSED_RETRY_MS if count < REFUSALS else REFUSED_LAST_MS)
        self._answered()
        return count >= REFUSALS

    def is_on_record(self, instrument_id: int) -> None:
        """A symbol was put on record as refused before: one more refusal is enough."""
        self._refusals[instrument_id] = REFUSALS

    def failed(self, instrument_id: int, now_ms: int) -> None:
        """A symbol's request or write failed: it rests; where many fail one after the other, all do."""
        count = self._failures[instrument_id] = self._failures.get(instrument_id, 0) + 1
        self._symbols[instrument_id] = now_ms + min(FAILED_FIRST_MS << min(count - 1, 16), FAILED_LAST_MS)
        self._failing.add(instrument_id)
        if len(self._failing) >= MANY:
            self._failing.clear()
            self.pause(now_ms)

    def pause(self, now_ms: int) -> None:
        """Ask for nothing for a while; longer every time until something succeeds."""
        self._paused_until_ms = now_ms + min(PAUSE_FIRST_MS << min(self._pauses, 16), PAUSE_LAST_MS)
        self._pauses += 1

    def succeeded(self, instrument_id: int) -> None:
        """A symbol was settled."""
        self._refusals.pop(instrument_id, None)
        self._failures.pop(instrument_id, None)
        self._symbols.pop(instrument_id, None)
        self._answered()

    def _answered(self) -> None:
        self._failing.clear()
        self._pauses = 0
