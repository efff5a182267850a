"""What runs klagg for good is well-formed, safe, and says of klagg what is so; without a Docker engine, as far as that goes."""

import json
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml

from klagg.cli.reference import commands
from klagg.config.settings import NAMES
from klagg.model import Market
from klagg.service.market import LAST_FLUSH_S

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's, lines that go on joined, comments left out."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text("utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


def of(word: str) -> list[str]:
    return [rest for name, rest in instructions() if name == word]


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    return loaded


def unit() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (DEPLOY / "klagg.service").read_text("utf-8").splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+)s?", text)
    assert match is not None
    return float(match[1])


# The image


def test_every_instruction_is_one() -> None:
    known = {"ARG", "FROM", "ENV", "WORKDIR", "COPY", "RUN", "USER", "VOLUME", "EXPOSE"}
    assert {word for word, _ in instructions()} <= known | {"STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"}


def test_the_last_stage_is_small_and_not_root() -> None:
    stages = [index for index, (word, _) in enumerate(instructions()) if word == "FROM"]
    assert len(stages) == 2
    for base in of("FROM"):
        assert re.fullmatch(r"python:\$\{PYTHON\}-slim( AS build)?", base), "a base with a version, and the slim one"
    last = instructions()[stages[-1] :]
    # Numeric, so that an orchestrator can see that it is not root; and nothing runs as root after it.
    users = [index for index, (word, _) in enumerate(last) if word == "USER"]
    assert [last[index][1] for index in users] == ["8420:8420"]
    assert "RUN" not in [word for word, _ in last[users[0] :]]
    assert not [rest for word, rest in last if word == "COPY" and "--from=build" not in rest]
    assert not any("apt-get" in rest or "curl" in rest for _, rest in instructions())


def test_what_is_copied_is_there_and_let_in() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line and line[0] != "#"]
    assert rules[0] == "*", "what is not named stays outside: databases, the environment, the history"
    allowed = [rule[1:] for rule in rules if rule.startswith("!")]
    sources = [source for rest in of("COPY") if "--from" not in rest for source in rest.split()[:-1]]
    assert set(sources) == {"requirements/run.txt", "pyproject.toml", "README.md", "LICENSE", "src"}
    for source in sources:
        assert (ROOT / source).exists()
        assert any(fnmatchcase(source, rule) for rule in allowed)


def test_commands_are_lists_so_that_signals_arrive() -> None:
    assert [json.loads(rest) for rest in of("ENTRYPOINT")] == [["klagg"]]
    ((run,),) = [json.loads(rest) for rest in of("CMD")]
    assert f"klagg {run}" in {path for path, _ in commands()}
    assert of("STOPSIGNAL") == ["SIGTERM"]


def test_no_secret_is_in_the_image_and_settings_exist() -> None:
    names = {name for rest in of("ENV") for name in re.findall(r"([A-Z_]+)=", rest)}
    ours = {name.removeprefix("KLAGG_").lower() for name in names if name.startswith("KLAGG_")}
    assert ours == {"db", "log_format", "serve"}
    assert ours <= set(NAMES)
    asked = {name.removeprefix("KLAGG_").lower() for name in compose()["services"]["klagg"]["environment"]}
    assert asked <= set(NAMES)
    assert "serve_token" in asked, "an address that others can reach asks for a token"


def test_the_kernels_are_compiled_as_the_image_runs_them() -> None:
    build, last = (" ".join(part) for part in (of("ENV")[:-1], of("ENV")[-1:]))
    for name in ("NUMBA_CPU_NAME=generic", "XDG_CACHE_HOME=/var/cache"):
        assert name in build
        assert name in last
    (line,) = [rest for rest in of("RUN") if "compile_kernels" in rest]
    code = line.split('"')[1]
    compile(code, "Dockerfile", "exec")
    for module, name in re.findall(r"from (\S+) import (\w+)", code):
        assert hasattr(__import__(module, fromlist=[name]), name)


def test_the_health_check_runs(tmp_path: Path) -> None:
    (check,) = of("HEALTHCHECK")
    program, *arguments = json.loads(check.partition("CMD ")[2])
    assert program == "python"
    server = (
        "import http.server as h\n"
        "class A(h.BaseHTTPRequestHandler):\n"
        "    def do_GET(self): self.send_response(200 if self.path == '/healthz' else 500); self.end_headers()\n"
        "s = h.HTTPServer(('127.0.0.1', 0), A); print(s.server_port, flush=True); s.serve_forever()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", server], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as up:
        assert up.stdout is not None
        port = up.stdout.readline().strip()
        try:
            for path, code in (("/healthz", 0), ("/other", 1)):
                asked = [word.replace("8420", port).replace("/healthz", path) for word in arguments]
                assert (
                    subprocess.run([sys.executable, *asked], stderr=subprocess.DEVNULL, check=False).returncode == code
                )
        finally:
            up.kill()


# Compose


def test_compose() -> None:
    loaded = compose()
    service = loaded["services"]["klagg"]
    assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).resolve() == DEPLOY / "Dockerfile"
    mounted = dict(volume.split(":") for volume in service["volumes"])
    assert mounted == {"data": "/data", "cache": "/var/cache/klagg"}
    assert set(mounted) == set(loaded["volumes"])
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert seconds(service["stop_grace_period"]) > LAST_FLUSH_S * len(Market)
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert (service["restart"], service["init"]) == ("unless-stopped", True)


# systemd


def test_the_unit_is_what_systemd_takes(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    copy = tmp_path / "klagg.service"
    text = (DEPLOY / "klagg.service").read_text("utf-8")
    copy.write_text(text.replace("/opt/klagg/bin/klagg run", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    # 10 is a service without any hardening; below 2.5 is little exposed.
    judged = ["systemd-analyze", "security", "--offline=yes", "--threshold=25", str(copy)]
    done = subprocess.run(judged, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_unit_gives_time_and_knows_the_settings() -> None:
    lines = unit()
    assert seconds(lines["TimeoutStopSec"][0]) > LAST_FLUSH_S * len(Market)
    ours = [word for line in lines["Environment"] for word in re.findall(r"KLAGG_([A-Z_]+)=", line)]
    assert {name.lower() for name in ours} <= set(NAMES)
    assert lines["DynamicUser"] == ["yes"]
    assert lines["ExecStart"] == ["/opt/klagg/bin/klagg run"]
    # Usage errors end with 2 (docs/OPERATIONS.md).
    assert lines["RestartPreventExitStatus"] == ["2"]
    assert "MemoryDenyWriteExecute" not in lines, "kernels are compiled into memory"


# Completion


@pytest.mark.parametrize(
    ("shell", "says"), [("bash", "complete -F"), ("zsh", "#compdef klagg"), ("fish", "complete -c klagg")]
)
def test_completion_is_installed(shell: str, says: str, tmp_path: Path) -> None:
    out = tmp_path / "completion"
    command = [sys.executable, "-m", "klagg.cli", "install-completion", "--shell", shell, "--output", str(out)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    text = out.read_text("utf-8")
    assert says in text
    for name in ("export", "backfill", "--symbols"):
        assert name in text
    if shell == "bash" and shutil.which("bash"):
        assert subprocess.run(["bash", "-n", str(out)], check=False).returncode == 0
