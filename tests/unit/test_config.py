"""Each setting can be said in three ways, in the right order, and nothing wrong is taken for right."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait import config
from plait.config import Config, ConfigError, Option, format_bytes, load, parse_bytes

OPTIONS = list(config.options())


def named(opt: Option) -> str:
    return opt.name


def pick(opt: Option, n: int) -> object:
    """The n-th of some values that are allowed and are not the default."""
    if opt.is_flag:
        return not opt.default
    if opt.choices:
        others = [choice for choice in opt.choices if choice not in ("", opt.default)]
        return others[n % len(others)]
    match opt.default:
        case int() | float():
            return opt.default + 1 + n
        case tuple():
            return (f"text{n}", "more")
        case _:
            return f"{n},1"


def toml(opt: Option, value: object) -> str:
    match value:
        case bool():
            said = str(value).lower()
        case tuple():
            said = str(list(value))
        case _:
            said = repr(value)
    return f"[{opt.section}]\n{opt.name} = {said}\n"


def variable(opt: Option, value: object) -> dict[str, str]:
    return {opt.variable: ",".join(value) if isinstance(value, tuple) else str(value)}


def force(opt: Option, settings: Config) -> object:
    return getattr(getattr(settings, opt.section), opt.name)


@pytest.mark.parametrize("opt", OPTIONS, ids=named)
def test_a_flag_wins_over_a_variable_over_a_file_over_the_default(opt: Option, tmp_path: Path) -> None:
    file = tmp_path / "plait.toml"
    file.write_text(toml(opt, pick(opt, 0)))
    env = variable(opt, pick(opt, 1))
    assert force(opt, load({}, {})) == opt.default
    assert force(opt, load({}, {}, file)) == pick(opt, 0)
    assert force(opt, load({}, env, file)) == pick(opt, 1)
    assert force(opt, load({opt.name: pick(opt, 2)}, env, file)) == pick(opt, 2)


def test_a_flag_may_say_the_default_again(tmp_path: Path) -> None:
    assert load({"port": "8080", "mmap": True}, {"PLAIT_PORT": "1", "PLAIT_MMAP": "false"}) == Config()


@pytest.mark.parametrize("opt", OPTIONS, ids=named)
def test_an_empty_variable_says_nothing(opt: Option) -> None:
    assert load({}, {opt.variable: ""}) == Config()


def test_every_name_and_flag_is_unique() -> None:
    assert len({opt.name for opt in OPTIONS}) == len(OPTIONS)
    shorts = [opt.short for opt in OPTIONS if opt.short]
    assert len(set(shorts)) == len(shorts)


@pytest.mark.parametrize("opt", OPTIONS, ids=named)
def test_every_setting_says_what_it_does_and_what_it_may_be(opt: Option) -> None:
    assert opt.help
    assert not opt.help.endswith(".")
    assert opt.expected


def test_variables_of_others_are_left_alone() -> None:
    assert load({}, {"PLAIT_NONSENSE": "1", "PORT": "1"}) == Config()


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("port", "65536"),
        ("port", "-1"),
        ("port", "http"),
        ("port", "80.5"),
        ("slots", "257"),
        ("batch_size", "63"),
        ("header_timeout", "nan"),
        ("header_timeout", "inf"),
        ("header_timeout", "0"),
        ("cache_type_k", "q3_k"),
        ("numa", "yes"),
        ("mmap", "perhaps"),
        ("tensor_split", "3;1"),
        ("max_body", "1"),
        ("max_body", "8 apples"),
        ("memory_budget", "-1"),
        ("memory_budget", "9" * 400),
        ("ctx_size", "9" * 400),
    ],
)
def test_what_may_not_be_is_refused_with_its_flag(flag: str, said: str) -> None:
    long = next(opt.long for opt in OPTIONS if opt.name == flag)
    with pytest.raises(ConfigError, match=rf"^{long}: expected .+, got "):
        load({flag: said}, {})


def test_a_variable_at_fault_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^PLAIT_PORT: expected a whole number from 0 to 65535, got 'http'$"):
        load({}, {"PLAIT_PORT": "http"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server]\nport = 'http'", "server.port: expected a whole number from 0 to 65535, got 'http'"),
        ("[server]\nport = true", "server.port: expected"),
        ("[server]\nprot = 1", "server.prot: no such option; did you mean port?"),
        ("[server]\nzzz = 1", "server.zzz: no such option"),
        ("[sever]\nport = 1", "sever: no such section; there are models, engine, server, log"),
        ("server = 1", "server: no such section"),
        ("[models]\nmodel = 'x.gguf'", "models.model: expected a list of texts, got 'x.gguf'"),
        ("[server", "Expected"),
        ("\xff", "Invalid"),
    ],
)
def test_a_file_at_fault_is_named_with_its_key(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "plait.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load({}, {}, file)
    assert str(caught.value).startswith(f"{file}: {said}")


@pytest.mark.parametrize("name", ["api_key", "admin_key"])
@pytest.mark.parametrize("keys", [["", "secret"], ["secret", " "]])
def test_an_empty_key_is_refused_and_the_others_are_not_told(name: str, keys: list[str], tmp_path: Path) -> None:
    file = tmp_path / "plait.toml"
    file.write_text(f"[server]\n{name} = {keys}\n")
    with pytest.raises(ConfigError, match=f"^--{name.replace('_', '-')}: none of them may be empty$"):
        load({name: keys}, {})
    with pytest.raises(ConfigError, match=rf"plait\.toml: server\.{name}: none of them may be empty$"):
        load({}, {}, file)
    with pytest.raises(ConfigError, match=f"^PLAIT_{name.upper()}: none of them may be empty$"):
        load({}, {f"PLAIT_{name.upper()}": "secret, "})


def test_a_pool_is_refused_where_there_is_none() -> None:
    assert load({"kv_cells": 4096}, {}).engine.kv_cells == 4096
    with pytest.raises(ConfigError, match="kv-cells"):
        load({"kv_cells": 4096, "kv_layout": "split"}, {})


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: No such file"):
        load({}, {}, tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"bytes\.toml: .*utf-8"):
        load({}, {}, tmp_path / "bytes.toml")


@pytest.mark.parametrize(
    ("said", "n"),
    [("0", 0), ("1048576", 2**20), ("1K", 2**10), ("1MiB", 2**20), ("1.5gb", 3 * 2**29), (" 2 TiB ", 2**41), ("7b", 7)],
)
def test_sizes_have_units(said: str, n: int) -> None:
    assert parse_bytes(said, "here") == n


@given(st.text())
def test_any_text_is_a_size_or_refused(said: str) -> None:
    try:
        assert parse_bytes(said, "here") >= 0
    except ConfigError as error:
        assert str(error).startswith("here: ")


@given(st.integers(0, 2**50))
def test_a_size_that_is_shown_means_about_what_it_says(n: int) -> None:
    shown = format_bytes(n).replace("bytes", "b").replace(",", "")
    assert parse_bytes(f"{float(shown.split()[0]):f}{shown.split()[1]}", "here") == pytest.approx(n, rel=0.006)
