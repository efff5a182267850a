"""The limits and times of streams: what the exchange allows, and how patient klagg is."""

from dataclasses import dataclass, replace
from typing import Final

from klagg.model import Market

STREAMS_PER_CONNECTION: Final = 1_024
"""The exchange's limit; the next one ends the connection and all its streams."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """How streams are held. Times are seconds of the `Clock`."""

    symbols_per_connection: int = 400
    """Each has two streams; fewer connections mean fewer reconnects, more mean less lost by each."""
    names_per_request: int = 160
    """200 work; some 4 KB of text are the least that older reports call safe."""
    request_spacing_s: float = 0.15
    """Between messages on one connection: USDT-M takes 10 a second, pongs included."""
    silence_s: float = 10.0
    """Silence after which a connection must justify itself (see `Lane`)."""
    renew_after_s: float = 23 * 3_600.0
    """A connection lives 24 h at most; renewals are spread over the 5 % before this age."""
    renew_patience_s: float = 60.0
    """How long a replacement may stay without data while its predecessor has some."""
    stable_s: float = 30.0
    """A connection that was in sight for this long was a success: the backoff begins anew."""
    heartbeat: str = "btcusdt@miniTicker"
    """A stream that never rests, beside the others on every connection: its pushes prove the connection alive when all its
    symbols are quiet. "" for none."""
    heartbeat_mark: bytes = b"24hrMiniTicker"
    """What tells a heartbeat's messages from the others."""

    def __post_init__(self) -> None:
        assert 2 * self.symbols_per_connection + bool(self.heartbeat) <= STREAMS_PER_CONNECTION
        assert self.names_per_request >= 2

    @classmethod
    def of(cls, market: Market) -> "StreamSettings":
        """The defaults of a market: spot takes 5 messages a second."""
        return replace(cls(), request_spacing_s=0.3) if market is Market.SPOT else cls()
