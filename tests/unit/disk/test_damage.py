"""Whatever lies in the folder at the start: it is said in one line, and what is served is right."""

import os
import shutil
import sqlite3
from array import array
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from plait.disk import Lost, Read, Shelf, Written, segment
from tests.unit.disk.making import (
    CHILD,
    PLENTY,
    ROOT,
    finish,
    garble,
    ids,
    is_right,
    payload,
    record,
    served,
    shelf,
    write,
)
from tests.waiting import until

ALL = {ROOT.id, CHILD.id}
N_SIBLING_BYTES = segment.n_bytes(record([1, 2, 3, 4, 100], ROOT, 4))
SIBLINGS = [record([1, 2, 3, 4, 100 + n], ROOT, 4) for n in range(N_SIBLING_BYTES + 1)]


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    folder = tmp_path / "whole" / "0123"
    assert write(folder, ROOT, CHILD) == [Written(ROOT), Written(CHILD)]
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "spoilt" / "0123")


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """At the end there was one line, or none."""
    yield caplog
    assert len(caplog.records) <= 1


def path_of(folder: Path, id: bytes) -> Path:
    return folder / segment.name_of(id)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many files of one length as that length has bytes, so that one restart meets damage at each of them."""
    folder = tmp_path_factory.mktemp("many") / "0123"
    assert len(ids(write(folder, ROOT, *SIBLINGS), Written)) == 1 + len(SIBLINGS)
    return folder


@pytest.mark.parametrize("has_index", [True, False])
@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_wherever_files_are_cut_or_flipped_the_others_are_served(
    many: Path, tmp_path: Path, has_index: bool, damage: str
) -> None:
    folder = shutil.copytree(many, tmp_path / "0123")
    for at, sibling in enumerate(SIBLINGS[:N_SIBLING_BYTES]):
        content = path_of(folder, sibling.id).read_bytes()
        rest = bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :] if damage == "flipped" else b""
        path_of(folder, sibling.id).write_bytes(content[:at] + rest)
    if not has_index:
        (folder / "index.sqlite").unlink()
    found = served(folder)
    assert is_right(found)
    assert found.keys() == {ROOT.id, SIBLINGS[-1].id}
    assert {path.stem for path in folder.glob("*.kv")} == {id.hex() for id in found}


def test_without_its_parent_a_file_is_removed(folder: Path, said: pytest.LogCaptureFixture) -> None:
    path_of(folder, ROOT.id).write_bytes(b"")
    assert served(folder) == {}
    assert not path_of(folder, CHILD.id).exists()
    assert "bad file, file without what comes before it" in said.text


@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 99, 100, 101, *range(500, 24576, 2000)])
def test_at_whatever_length_the_index_is_cut_everything_is_served(folder: Path, n: int) -> None:
    os.truncate(folder / "index.sqlite", n)
    assert is_right(found := served(folder))
    assert found.keys() == ALL


@pytest.fixture
def killed(whole: Path, tmp_path: Path) -> Path:
    """What lies there when a process is killed that has just written."""
    opened = shelf(whole)
    opened.write(SIBLINGS[0], [payload(SIBLINGS[0].id)])
    until(lambda: Written(SIBLINGS[0]) in opened.done())
    copy = shutil.copytree(whole, tmp_path / "killed" / "0123")
    opened.close(30.0)
    return copy


@pytest.mark.parametrize("percent", [0, 1, 10, 50, 90, 99, 100])
def test_at_whatever_length_the_log_of_a_killed_index_is_cut_everything_is_served(killed: Path, percent: int) -> None:
    log = killed / "index.sqlite-wal"
    n = log.stat().st_size
    assert n
    os.truncate(log, n * percent // 100)
    assert is_right(found := served(killed))
    assert found.keys() == ALL | {SIBLINGS[0].id}


@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_flipped_in_the_index_nothing_wrong_is_served(folder: Path, seed: int) -> None:
    content = bytearray((folder / "index.sqlite").read_bytes())
    pages = [at for at, byte in enumerate(content) if byte]
    content[pages[seed * len(pages) // 40]] ^= 1 << seed % 8
    (folder / "index.sqlite").write_bytes(content)
    assert is_right(served(folder))
    assert is_right(served(folder))


@pytest.mark.parametrize("content", [b"not a database", b"SQLite format 3\0" + b"?" * 5000])
def test_a_broken_index_is_set_aside(folder: Path, content: bytes, said: pytest.LogCaptureFixture) -> None:
    (folder / "index.sqlite").write_bytes(content)
    assert served(folder).keys() == ALL
    assert (folder / ".bad-index.sqlite").read_bytes() == content
    assert "index set aside" in said.text


def test_an_index_whose_tables_have_names_that_are_no_text_is_set_aside(
    folder: Path, said: pytest.LogCaptureFixture
) -> None:
    garble(folder / "index.sqlite")
    assert served(folder).keys() == ALL
    assert "index set aside" in said.text


@pytest.mark.parametrize("change", ["PRAGMA user_version = 99", "PRAGMA application_id = 7", "DROP TABLE segments"])
def test_another_programs_index_is_set_aside(folder: Path, change: str, said: pytest.LogCaptureFixture) -> None:
    with sqlite3.connect(folder / "index.sqlite") as db:
        db.execute(change)
    db.close()
    assert served(folder).keys() == ALL
    assert "index set aside" in said.text


def test_an_index_that_says_something_else_than_the_files_is_not_believed(folder: Path) -> None:
    with sqlite3.connect(folder / "index.sqlite") as db:
        db.execute("UPDATE segments SET n_bytes = 1, parent = x'00'")
    db.close()
    opened = shelf(folder)
    assert [each.id for each in opened.records()] == [ROOT.id, CHILD.id]
    assert opened.state.n_bytes == sum(segment.n_bytes(each) for each in (ROOT, CHILD))
    opened.close(30.0)


def test_rows_of_wrong_types_are_not_believed(folder: Path) -> None:
    with sqlite3.connect(folder / "index.sqlite") as db:
        db.execute("UPDATE segments SET digest = 'text', used = 'never'")
    db.close()
    assert served(folder).keys() == ALL


def test_an_index_that_cannot_be_one_is_done_without(folder: Path, said: pytest.LogCaptureFixture) -> None:
    (folder / "index.sqlite").unlink()
    (folder / "index.sqlite").mkdir()
    opened = shelf(folder)
    opened.read(CHILD.id)
    assert opened.state.is_degraded
    assert ids(finish(opened), Read) == [CHILD.id]
    assert "index cannot be used" in said.text


def test_a_folder_that_cannot_be_made_serves_nothing(tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    opened = shelf(tmp_path / "file" / "0123")
    opened.write(ROOT, [payload(ROOT.id)])
    opened.read(CHILD.id)
    opened.clear()
    assert sorted(ids(finish(opened), Lost)) == sorted(ALL)
    assert opened.records() == []
    assert "folder cannot be used" in said.text


@pytest.mark.parametrize("has_index", [True, False])
def test_what_was_written_for_another_model_is_never_served(whole: Path, tmp_path: Path, has_index: bool) -> None:
    """Its records have the ids that ours would have, and are whole: only the folder's name tells."""
    ours = shutil.copytree(whole, tmp_path / "4567")
    if not has_index:
        for path in ours.glob("index*"):
            path.unlink()
    assert served(ours) == {}
    assert write(ours, ROOT) == [Written(ROOT)]
    assert served(ours) == {ROOT.id: payload(ROOT.id)}


