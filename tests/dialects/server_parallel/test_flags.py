"""Row 3.11: every flag of server-parallel takes effect, or is refused with a reason."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from plait.cli.launchers import server_parallel
from plait.cli.launchers.server_parallel import Flags, command, configured
from plait.config import Config, Engine, Models, Server
from plait.dialects.server_parallel_state import Settings
from tests.dialects.server_parallel.asking import Client, contents
from tests.dialects.server_parallel.conftest import started


def heard(*flags: str) -> Flags:
    return Flags(**command.make_context("server-parallel", ["-m", "plait-demo", *flags]).params)


def said(*flags: str) -> Config:
    """The settings that these flags come to."""
    return configured(heard(*flags))


def served(*flags: str) -> Settings:
    """What they choose of the dialect."""
    return server_parallel.settings(heard(*flags))


VOWELS = "aeiou"

OWN = Engine(ctx_size=512, slots=1, batch_size=512, ubatch_size=512, cont_batching=False, n_gpu_layers=0)

ENGINE = [
    (["-t", "3"], {"threads": 3}),
    (["--threads", "3"], {"threads": 3}),
    (["-tb", "5"], {"threads_batch": 5}),
    (["--threads-batch", "5"], {"threads_batch": 5}),
    (["-c", "2048"], {"ctx_size": 2048}),
    (["--ctx_size", "2048"], {"ctx_size": 2048}),
    (["--rope-freq-base", "10000"], {"rope_freq_base": 10000.0}),
    (["--rope-freq-scale", "0.5"], {"rope_freq_scale": 0.5}),
    (["-b", "128"], {"batch_size": 128, "ubatch_size": 128}),
    (["-b", "4096"], {}),
    (["-b", "8"], {"batch_size": 64, "ubatch_size": 64}),
    (["--memory-f32"], {"cache_type_k": "f32", "cache_type_v": "f32"}),
    (["--memory_f32"], {"cache_type_k": "f32", "cache_type_v": "f32"}),
    (["--mlock"], {"mlock": True}),
    (["--no-mmap"], {"mmap": False}),
    (["--numa"], {"numa": "distribute"}),
    (["-ngl", "33"], {"n_gpu_layers": 33}),
    (["--gpu-layers", "-1"], {"n_gpu_layers": 0}),
    (["--n-gpu-layers", "99999"], {"n_gpu_layers": 1024}),
    (["-mg", "1"], {"main_gpu": 1}),
    (["-ts", "3/1"], {"tensor_split": "3,1"}),
    (["--tensor-split", "3,1"], {"tensor_split": "3,1"}),
    (["-np", "4"], {"slots": 4}),
    (["--parallel", "4"], {"slots": 4}),
    (["-cb"], {"cont_batching": True}),
    (["--cont-batching"], {"cont_batching": True}),
    (["--lora", "a.gguf", "--lora-scaled", "b.gguf", "0.5"], {"lora": ("a.gguf=1", "b.gguf=0.5")}),
]


@pytest.mark.parametrize(("flags", "changes"), ENGINE, ids=lambda value: " ".join(value))
def test_3_11_a_flag_of_the_engine_is_its_setting(flags: list[str], changes: dict[str, object]) -> None:
    assert {name: getattr(said(*flags).engine, name) for name in changes} == changes
    unchanged = set(Engine.__struct_fields__) - set(changes)
    assert all(getattr(said(*flags).engine, name) == getattr(OWN, name) for name in unchanged)


@pytest.fixture(scope="package")
def flagged(endless: Path) -> Iterator[Client]:
    ends = [word for vowel in VOWELS for word in ("-r", vowel)]
    yield from started("-m", str(endless), "-c", "4096", "-tb", "2", "--memory-f32", *ends)


def test_3_11_flags_take_effect_on_a_running_server(flagged: Client, limited: Client) -> None:
    """Values of 32 bits take twice the room of those of 16, and answers end at what was said with -r."""
    assert bytes_per_token(flagged) == 2 * bytes_per_token(limited)
    *pieces, last = contents(flagged.complete(prompt=" Hello"))
    assert any(vowel in last for vowel in VOWELS)
    assert not any(vowel in "".join(pieces[3:]) for vowel in VOWELS)


def bytes_per_token(client: Client) -> float:
    """Of the KV cache."""
    info = client.http.get("/admin/models").json()[0]["info"]
    return float(info["kv_bytes"] / info["n_slots"] / info["n_ctx"])


def test_3_11_the_model_the_alias_and_the_address() -> None:
    assert said("-a", "talker").models == Models(model=("talker=plait-demo",))
    assert said("--host", "::1", "--port", "81", "-to", "7").server == Server(
        host="::1", port=81, header_timeout=7.0, body_timeout=7.0, write_timeout=7.0
    )


@pytest.mark.parametrize(
    ("flags", "settings"),
    [
        (
            [],
            Settings(n_slots=1, antiprompts=("User:",), prompt_chunk=512, is_open=True, has_one_audience=True),
        ),
        (["-np", "3"], Settings(n_slots=3, prompt_chunk=512, is_open=True, has_one_audience=True)),
        (
            ["-n", "200"],
            Settings(n_slots=1, n_predict=200, prompt_chunk=512, is_open=True, has_one_audience=True),
        ),
        (
            ["-n", "64"],
            Settings(n_slots=1, n_predict=128, prompt_chunk=512, is_open=True, has_one_audience=True),
        ),
        (["-b", "8", "-to", "7"], Settings(n_slots=1, prompt_chunk=8, is_open=True, has_one_audience=True)),
        (
            ["-r", "#", "-r", "Q:"],
            Settings(
                n_slots=1,
                antiprompts=("#", "Q:", "User:"),
                prompt_chunk=512,
                is_open=True,
                has_one_audience=True,
            ),
        ),
    ],
    ids=str,
)
def test_3_11_a_flag_of_the_program_is_the_dialects(flags: list[str], settings: Settings) -> None:
    assert served(*flags) == settings


def test_3_11_a_folder_is_served(tmp_path: Path) -> None:
    assert served("--path", str(tmp_path)).folder == tmp_path


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--lora-base", "x.gguf"], "adapters"),
        (["-nommq"], "CUDA"),
        (["--no-mul-mat-q"], "CUDA"),
        (["-r", "x" * 300], "256"),
        (["--path", "/no/such/folder"], "does not exist"),
        (["-np", "0"], "1<=x<=256"),
        (["-c", "many"], "integer"),
        (["--no-such-flag"], "--no-such-flag"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_3_11_what_cannot_be_done_is_refused_with_usage_and_1(
    flags: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(click.exceptions.Exit) as ended:
        command.make_context("server-parallel", flags)
    assert ended.value.exit_code == 1
    said = capsys.readouterr().err
    assert reason in said.splitlines()[0]
    assert "Usage:" in said


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "plait", "as", "server-parallel", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=50)


@pytest.mark.parametrize(
    "flags", [["--no-such-flag"], ["-m", "plait-demo", "-ts", "x"], ["-m", "no/such.gguf"]], ids=str
)
def test_3_11_the_exit_code_is_1(flags: list[str]) -> None:
    ended = run(*flags)
    assert ended.returncode == 1
    assert flags[-1] in ended.stderr
    assert "Traceback" not in ended.stderr


def test_3_11_a_file_that_is_no_adapter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lora.gguf").write_bytes(b"GGUF" + bytes(64))
    ended = run("-m", "plait-demo", "--lora", str(tmp_path / "lora.gguf"))
    assert ended.returncode == 1
    assert "lora.gguf" in ended.stderr and "Traceback" not in ended.stderr


def test_3_11_a_context_without_room_for_the_system_prompt_is_refused(endless: Path) -> None:
    ended = run("-m", str(endless), "-c", "256", "--port", "0")
    assert ended.returncode == 1
    assert "a context holds" in ended.stderr


def test_help_shows_every_flag_with_its_default() -> None:
    shown = command.get_help(click.Context(command, **command.context_settings))
    for option in command.params:
        assert all(name in shown for name in option.opts)
    for default in ("127.0.0.1", "8080", "512", "600", "models/7B/ggml-model-f16.gguf", "examples/server/public"):
        assert default in shown
