"""Every setting is an option, once, and what is said after it is what the command gets."""

import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from plait import config
from plait.cli.options import HELP_WIDTH, SettingsCommand
from plait.config import Config, ConfigError, Engine, Models, Option, Server

OPTIONS = list(config.options())


def settings(*args: str) -> Config:
    """What a command with these arguments would run with."""
    heard: list[Config] = []
    command = SettingsCommand("test", heard.append, [click.Argument(["models"], nargs=-1)], "Test.")
    command.main(list(args), standalone_mode=False)
    return heard[0]


def shown_help() -> str:
    command = SettingsCommand("test", lambda config: None, [], "Test.")
    return CliRunner().invoke(command, ["--help"], terminal_width=HELP_WIDTH).output


def test_without_arguments_all_is_as_by_default() -> None:
    assert settings() == Config()


@pytest.mark.parametrize("opt", OPTIONS, ids=lambda opt: opt.name)
def test_every_option_is_in_the_help_once(opt: Option) -> None:
    assert len(re.findall(rf"^  (-\w+, )?{re.escape(opt.shown)}( [A-Z]+)?(  |$)", shown_help(), re.MULTILINE)) == 1


def test_a_list_by_default_is_shown_as_it_is_said() -> None:
    assert "[openai]" in shown_help()


def test_help_is_aligned_and_fits() -> None:
    lines = shown_help().splitlines()
    assert max(map(len, lines)) <= HELP_WIDTH
    assert {"Models:", "Engine:", "Server:", "Log:"} <= set(lines)
    assert "  -c, --ctx-size N " in shown_help()


@pytest.mark.parametrize("opt", [opt for opt in OPTIONS if opt.short], ids=lambda opt: str(opt.short))
def test_a_short_flag_is_the_long_one(opt: Option) -> None:
    value = opt.choices[-1] if opt.choices else "9" if opt.name == "main_gpu" else "96"
    assert opt.short
    assert settings(opt.short, value) == settings(opt.long, value) != Config()


def test_short_flags_may_have_their_value_attached() -> None:
    assert settings("-t4", "-tb=2", "-c512").engine == Engine(threads=4, threads_batch=2, ctx_size=512)


@pytest.mark.parametrize("name", [opt.name for opt in OPTIONS if opt.is_flag])
def test_a_switch_goes_both_ways(name: str) -> None:
    plain = name.replace("_", "-")
    assert getattr(settings(f"--{plain}").engine, name) is True
    assert getattr(settings(f"--no-{plain}").engine, name) is False


def test_models_may_stand_alone_and_be_named() -> None:
    assert settings("a.gguf", "-m", "b.gguf", "--model", "c=c.gguf").models == Models(
        model=("a.gguf", "b.gguf", "c=c.gguf")
    )


def test_lists_are_said_by_repeating() -> None:
    assert settings("--api-key", "a", "--api-key", "b,c").server == Server(api_key=("a", "b,c"))


def test_a_file_is_read_under_the_flags(tmp_path: Path) -> None:
    file = tmp_path / "plait.toml"
    file.write_text('[server]\nport = 1\nhost = "::1"\n')
    assert settings("--config", str(file), "--port", "2").server == Server(port=2, host="::1")


def test_a_file_may_be_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAIT_CONFIG", str(tmp_path / "none.toml"))
    with pytest.raises(ConfigError, match=r"none\.toml"):
        settings()


def test_a_commands_own_options_are_its_own() -> None:
    heard: list[object] = []
    own = click.Option(["--seed"], type=int)
    command = SettingsCommand("test", lambda config, seed: heard.append(seed), [own], "Test.")
    command.main(["--seed", "3", "--port", "1"], standalone_mode=False)
    assert heard == [3]
