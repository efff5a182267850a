"""The targets under atheris: `python -m fuzz.run SECONDS [TARGET…]`; ends with 1 and the file of bytes when something is found.

Each target runs in a process of its own, since libFuzzer ends its process. What was found stays in `build/fuzz/found`: give it a short
name in `tests/fuzz/cases/TARGET`, and `make test` replays it. Only klagg's Python is instrumented: msgspec and the compiled
kernels are not, so samples are changed by their structure rather than by bits alone.
"""

import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType

FOLDER = Path("build/fuzz")
HANGS_AFTER_S = 20
LARGEST_BYTES = 1 << 16
SAMPLES = 300
"""Of each target, made from its seeds to begin with."""


def main(arguments: list[str]) -> int:
    """Run all targets, or those named, one after the other."""
    import atheris

    if arguments[:1] == ["--one"]:
        _one(atheris, arguments[1], arguments[2:])
        return 0
    from fuzz.targets import TARGETS

    seconds, names = int(arguments[0]), arguments[1:] or list(TARGETS)
    failed = []
    for name in names:
        print(f"{name}: {seconds} s", flush=True)  # noqa: T201 - a command says where it is
        options = [f"-max_total_time={seconds}", f"-timeout={HANGS_AFTER_S}", f"-max_len={LARGEST_BYTES}"]
        options += [f"-artifact_prefix={_folder('found')}/{name}-", "-print_final_stats=1", "-verbosity=0"]
        done = subprocess.run(
            [sys.executable, "-m", "fuzz.run", "--one", name, *options, str(_corpus(name))], check=False
        )
        if done.returncode:
            failed.append(name)
    if failed:
        text = f"found something in: {', '.join(failed)}; the bytes are in {FOLDER / 'found'}"
        print(text, file=sys.stderr)  # noqa: T201
    return 1 if failed else 0


def _one(atheris: ModuleType, name: str, options: list[str]) -> None:
    """Fuzz one target; does not return."""
    import structlog

    # Kernels are compiled from their bytecode, which must be their own.
    with atheris.instrument_imports(include=["klagg"], exclude=["klagg.archive.kernels", "klagg.engine"]):
        from fuzz.targets import TARGETS
    from fuzz.seeds import MAKERS, mutate_text

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))

    def mutate(data: bytes, largest: int, seed: int) -> bytes:
        rng = random.Random(seed)
        way = rng.random()
        if way < 0.4:
            return MAKERS[name](rng)[:largest]
        if way < 0.7:
            return mutate_text(data, rng)[:largest]
        changed: bytes = atheris.Mutate(data, largest)
        return changed

    atheris.Setup(["fuzz", *options], TARGETS[name], custom_mutator=mutate)
    atheris.Fuzz()


def _folder(name: str) -> Path:
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _corpus(name: str) -> Path:
    """The folder of samples to begin with, the kept cases among them; what is of use stays there between runs."""
    from fuzz.seeds import MAKERS

    folder = _folder(f"corpus/{name}")
    for number in range(SAMPLES):
        (folder / f"sample-{number}").write_bytes(MAKERS[name](random.Random(number)))
    for case in (Path(__file__).parent / "cases" / name).glob("*"):
        (folder / case.name).write_bytes(case.read_bytes())
    return folder


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
