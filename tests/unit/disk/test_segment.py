"""A file is read whole and as it was written, or not at all."""

import os
from pathlib import Path

import pytest

from plait.disk import segment
from plait.disk.segment import BadSegment
from tests.unit.disk.making import CHILD, ROOT, payload


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "key"
    folder.mkdir()
    segment.save(folder, ROOT, [memoryview(payload(ROOT.id))])
    return folder


def path_of(folder: Path) -> Path:
    return folder / segment.name_of(ROOT.id)


def test_what_was_written_is_read(folder: Path) -> None:
    assert segment.load(path_of(folder)) == (ROOT, bytearray(payload(ROOT.id)))
    assert segment.n_bytes(ROOT) == path_of(folder).stat().st_size
    assert [path.name for path in folder.iterdir()] == [segment.name_of(ROOT.id)]


def test_a_payload_may_come_in_parts(folder: Path) -> None:
    whole = memoryview(payload(CHILD.id))
    segment.save(folder, CHILD, [whole[:7], whole[7:7], whole[7:]])
    assert segment.load(folder / segment.name_of(CHILD.id))[1] == whole


def test_a_flipped_bit_in_any_byte_is_seen(folder: Path) -> None:
    whole = path_of(folder).read_bytes()
    for at in range(len(whole)):
        path_of(folder).write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        with pytest.raises(BadSegment):
            segment.load(path_of(folder))


def test_every_missing_or_further_byte_is_seen(folder: Path) -> None:
    whole = path_of(folder).read_bytes()
    for said in [*(whole[:n] for n in range(len(whole))), whole + b"\0"]:
        path_of(folder).write_bytes(said)
        with pytest.raises(BadSegment):
            segment.load(path_of(folder))


def test_a_file_under_another_name_is_bad(folder: Path) -> None:
    other = path_of(folder).rename(folder / segment.name_of(CHILD.id))
    with pytest.raises(BadSegment, match="another file's"):
        segment.load(other)


def test_a_file_from_another_folder_is_bad(folder: Path) -> None:
    (folder.parent / "other").mkdir()
    moved = path_of(folder).rename(folder.parent / "other" / segment.name_of(ROOT.id))
    with pytest.raises(BadSegment, match="digest"):
        segment.load(moved)


def test_a_pipe_is_not_waited_for_and_a_link_not_followed(folder: Path) -> None:
    os.mkfifo(folder / segment.name_of(CHILD.id))
    with pytest.raises(BadSegment, match="not a file"):
        segment.load(folder / segment.name_of(CHILD.id))
    (folder / "link.kv").symlink_to(path_of(folder))
    with pytest.raises(OSError):
        segment.load(folder / "link.kv")


def test_a_failed_write_leaves_nothing(folder: Path) -> None:
    (folder / segment.name_of(CHILD.id)).mkdir()
    with pytest.raises(IsADirectoryError):
        segment.save(folder, CHILD, [memoryview(payload(CHILD.id))])
    assert not list(folder.glob("*.tmp"))
