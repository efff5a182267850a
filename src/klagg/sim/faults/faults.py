"""All faults of one market, ready to be played."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar, cast

from klagg.sim.faults.answers import AnswerFault, AnswerFaults
from klagg.sim.faults.messages import MessageFault, MessageFaults
from klagg.sim.faults.playing import Playing
from klagg.sim.faults.requests import RequestFault, RequestFaults
from klagg.sim.faults.rows import RowFault, RowFaults
from klagg.sim.faults.schedule import Fault, Turns, tag_of
from klagg.sim.faults.sockets import SocketFault, SocketFaults
from klagg.sim.faults.timing import ClockDrift, ClockJump, TimeDelay, TimeDown, TimeFaults, TimeWrong
from klagg.sim.faults.trades import TradeFault, TradeFaults

if TYPE_CHECKING:
    from klagg.sim.settings import ExchangeSettings

F = TypeVar("F", bound=Fault)


class Faults:
    """What goes wrong on one market; `passed` tells its time since the start, which no fault touches."""

    def __init__(self, settings: "ExchangeSettings", start_ms: int, passed: Callable[[], int]) -> None:
        mine = [fault for fault in settings.faults if fault.market in (None, settings.market)]
        self.passed = passed
        self._tally: Counter[str] = Counter({tag_of(type(fault)): 0 for fault in mine})
        playing: list[Playing[Fault]] = [
            Playing(fault, f"{tag_of(type(fault))}#{number}", settings.seed, self._tally)
            for number, fault in enumerate(mine)
            if isinstance(fault, Fault)
        ]
        self.sockets = SocketFaults(_of(playing, SocketFault.__args__))
        self.trades = TradeFaults(_of(playing, (TradeFault,)))
        self.messages = MessageFaults(_of(playing, (MessageFault,)), passed)
        self.requests = RequestFaults(_of(playing, (RequestFault,)), passed, settings.speed)
        self.answers = AnswerFaults(_of(playing, AnswerFault.__args__), passed)
        self.rows = RowFaults(_of(playing, (RowFault,)), passed, start_ms)
        clocks = [fault for fault in mine if isinstance(fault, ClockDrift | ClockJump)]
        self._changes = [fault for fault in mine if not isinstance(fault, Turns)]
        self.time = TimeFaults(_of(playing, (TimeDown, TimeDelay, TimeWrong)), clocks, self._tally)

    def played(self) -> dict[str, int]:
        """How often each kind has struck so far."""
        passed_ms = self.passed()
        changed = Counter(tag_of(type(change)) for change in self._changes if change.after <= passed_ms)
        return {kind: self._tally[kind] + changed[kind] for kind in self._tally}


def _of(playing: Sequence[Playing[Fault]], kinds: tuple[type[F], ...]) -> list[Playing[F]]:
    return [cast("Playing[F]", each) for each in playing if isinstance(each.fault, kinds)]
