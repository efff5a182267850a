"""The shortest story: a failing plan without whatever it fails without."""

import tempfile
from dataclasses import replace
from pathlib import Path

from simulation.plan import Plan, make
from simulation.world import Story, World


def play(plan: Plan) -> Story:
    """One world, in memory where the system has such a place."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="klagg-simulation-", dir=shared if shared.is_dir() else None) as folder:
        return World(plan, Path(folder) / "klagg.db").run()


def play_seed(seed: int, *, plain: bool = False) -> Story:
    """The world of a seed; `plain`: an ordinary one without lies."""
    return play(make(seed, plain=plain))


def shrink(story: Story, tries: int = 200) -> Story:
    """Leave out happenings, then symbols and workers, while something still goes wrong."""
    best = story
    index = len(best.plan.happenings) - 1
    while index >= 0 and tries > 0:
        tries -= 1
        shorter = play(best.plan.without(index))
        if shorter.failed:
            best = shorter
        index = min(index - 1, len(best.plan.happenings) - 1)
    for simpler in _simpler(best.plan):
        if tries > 0:
            tries -= 1
            shorter = play(replace(best.plan, **simpler))
            best = shorter if shorter.failed else best
    return best


def _simpler(plan: Plan) -> list[dict[str, object]]:
    fewer = [
        {"symbols": tuple(other for other in plan.symbols if other is not one)}
        for one in plan.symbols
        if one.name != "BTCUSDT" and all(one.name != what.name for what in plan.happenings)
    ]
    return [{"workers": 1}, {"history": "0"}, {"memory_bytes": 64 << 20}, {"intervals": "1m"}, *fewer]
