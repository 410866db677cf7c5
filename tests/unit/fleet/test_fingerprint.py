"""Files that are still what they were when a model was loaded from them, and others."""

from pathlib import Path

import pytest

from plait.errors import ModelChanged
from plait.fleet import fingerprint


def parts(folder: Path) -> list[Path]:
    """Of a split model."""
    paths = [folder / f"big-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    for path in paths:
        path.write_bytes(b"weights")
    return paths


def test_files_that_nobody_touches_are_the_same(tmp_path: Path) -> None:
    first, *_ = parts(tmp_path)
    fingerprint.compare(fingerprint.take(first))


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_change_of_any_part_is_one_of_the_model(tmp_path: Path, index: int) -> None:
    paths = parts(tmp_path)
    loaded = fingerprint.take(paths[0])
    paths[index].write_bytes(b"other weights")
    with pytest.raises(ModelChanged, match=f"{paths[index].name} has changed"):
        fingerprint.compare(loaded)


def test_a_file_that_is_gone_is_out_of_reach(tmp_path: Path) -> None:
    first, second, _ = parts(tmp_path)
    loaded = fingerprint.take(first)
    second.unlink()
    with pytest.raises(ModelChanged, match=f"{second.name} is out of reach"):
        fingerprint.compare(loaded)


def test_one_file_may_be_named_as_one_of_several(tmp_path: Path) -> None:
    first, second, third = parts(tmp_path)
    second.unlink()
    third.unlink()
    assert [file.path for file in fingerprint.take(first)] == [first]


def test_what_was_put_back_is_the_same_again(tmp_path: Path) -> None:
    first, *_ = parts(tmp_path)
    loaded = fingerprint.take(first)
    first.rename(tmp_path / "aside")
    first.write_bytes(b"other weights")
    (tmp_path / "aside").rename(first)
    fingerprint.compare(loaded)


def test_what_a_worker_has_mapped_changes_only_when_it_is_written_to(tmp_path: Path) -> None:
    first, second, third = parts(tmp_path)
    loaded = fingerprint.take(first)
    first.unlink()
    (tmp_path / "new").write_bytes(b"other weights")
    (tmp_path / "new").rename(second)
    fingerprint.compare_mapped(loaded)
    third.write_bytes(b"other weights")
    with pytest.raises(ModelChanged, match=f"{third.name} has changed"):
        fingerprint.compare_mapped(loaded)


def test_adapters_that_are_there_have_a_fingerprint_too(tmp_path: Path) -> None:
    (adapter := tmp_path / "adapter.gguf").write_bytes(b"some weights")
    loaded = fingerprint.take_adapters([f"{adapter}=0.5", str(tmp_path / "absent.gguf")])
    fingerprint.compare(loaded)
    adapter.write_bytes(b"other weights")
    with pytest.raises(ModelChanged, match=r"^adapter\.gguf has changed"):
        fingerprint.compare(loaded)
