"""`python -m simulation`: plays seeds, prints the first that fails and its shortest story."""

import argparse
import functools
import multiprocessing
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from simulation.shrink import play_seed, shrink


def main() -> int:
    parser = argparse.ArgumentParser(prog="simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=500, help="how many seeds to play")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="play this one and tell its story with its log")
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count(), help="processes")
    parser.add_argument("--plain", action="store_true", help="ordinary worlds without lies of REST")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first failure, and do not shrink")
    asked = parser.parse_args()
    if asked.seed is not None:
        return tell(asked.seed, plain=asked.plain)
    seeds = range(asked.first, asked.first + asked.seeds)
    started, faults, market_s, candles, failed = time.perf_counter(), Counter[str](), 0.0, 0, 0
    playing = functools.partial(play_seed, plain=asked.plain)
    with ProcessPoolExecutor(asked.jobs, multiprocessing.get_context("spawn")) as pool:
        for done, story in enumerate(map(playing, seeds) if asked.jobs == 1 else pool.map(playing, seeds), 1):
            faults.update(story.faults)
            market_s += story.market_s
            candles += story.candles
            if story.failed:
                failed += 1
                print(story, flush=True)
                if not asked.keep_going:
                    pool.shutdown(wait=False, cancel_futures=True)
                    print("shrinking …", flush=True)
                    print(f"\nthe shortest story of seed {story.plan.seed}:\n{shrink(story)}")
                    print(f"\nplay it again: make simulate SEED={story.plan.seed}")
                    return 1
            if done % 100 == 0:
                print(
                    f"{done} seeds, {market_s / 3600:.1f} h of market, {time.perf_counter() - started:.0f} s",
                    flush=True,
                )
    took_s = time.perf_counter() - started
    print(
        f"{len(seeds)} seeds: {failed} failed; {market_s / 3600:.1f} h of market in {took_s:.0f} s, {candles} candles judged"
    )
    print("faults played: " + ", ".join(f"{kind} {count}" for kind, count in sorted(faults.items())))
    return 1 if failed else 0


def tell(seed: int, *, plain: bool) -> int:
    """One seed, with its log, and its shortest story where it fails."""
    story = play_seed(seed, plain=plain)
    print("\n".join(story.log))
    print(story)
    if story.failed:
        print(f"\nthe shortest story:\n{shrink(story)}")
    return 1 if story.failed else 0


if __name__ == "__main__":
    sys.exit(main())
