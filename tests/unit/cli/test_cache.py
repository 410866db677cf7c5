"""The cache command lists, sums up and clears what is on disk."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from plait.cli.cache import ago
from plait.cli.main import plait
from plait.disk import folder_key
from plait.errors import NotFound
from tests.unit.disk.making import CHILD, ROOT, write

KEY = folder_key(model="tiny")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine on which a model was served."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("PLAIT_CACHE_DIR", raising=False)
    write(tmp_path / "plait" / "segments" / KEY, ROOT, CHILD)
    return tmp_path


def cache(*args: str) -> Result:
    return CliRunner().invoke(plait, ["cache", *args], catch_exceptions=False)


def test_the_table_has_a_line_for_a_folder(home: Path) -> None:
    shown = cache("list").output
    assert "tiny f16" in shown
    assert "440 bytes" in shown
    assert "just now" in shown
    assert KEY[:12] in shown


def test_json_has_the_same(home: Path) -> None:
    (shown,) = json.loads(cache("list", "--json").output)
    assert (shown["key"], shown["name"], shown["n_files"], shown["n_bytes"]) == (KEY, "tiny f16", 2, 440)
    assert shown["path"] == str(home / "plait" / "segments" / KEY)


def test_the_size_is_said(home: Path) -> None:
    assert cache("size").output.endswith(" KiB\n")


def test_clearing_says_what_it_removed(home: Path) -> None:
    assert cache("clear", "tiny f16").output == "Removed 2 files, 440 bytes.\n"
    assert cache("clear").output == "Removed 0 files, 0 bytes.\n"
    assert cache("list", "--json").output == "[]\n"
    assert "Nothing is cached in " in cache("list").output


def test_another_directory_may_be_named(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache("list", "--cache-dir", str(tmp_path / "none"), "--json").output == "[]\n"
    assert cache("size", "--cache-dir", str(tmp_path / "none")).output == "0 bytes\n"
    monkeypatch.setenv("PLAIT_CACHE_DIR", str(tmp_path / "none"))
    assert cache("size").output == "0 bytes\n"


def test_a_name_that_is_not_there_is_an_error(home: Path) -> None:
    with pytest.raises(NotFound):
        cache("clear", "big")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-5, "just now"), (59, "just now"), (60, "1 minute ago"), (7300, "2 hours ago"), (1e6, "11 days ago")],
)
def test_times_are_short(seconds: float, said: str) -> None:
    assert ago(seconds) == said
