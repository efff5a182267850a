"""Deliberate defects that must not go unseen: the simulation can fail."""

import pytest

from simulation import mutations
from simulation.plan import make
from simulation.shrink import play, shrink


@pytest.mark.parametrize("mutation", mutations.ALL, ids=lambda mutation: mutation.name)
def test_a_deliberate_defect_is_caught(mutation: mutations.Mutation) -> None:
    with mutation.applied():
        stories = (play(make(seed, honest=True)) for seed in mutation.seeds)
        assert any(story.failed for story in stories), f"{mutation.name} goes unseen in the worlds of {mutation.seeds}"


def test_the_shortest_story_keeps_only_what_the_failure_needs() -> None:
    mutation = mutations.BY_NAME["a failed write is taken for done"]
    with mutation.applied():
        story = shrink(play(make(mutation.seeds[0], honest=True)))
    assert story.failed
    assert len(story.plan.happenings) <= 2, str(story)
