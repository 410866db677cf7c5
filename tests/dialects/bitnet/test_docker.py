"""The Dockerfile and the compose file, as far as they can be known to be right where no container runs."""

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZipFile

import pytest

from plait.cli.as_ import LAUNCHERS
from plait.cli.launchers.bitnet_http import MODEL
from plait.config import load, parse_bytes
from tests.serving import Server

yaml = import_module("yaml")  # comes with huggingface-hub, and without types

ROOT = Path(__file__).parents[3]
COMPILERS = ("cmake", "g++", "gcc", "make", "build-essential", "ninja")


class Instruction(NamedTuple):
    """One instruction of a Dockerfile, its continued lines joined."""

    stage: int
    word: str
    rest: str


def instructions() -> list[Instruction]:
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    found: list[Instruction] = []
    for line in filter(None, text.replace("\\\n", " ").splitlines()):
        word, _, rest = line.partition(" ")
        stage = (found[-1].stage if found else -1) + (word == "FROM")
        found.append(Instruction(stage, word, " ".join(rest.split())))
    return found


def of(word: str, stage: int | None = None) -> list[str]:
    """What stands after this word, in one stage or in all."""
    return [each.rest for each in instructions() if each.word == word and stage in (None, each.stage)]


def last_stage() -> int:
    return instructions()[-1].stage


def copied() -> list[str]:
    """What the build sees of this folder."""
    return [path for rest in of("COPY", stage=0) for path in rest.split()[:-1]]


@pytest.fixture
def service() -> Any:
    (service,) = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"].values()
    return service


def test_what_is_copied_exists_and_is_let_into_the_build() -> None:
    let_in = set(re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    assert copied()
    assert all((ROOT / path).exists() for path in copied())
    assert {path.split("/")[0] for path in copied()} == let_in


def test_what_is_copied_makes_a_wheel(tmp_path: Path) -> None:
    for path in copied():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).symlink_to(ROOT / path)
    program = "from hatchling.build import build_wheel; build_wheel('wheel')"
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    (wheel,) = (tmp_path / "wheel").iterdir()
    made = {name.partition("/")[2] for name in ZipFile(wheel).namelist()}
    assert {"cli/main.py", "METADATA", "licenses/LICENSE"} <= made


def test_all_that_is_installed_comes_with_hashes_or_is_plait() -> None:
    installs = [line for rest in of("RUN") for line in rest.split(" && ") if re.search(r"pip (install|wheel)", line)]
    locked = [re.findall(r"-r (\S+)", line) for line in installs if "--require-hashes" in line]
    assert locked == [["requirements/build.txt"], ["requirements/serve.txt"]]
    assert all("--no-deps" in line or "--no-index" in line for line in installs if "--require-hashes" not in line)


def test_it_is_built_as_the_makefile_builds() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for words in ("--no-build-isolation", "--require-hashes -r $<", "requirements/build.txt", "requirements/serve.txt"):
        assert words in makefile
    native = next(rest for rest in of("RUN") if "requirements/serve.txt" in rest)
    assert "--no-build-isolation" in native
    assert "CMAKE_ARGS" in makefile
    assert of("ARG", stage=0) == ['CMAKE_ARGS=""']


def test_the_image_has_no_compiler_and_runs_as_nobody_special() -> None:
    installed = {word for rest in of("RUN", last_stage()) for word in rest.split()}
    assert installed.isdisjoint(COMPILERS)
    assert {"cmake", "g++"} <= {word for rest in of("RUN", 0) for word in rest.split()}
    (user,) = of("USER", last_stage())
    assert int(user) >= 10_000
    assert f"--uid {user} " in " ".join(of("RUN", last_stage()))


def test_both_stages_have_the_same_python_which_is_new_enough() -> None:
    (base,) = {rest.split()[0] for rest in of("FROM")}
    version = re.match(r"python:3\.(\d+)-slim", base)
    assert version
    assert int(version[1]) >= 11


def test_it_starts_the_launcher() -> None:
    assert of("CMD") == ['["plait", "as", "bitnet"]']
    assert "bitnet" in LAUNCHERS
    (copied,) = of("COPY", last_stage())
    stage, source, target = copied.split()
    assert of("FROM")[0].endswith(" AS " + stage.removeprefix("--from="))
    assert of("ENV") == [f"PATH={target}/bin:$PATH"]
    # Scripts in there begin with the path of their Python.
    assert source == target
    assert f"python -m venv {source} " in " ".join(of("RUN", 0))


def test_models_are_where_the_launcher_looks(service: Any) -> None:
    (folder,) = of("WORKDIR", last_stage())
    assert service["volumes"] == [f"./{MODEL.parts[0]}:{folder}/{MODEL.parts[0]}:ro"]


def test_the_service_is_what_the_readme_says(service: Any) -> None:
    assert (service["build"], service["image"], service["restart"]) == (".", "bitnet-llm-server", "unless-stopped")
    assert (service["ports"], of("EXPOSE")) == (["8000:8000"], ["8000"])
    assert service["environment"]["MODEL_INSTANCES"] == "2"
    assert service["deploy"]["resources"]["limits"] == {"cpus": "4", "memory": "8G"}


def test_the_instances_fit_their_limits(service: Any) -> None:
    said, limits = service["environment"], service["deploy"]["resources"]["limits"]
    assert int(said["MODEL_INSTANCES"]) * int(said["MAX_THREADS"]) <= int(limits["cpus"])
    settings = load(env={name: value for name, value in said.items() if name.startswith("PLAIT_")})
    assert settings.models.memory_budget < parse_bytes(limits["memory"], "memory")
    assert float(service["stop_grace_period"].removesuffix("s")) > settings.server.drain_timeout


@pytest.mark.parametrize(("path", "code"), [("/health", 0), ("/nothing", 1)])
def test_the_health_check_knows_the_healthy(service: Any, server: Server, path: str, code: int) -> None:
    program, python, flag, script = service["healthcheck"]["test"]
    assert (program, python, flag) == ("CMD", "python", "-c")
    there = script.replace("http://127.0.0.1:8000/health", server.url + path)
    assert there != script
    assert subprocess.run([sys.executable, "-c", there], stderr=subprocess.DEVNULL, check=False).returncode == code