def test_what_is_not_ours_stays(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    (folder / f"{'0' * 32}.kv.orig").write_text("mine, too")
    served(folder, 1)
    assert sorted(path.suffix for path in folder.iterdir() if "index" not in path.name) == [".orig", ".txt"]


def test_a_folder_of_a_segments_name_is_left_alone(folder: Path, said: pytest.LogCaptureFixture) -> None:
    (folder / segment.name_of(b"?" * 16)).mkdir()
    assert served(folder).keys() == ALL
    assert "cannot be removed" in said.text


def test_what_a_crash_left_is_removed_by_the_next_who_is_alone(folder: Path) -> None:
    left = folder / f"{'0' * 32}-abcd.tmp"
    other = shelf(folder)
    left.write_bytes(b"half")
    served(folder)
    assert left.exists()
    os.utime(left, (0, 0))
    served(folder)
    assert not left.exists()
    left.write_bytes(b"half")
    other.close(30.0)
    served(folder)
    assert not left.exists()


def test_an_index_that_breaks_while_it_is_used_is_made_anew(folder: Path) -> None:
    opened = shelf(folder)
    (folder / "index.sqlite").unlink()
    third = record([1, 2, 3, 4, 5, 6, 7], CHILD, 6)
    opened.write(third, [payload(third.id)])
    assert finish(opened) == [Written(third)]
    assert (folder / "index.sqlite").exists()
    assert opened.state.n_files == 3
    assert served(folder).keys() == {*ALL, third.id}


def test_a_file_that_is_gone_is_not_counted(folder: Path) -> None:
    path_of(folder, CHILD.id).unlink()
    opened = shelf(folder)
    assert (opened.records(), opened.state.n_files) == ([ROOT], 1)
    opened.close(30.0)


def test_another_record_under_the_same_id_is_not_served(folder: Path) -> None:
    opened = shelf(folder)
    other = structs.replace(CHILD, tokens=array("i", [5, 7]))
    segment.save(folder, other, [memoryview(payload(CHILD.id))])
    opened.read(CHILD.id)
    assert finish(opened) == [Lost((CHILD.id,), "bad")]


def test_after_a_while_it_is_written_again(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    moments = iter([0.0, 0.0, 59.0, 61.0, 61.0, 122.0])
    opened = Shelf(folder, "tiny f16", PLENTY, clock=lambda: next(moments))
    blocked, free = record([7]), record([8])
    path_of(folder, blocked.id).mkdir()
    for each in (blocked, free, blocked, free):
        opened.write(each, [payload(each.id)])
    results = finish(opened)
    assert [type(result) for result in results] == [Lost, Lost, Lost, Written]
    assert {result.why for result in results if isinstance(result, Lost)} == {"failed"}
    assert caplog.text.count("going on without writing") == 1
    assert not opened.state.is_degraded


def test_a_bad_disk_does_not_end_the_thread(folder: Path, said: pytest.LogCaptureFixture) -> None:
    opened = shelf(folder)
    third, fourth = record([7]), record([8])
    path_of(folder, third.id).mkdir()
    opened.write(third, [payload(third.id)])
    opened.write(fourth, [payload(fourth.id)])
    opened.read(CHILD.id)
    results = finish(opened)
    assert set(ids(results, Lost)) == {third.id, fourth.id}
    assert ids(results, Read) == [CHILD.id]
    assert opened.state.is_degraded
    assert "going on without writing" in said.text
