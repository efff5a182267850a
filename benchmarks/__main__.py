"""`python -m benchmarks [P1 P5 …] [--quick] [--write FILE]`: one JSON line a figure on stdout, progress on stderr."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import (
    document,
    export_rates,
    nautilus,
    p1_apply,
    p2_single,
    p5_tick,
    p7_commit,
    p8_newest,
    p9_start,
    p11_archive,
    p12_serving,
    repair_outage,
)
from benchmarks.core import Figure, Measurement, Plan, say
from klagg.engine.engine import compile_kernels
from klagg.interval import DEFAULT_INTERVALS

FIGURES: tuple[Figure, ...] = (
    p1_apply.FIGURE,
    p2_single.FIGURE,
    p5_tick.FIGURE,
    p7_commit.FIGURE,
    p8_newest.FIGURE,
    p9_start.FIGURE,
    p11_archive.FIGURE,
    p12_serving.FIGURE,
    repair_outage.FIGURE,
    export_rates.FIGURE,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write the page if it is asked for; 1 only if a figure could not be measured."""
    parser = argparse.ArgumentParser(prog="klagg bench", description="Measure klagg's figures on this machine.")
    names = [figure.id for figure in FIGURES]
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"of {' '.join(names)}; all if none is named")
    parser.add_argument(
        "--quick", action="store_true", help="only show that the harness works; the figures mean little"
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the page (docs/PERFORMANCE.md)")
    parser.add_argument(
        "--rows", type=int, default=Plan.newest_rows, help="the longest history of P8 (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    unknown = [name for name in options.figures if name.upper() not in names]
    if unknown:
        parser.error(f"unknown figure {unknown[0]}: one of {' '.join(names)}")
    chosen = [figure for figure in FIGURES if not options.figures or figure.id in map(str.upper, options.figures)]
    plan = Plan(quick=options.quick, newest_rows=options.rows)
    if nautilus.installed() is None and {"P1", "P2"} & {figure.id for figure in chosen}:
        say(nautilus.NOT_INSTALLED)
    say("kernels: compiled, or loaded from the cache")
    compile_kernels(DEFAULT_INTERVALS)
    measured: list[Measurement] = []
    for figure in chosen:
        started = time.perf_counter()
        say(f"{figure.id}: {figure.title}")
        for measurement in figure.measure(plan):
            measured.append(measurement)
            print(json.dumps(measurement.line(), ensure_ascii=False), flush=True)
        say(f"{figure.id}: done in {time.perf_counter() - started:.0f} s")
    if options.write is not None:
        options.write.write_text(document.page(FIGURES, measured, quick=plan.quick), encoding="utf-8")
        say(f"written: {options.write}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
