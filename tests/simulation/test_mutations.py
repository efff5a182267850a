"""Deliberate defects that must not go unseen: the simulation can fail."""

import pytest

from simulation import mutations
from simulation.plan import make
from simulation.shrink import play, shrink


@pytest.mark.parametrize("mutation", mutations.ALL, ids=lambda mutation: mutation.name)
def test_a_deliberate_defect_is_caught(mutation: mutations.Mutation) -> None:
    plan = make(mutation.seed)
    with mutation.applied():
        story = play(plan)
    assert story.failed, f"{mutation.name} goes unseen in the world of seed {mutation.seed}"


def test_the_shortest_story_keeps_only_what_the_failure_needs() -> None:
    mutation = mutations.BY_NAME["a failed write is taken for done"]
    with mutation.applied():
        story = shrink(play(make(mutation.seed)))
    assert story.failed
    assert len(story.plan.happenings) <= 2, str(story)
