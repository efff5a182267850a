"""`python -m mutants`: tries every deliberate defect; fails where one goes unseen."""

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from mutants.defects import DEFECTS
from mutants.table import PAGE, written
from mutants.trial import Trial, healthy, try_out


def main() -> int:
    parser = argparse.ArgumentParser(prog="mutants", description=__doc__)
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time")
    parser.add_argument("--only", default="", help="those with this text in their name or file")
    parser.add_argument("--list", action="store_true", help="only list them")
    parser.add_argument("--table", action="store_true", help=f"write the table of {PAGE.name}")
    asked = parser.parse_args()
    if asked.table:
        PAGE.write_text(written(PAGE.read_text("utf-8")), "utf-8")
        return 0
    chosen = [one for one in DEFECTS if asked.only in one.name or asked.only in one.file]
    if asked.list:
        print("\n".join(f"{one.name} ({one.file}): {', '.join(one.caught_by)}" for one in chosen))
        return 0
    started = time.perf_counter()
    ill = healthy([check for one in chosen for check in one.caught_by])
    if ill is not None:
        print(f"without any defect this fails already: {' '.join(ill.defect.caught_by)}\n{ill.text}")
        return 1
    with ThreadPoolExecutor(asked.jobs) as pool:
        trials = []
        for trial in pool.map(try_out, chosen):
            trials.append(trial)
            print(_told(trial), flush=True)
    unseen = [trial for trial in trials if trial.caught is not True]
    took_s = time.perf_counter() - started
    print(f"{len(trials)} defects, {len(trials) - len(unseen)} caught, {len(unseen)} not, {took_s:.0f} s")
    return 1 if unseen else 0


def _told(trial: Trial) -> str:
    what = f"{trial.defect.name} ({trial.defect.file})"
    if trial.caught is None:
        return f"NOT RUN   {what}: {' '.join(trial.defect.caught_by)}\n{trial.text}"
    return f"{'caught   ' if trial.caught else 'UNSEEN   '} {what}"


if __name__ == "__main__":
    sys.exit(main())
