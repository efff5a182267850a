"""Worlds that must end well."""

import random
from dataclasses import replace

import pytest

from simulation.plan import INSTANT, LASTING, LIES, WORLDS, Happening, Plan, make
from simulation.shrink import play, play_seed

SEEDS = 200
GROUP = 20


@pytest.mark.parametrize("first", range(0, SEEDS, GROUP))
def test_every_world_ends_complete_true_and_durable(first: int) -> None:
    """`make simulate SEEDS=N` plays more of them."""
    for seed in range(first, first + GROUP):
        story = play_seed(seed, plain=True)
        assert not story.failed, (
            f"{story}\nplay it again, with its log and its shortest story: make simulate SEED={seed}"
        )


def test_the_seeds_play_every_fault() -> None:
    played = {one.kind for seed in range(SEEDS) for one in make(seed).happenings}
    worlds = {"revise", "wrong_push", "wrong_push_agreed", "power_loss", "take_over"}
    assert played == {*LASTING, *INSTANT, *LIES, *worlds} - {"crash_loop"}
    assert {make(seed).world for seed in range(SEEDS)} == {*WORLDS, ""}


@pytest.mark.parametrize("seed", [3, 7, 33])
def test_a_seed_plays_the_same_story_again(seed: int) -> None:
    first, again = play_seed(seed), play_seed(seed)
    assert list(first.log) == list(again.log)
    assert (first.candles, first.market_s, first.faults) == (again.candles, again.market_s, again.faults)


@pytest.mark.parametrize("world", WORLDS)
def test_a_seed_of_each_kind_of_world_plays_the_same_story_again(world: str) -> None:
    seed = next(seed for seed in range(1_000) if make(seed).world == world)
    first, again = play_seed(seed), play_seed(seed)
    assert first.plan.world == world
    assert list(first.log) == list(again.log)
    assert first.problems == again.problems


def healthy(market: str, seed: int) -> Plan:
    """Half an hour of a market in which nothing goes wrong."""
    plan = make(seed, plain=True)
    while plan.market != market:
        seed += 1
        plan = make(seed, plain=True)
    return replace(plan, happenings=(), end_s=1_800.0, audit_share=0.0, renew_h=23.0, lag_ms=150.0)


@pytest.mark.parametrize("market", ["usdm", "spot"])
def test_on_a_healthy_feed_minutes_are_verified_by_the_closing_push_within_five_seconds(market: str) -> None:
    """At least 99.9 % of those that the exchange pushed as its trades tell them, and the rest by REST soon after."""
    plan = healthy(market, random.Random(market).randrange(1_000))
    story = play(plan)
    assert not story.failed, str(story)
    assert story.soon / story.pushed >= 0.999, f"{story.soon} of {story.pushed}"


def test_a_world_of_many_crashes() -> None:
    """Torn at some forty places, one after the other."""
    chance = random.Random(77)
    crashes = tuple(
        Happening(
            round(5 + 11.3 * number, 2),
            chance.choice(("crash", "crash_in_store", "crash_at_frame", "crash_at_request")),
            round(chance.uniform(0.1, 2.0), 2),
            chance.randrange(1, 90),
        )
        for number in range(40)
    )
    story = play(replace(make(5, plain=True), happenings=crashes, end_s=460.0, audit_share=0.0))
    assert not story.failed, str(story)
    assert story.lives > 20
