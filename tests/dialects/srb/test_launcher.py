"""What `plait as srb` makes of its command line, and what it refuses."""

import pytest
from click.testing import CliRunner

from plait import config
from plait.cli.launchers.srb import command

MODEL = ["--model", "x.gguf"]


@pytest.mark.parametrize(
    ("flag", "default"),
    [("--n", "8"), ("--port", "9090"), ("--ctx", "(8192, or "), ("--max-n", "(16, or ")],
)
def test_help_shows_the_programs_flags_with_their_defaults(flag: str, default: str) -> None:
    shown = " ".join(CliRunner().invoke(command, ["--help"], terminal_width=200).output.split())
    assert shown.partition(f" {flag} ")[2].partition("[default: ")[2].startswith(default)


def test_args_are_llama_cpps_flags() -> None:
    params = command.make_context("srb", [*MODEL, "--args", r"-c 512 -ngl 20 -t 3 --no-mmap -r '\n' -r User:"]).params
    assert params["args"].stop == ("\n", "User:")
    settings = config.load(params["args"].settings, {})
    assert (settings.engine.ctx_size, settings.engine.n_gpu_layers, settings.engine.mmap) == (512, 20, False)
    assert command.make_context("srb", MODEL).params["args"].stop is None


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ([], "--model"),
        ([*MODEL, "--engine", "build/llama-batched"], "--engine: there is no program to start"),
        ([*MODEL, "--args", "-fa"], "--args: No such option"),
        ([*MODEL, "--args", '-r "User:'], "--args: No closing quotation."),
        ([*MODEL, "--args", "model.gguf"], "--args: Got unexpected extra argument"),
        ([*MODEL, "--n", "0"], "--n"),
        ([*MODEL, "--n", "9", "--max-n", "8"], "--n 9 is more than --max-n 8"),
        ([*MODEL, "--ctx", "many"], "--ctx"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_words(said: list[str], word: str) -> None:
    result = CliRunner().invoke(command, said)
    assert result.exit_code == 2
    assert word in result.output
