"""A shelf keeps what it was given over restarts, within its bytes, and says of everything else that it is lost."""

import os
import threading
from itertools import pairwise
from pathlib import Path

import pytest
from msgspec import structs

from plait.disk import Lost, Read, Record, Written, segment
from plait.disk.keeper import NICENESS
from tests.unit.disk.making import (
    CHILD,
    COUSIN,
    PLENTY,
    ROOT,
    finish,
    ids,
    is_right,
    payload,
    record,
    served,
    shelf,
    write,
)
from tests.waiting import until

SIZE = segment.n_bytes(CHILD)
"""No record here needs a larger file."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "0123"


def files(folder: Path) -> set[bytes]:
    return {id for path in folder.iterdir() if (id := segment.id_of(path.name))}


def test_after_a_restart_everything_is_there_again(folder: Path) -> None:
    assert write(folder, ROOT, CHILD, COUSIN) == [Written(ROOT), Written(CHILD), Written(COUSIN)]
    opened = shelf(folder)
    assert opened.records()[0] == ROOT
    assert sorted(each.id for each in opened.records()) == sorted([ROOT.id, CHILD.id, COUSIN.id])
    opened.read(COUSIN.id)
    assert finish(opened) == [Read(COUSIN, bytearray(payload(COUSIN.id)))]


def test_without_its_index_the_files_tell(folder: Path) -> None:
    write(folder, ROOT, CHILD)
    (folder / "index.sqlite").unlink()
    assert is_right(found := served(folder))
    assert found.keys() == {ROOT.id, CHILD.id}


def test_writing_what_is_there_is_nothing(folder: Path) -> None:
    write(folder, ROOT)
    before = (folder / segment.name_of(ROOT.id)).stat()
    assert write(folder, structs.replace(ROOT, n_exact=3)) == [Written(ROOT)]
    assert (folder / segment.name_of(ROOT.id)).stat() == before


def test_what_comes_before_must_be_there(folder: Path) -> None:
    assert write(folder, CHILD, ROOT) == [Lost((CHILD.id,), "refused"), Written(ROOT)]
    beyond = structs.replace(CHILD, start=5)
    foreign = structs.replace(CHILD, scope="ann")
    assert write(folder, beyond, foreign) == [Lost((CHILD.id,), "refused")] * 2


def test_a_payload_of_another_length_is_a_defect_of_the_caller(folder: Path) -> None:
    opened = shelf(folder)
    with pytest.raises(ValueError):
        opened.write(ROOT, [payload(ROOT.id)[1:]])
    assert finish(opened) == []


def test_what_was_never_written_is_lost(folder: Path) -> None:
    opened = shelf(folder)
    opened.read(ROOT.id)
    assert finish(opened) == [Lost((ROOT.id,), "gone")]


def test_a_removed_file_takes_along_what_hangs_on_it(folder: Path) -> None:
    write(folder, ROOT, CHILD, COUSIN)
    opened = shelf(folder)
    (folder / segment.name_of(ROOT.id)).unlink()
    opened.read(ROOT.id)
    lost = finish(opened)
    assert set(ids(lost, Lost)) == {ROOT.id, CHILD.id, COUSIN.id}
    assert files(folder) == set()


def test_a_file_that_goes_bad_while_it_is_known_is_lost_and_said_so(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(folder, ROOT, CHILD)
    opened = shelf(folder)
    path = folder / segment.name_of(CHILD.id)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    opened.read(CHILD.id)
    assert finish(opened) == [Lost((CHILD.id,), "bad")]
    assert "does not match its digest" in caplog.text
    assert files(folder) == {ROOT.id}


def test_the_least_recently_used_leaf_goes_first(folder: Path) -> None:
    write(folder, ROOT, COUSIN, CHILD)
    opened = shelf(folder, 3 * SIZE)
    opened.use([COUSIN.id])
    other = record([7, 7])
    opened.write(other, [payload(other.id)])
    assert finish(opened) == [Lost((CHILD.id,), "evicted"), Written(other)]
    assert files(folder) == {ROOT.id, COUSIN.id, other.id}


@pytest.mark.parametrize("adapters", ["", " (0.5,)"])
def test_g4_who_has_the_most_goes_first_whoever_came_first(folder: Path, adapters: str) -> None:
    first, *flood = record([1], scope="a"), *(record([i], scope="b" + adapters * (i % 2)) for i in range(2, 9))
    write(folder, first, *flood, max_bytes=3 * SIZE)
    assert files(folder) == {first.id, flood[-2].id, flood[-1].id}


def test_what_is_read_is_used(folder: Path) -> None:
    write(folder, ROOT, COUSIN, CHILD)
    opened = shelf(folder)
    opened.read(COUSIN.id)
    finish(opened)
    assert served(folder, 2 * SIZE).keys() == {ROOT.id, COUSIN.id}


def test_a_newcomer_does_not_evict_what_it_hangs_on(folder: Path) -> None:
    write(folder, ROOT)
    assert write(folder, CHILD, max_bytes=2 * SIZE - 9) == [Lost((CHILD.id,), "refused")]
    assert files(folder) == {ROOT.id}


def test_what_is_of_no_use_is_removed_with_all_that_hangs_on_it(folder: Path) -> None:
    write(folder, ROOT, COUSIN, CHILD, (other := record([7])))
    opened = shelf(folder)
    opened.remove(ROOT.id)
    assert set(ids(finish(opened), Lost)) == {ROOT.id, COUSIN.id, CHILD.id}
    assert files(folder) == {other.id}


def test_scopes_are_cleared_apart(folder: Path) -> None:
    mine, yours = record([1, 2], scope="mine"), record([1, 2], scope="yours")
    write(folder, ROOT, mine, yours)
    opened = shelf(folder)
    opened.clear("mine")
    assert finish(opened) == [Lost((mine.id,), "cleared")]
    assert served(folder).keys() == {ROOT.id, yours.id}


def test_clearing_forgets_what_waits_to_be_written(folder: Path) -> None:
    write(folder, ROOT)
    opened = shelf(folder)
    chain = [record([1, 2, 3, 4, *range(n)], ROOT, 4) for n in range(1, 50)]
    for each in chain:
        opened.write(each, [payload(each.id)])
    opened.clear()
    lost = ids(finish(opened), Lost)
    assert {ROOT.id, *(each.id for each in chain)} == set(lost)
    assert files(folder) == set()


def test_figures_follow(folder: Path) -> None:
    opened = shelf(folder)
    opened.write(ROOT, [payload(ROOT.id)])
    assert opened.n_queued_bytes == ROOT.n_bytes
    until(opened.done)
    assert opened.n_queued_bytes == 0
    until(lambda: opened.state.n_files == 1)
    assert opened.state.n_bytes == segment.n_bytes(ROOT)
    assert not opened.state.is_degraded
    opened.close(30.0)


def test_its_thread_leaves_the_cores_to_others(folder: Path) -> None:
    opened = shelf(folder)
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "disk")
    until(lambda: os.getpriority(os.PRIO_PROCESS, thread.native_id or 0) >= NICENESS)
    opened.close(30.0)


def test_two_shelves_share_a_folder(folder: Path) -> None:
    mine, yours = shelf(folder), shelf(folder)
    for opened in (mine, yours):
        opened.write(ROOT, [payload(ROOT.id)])
    assert finish(mine) == finish(yours) == [Written(ROOT)]


def test_what_another_process_evicted_is_lost(folder: Path) -> None:
    write(folder, ROOT, CHILD)
    mine, yours = shelf(folder), shelf(folder)
    yours.clear()
    finish(yours)
    mine.read(ROOT.id)
    assert finish(mine) == [Lost((ROOT.id, CHILD.id), "gone")]


def test_nothing_is_hung_on_what_another_process_evicted(folder: Path) -> None:
    write(folder, ROOT, CHILD)
    mine, yours = shelf(folder), shelf(folder)
    yours.clear()
    finish(yours)
    mine.write(COUSIN, [payload(COUSIN.id)])
    assert finish(mine) == [Lost((ROOT.id, CHILD.id), "gone"), Lost((COUSIN.id,), "refused")]
    assert files(folder) == set()


def test_only_its_owner_may_read_what_is_kept(folder: Path) -> None:
    opened = shelf(folder)
    opened.write(ROOT, [payload(ROOT.id)])
    until(opened.done)
    assert all(path.stat().st_mode & 0o077 == 0 for path in [folder, *folder.iterdir()])
    opened.close(30.0)


def test_records_come_after_their_parents(folder: Path) -> None:
    chain: list[Record] = [record([0])]
    for n in range(2, 20):
        chain.append(record(range(n), chain[-1], n - 1))
    write(folder, *chain)
    (folder / "index.sqlite").unlink()
    opened = shelf(folder, PLENTY)
    assert all(child.hangs_on(parent) for parent, child in pairwise(opened.records()))
    opened.close(30.0)
