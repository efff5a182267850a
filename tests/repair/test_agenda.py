"""What is asked for first."""

from klagg.interval import MINUTE, MINUTE_MS
from klagg.repair.agenda import Agenda
from klagg.repair.plan import Fetch, Why
from repair.rig import T0


async def test_what_is_urgent_goes_before_newer_ones_at_leisure():
    agenda = Agenda()
    urgent, older, newest = (
        Fetch(1, MINUTE, T0 + n * MINUTE_MS, T0 + (n + 1) * MINUTE_MS, why, frozenset({T0 + n * MINUTE_MS}))
        for n, why in ((3, Why.URGENT), (1, Why.URGENT), (9, Why.LEISURE))
    )
    agenda.put([newest, older, urgent])
    assert [await agenda.next() for _ in range(3)] == [urgent, older, newest]
