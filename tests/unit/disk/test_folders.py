"""The cache directory is looked at and cleared without a model, and while servers use it."""

from pathlib import Path

import pytest

from plait import disk
from plait.disk import Lost, Shelf, Written, folder_key
from plait.errors import NotFound
from tests.unit.disk.making import CHILD, PLENTY, ROOT, finish, garble, ids, payload, shelf, write

TINY, OTHER = folder_key(model="tiny"), folder_key(model="other")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    write(tmp_path / TINY, ROOT, CHILD)
    other = Shelf(tmp_path / OTHER, "other q8_0", PLENTY)
    other.write(ROOT, [payload(ROOT.id)])
    assert finish(other) == [Written(ROOT)]
    return tmp_path


def test_folders_are_listed_the_last_used_one_first(cache: Path) -> None:
    other, tiny = disk.folders(cache)
    assert (other.name, other.key, other.n_files) == ("other q8_0", OTHER, 1)
    assert (tiny.name, tiny.key, tiny.n_files) == ("tiny f16", TINY, 2)
    assert tiny.n_bytes == sum(path.stat().st_size for path in (cache / TINY).glob("*.kv"))
    assert 0 < tiny.last_used <= other.last_used


def test_a_folder_whose_index_makes_no_sense_is_listed_by_its_key(cache: Path) -> None:
    garble(cache / TINY / "index.sqlite")
    assert {folder.name for folder in disk.folders(cache)} == {TINY, "other q8_0"}


def test_all_files_count_to_the_size(cache: Path) -> None:
    (cache / "notes").mkdir()
    (cache / "notes" / "mine.txt").write_text("not counted")
    assert disk.n_bytes(cache) == sum(path.stat().st_size for key in (TINY, OTHER) for path in (cache / key).iterdir())


def test_where_nothing_was_ever_kept_there_is_nothing(tmp_path: Path) -> None:
    assert disk.folders(tmp_path / "none") == []
    assert disk.n_bytes(tmp_path / "none") == 0
    assert disk.clear(tmp_path / "none") == []


def test_a_folder_without_a_good_index_is_listed_under_its_key(cache: Path) -> None:
    (cache / TINY / "index.sqlite").write_bytes(b"?" * 5000)
    (tiny,) = [folder for folder in disk.folders(cache) if folder.key == TINY]
    assert (tiny.name, tiny.n_files) == (TINY, 2)
    assert tiny.last_used > 0


@pytest.mark.parametrize("which", ["tiny f16", TINY, TINY[:8]])
def test_one_folder_is_cleared_by_name_or_key(cache: Path, which: str) -> None:
    assert [folder.key for folder in disk.clear(cache, which)] == [TINY]
    assert [folder.key for folder in disk.folders(cache)] == [OTHER]
    assert not (cache / TINY).exists()


def test_everything_is_cleared_but_what_is_not_ours(cache: Path) -> None:
    (cache / "notes").mkdir()
    assert {folder.key for folder in disk.clear(cache)} == {TINY, OTHER}
    assert [path.name for path in cache.iterdir()] == ["notes"]


def test_clearing_what_is_not_there_is_said(cache: Path) -> None:
    with pytest.raises(NotFound, match="nothing is cached for big"):
        disk.clear(cache, "big")


def test_a_running_server_finds_its_folder_empty_and_goes_on(cache: Path) -> None:
    opened = shelf(cache / TINY)
    disk.clear(cache)
    assert (cache / TINY).exists()
    assert [folder.key for folder in disk.folders(cache)] == []
    opened.read(CHILD.id)
    opened.read(ROOT.id)
    opened.write(ROOT, [payload(ROOT.id)])
    results = finish(opened)
    assert set(ids(results, Lost)) == {ROOT.id, CHILD.id}
    assert ids(results, Written) == [ROOT.id]
    assert [folder.n_files for folder in disk.folders(cache)] == [1]


def test_the_default_is_in_the_users_cache() -> None:
    assert disk.default_dir({"HOME": "/home/ann"}) == Path("/home/ann/.cache/plait/segments")
    assert disk.default_dir({"HOME": "/h", "XDG_CACHE_HOME": "/c"}) == Path("/c/plait/segments")
