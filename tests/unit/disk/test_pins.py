"""What is pinned is not evicted: while its file is there, and as far as there is room for that."""

import os
import sqlite3
from array import array
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from plait.disk import Wish, Written, segment
from plait.disk.pins import MAX_PINS, MAX_WISHES
from tests.unit.disk.making import CHILD, COUSIN, ROOT, finish, payload, record, served, shelf, write

SIZE = segment.n_bytes(CHILD)
"""No record here needs a larger file."""
OTHERS = [record([100 + n, 7]) for n in range(8)]
ROOT_AND_CHILD = [1, 2, 3, 4, 5, 6]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "0123"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """For whose sake something stays."""
    path = tmp_path / "7.plait-prompt"
    path.touch()
    return path


def wish(file: Path, tokens: Sequence[int], scope: str = "", *, is_whole: bool = False) -> Wish:
    return Wish(os.fsencode(file), scope, array("i", tokens), is_whole)


def pin(folder: Path, *wishes: Wish, max_bytes: int = 8 * SIZE) -> None:
    """By a process of its own, so to speak."""
    opened = shelf(folder, max_bytes)
    for each in wishes:
        opened.pin(each)
    finish(opened)


def crowd(folder: Path, n_files: int = 8) -> set[bytes]:
    """Which are there after a process wrote others, with room for so many in all."""
    write(folder, *OTHERS, max_bytes=n_files * SIZE)
    return set(served(folder, n_files * SIZE))


def much_later(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "index.sqlite", isolation_level=None)) as db:
        db.execute("UPDATE pins SET used = used - 3600000000")


def test_what_is_pinned_stays_with_all_that_it_hangs_on(folder: Path, file: Path) -> None:
    write(folder, ROOT, CHILD, COUSIN)
    pin(folder, wish(file, ROOT_AND_CHILD))
    assert crowd(folder) == {ROOT.id, CHILD.id, *(each.id for each in OTHERS[-6:])}


def test_only_what_holds_the_tokens_stays(folder: Path, file: Path) -> None:
    write(folder, ROOT, CHILD)
    pin(folder, wish(file, [1, 2, 3]))
    assert crowd(folder) == {ROOT.id, *(each.id for each in OTHERS[-7:])}


@pytest.mark.parametrize("tokens", [[1, 2, 9, 4], [1, 2, 3, 4, 5, 6, 7], [9, 2, 3, 4, 5, 6]])
def test_what_only_looks_alike_does_not(folder: Path, file: Path, tokens: list[int]) -> None:
    write(folder, ROOT, CHILD)
    pin(folder, wish(file, tokens), wish(file, ROOT_AND_CHILD, scope="ann"))
    assert crowd(folder) == {each.id for each in OTHERS}


def test_a_state_that_goes_on_is_of_no_use_where_none_can_be_cut(folder: Path, file: Path) -> None:
    long, short = record([1, 2, 3, 4]), record([1, 2, 3])
    write(folder, long, short)
    pin(folder, wish(file, [1, 2, 3], is_whole=True))
    assert crowd(folder) == {short.id, *(each.id for each in OTHERS[-7:])}


def test_what_is_still_to_be_written_is_pinned_when_it_is(folder: Path, file: Path) -> None:
    opened = shelf(folder)
    opened.pin(wish(file, ROOT_AND_CHILD))
    for each in (ROOT, CHILD):
        opened.write(each, [payload(each.id)])
    assert finish(opened) == [Written(ROOT), Written(CHILD)]
    assert {ROOT.id, CHILD.id} <= crowd(folder)


def test_what_comes_back_in_the_same_place_is_still_pinned(folder: Path, file: Path) -> None:
    write(folder, ROOT)
    pin(folder, wish(file, [1, 2]))
    opened = shelf(folder)
    opened.remove(ROOT.id)
    opened.close(30.0)
    write(folder, ROOT)
    assert ROOT.id in crowd(folder)


def test_another_prompt_for_the_same_file_takes_its_place(folder: Path, file: Path) -> None:
    other = record([8, 8])
    write(folder, ROOT, other)
    pin(folder, wish(file, [1, 2]), wish(file, [8, 8]))
    assert crowd(folder) == {other.id, *(each.id for each in OTHERS[-7:])}


def test_scopes_have_pins_of_their_own(folder: Path, file: Path) -> None:
    mine, yours = record([1, 2], scope="mine"), record([1, 2], scope="yours")
    write(folder, mine, yours)
    pin(folder, wish(file, [1, 2], "mine"), wish(file, [1, 2], "yours"))
    assert {mine.id, yours.id} <= crowd(folder)


def test_when_its_file_has_been_removed_it_may_go(folder: Path, file: Path) -> None:
    write(folder, ROOT)
    pin(folder, wish(file, [1, 2]))
    file.unlink()
    much_later(folder)
    assert ROOT.id not in crowd(folder)


def test_a_file_may_come_after_its_pin(folder: Path, tmp_path: Path) -> None:
    write(folder, ROOT)
    pin(folder, wish(tmp_path / "later", [1, 2]))
    assert ROOT.id in crowd(folder)


def test_a_file_that_cannot_be_looked_at_is_not_gone(folder: Path, tmp_path: Path) -> None:
    (loop := tmp_path / "loop").symlink_to(loop)
    write(folder, ROOT)
    pin(folder, wish(loop / "7.plait-prompt", [1, 2]))
    much_later(folder)
    assert ROOT.id in crowd(folder)


def test_half_of_the_room_may_be_pinned_then_the_oldest_goes_and_that_is_said(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = [record([n, n]) for n in range(5)]
    files = [tmp_path / str(n) for n in range(5)]
    for path in files:
        path.touch()
    write(folder, *kept)
    pin(folder, *(wish(path, each.tokens) for path, each in zip(files, kept, strict=True)))
    assert {each.id for each in kept} - crowd(folder) == {kept[0].id}
    (said,) = (each.getMessage() for each in caplog.records)
    assert said.startswith(f"disk cache: {files[0]} may be evicted: others were used later, and ")


def test_what_was_used_again_is_not_the_oldest(folder: Path, tmp_path: Path) -> None:
    first, second, third = (record([n, n]) for n in range(3))
    wishes = [wish(tmp_path / str(n), [n, n]) for n in range(3)]
    write(folder, first, second, third)
    pin(folder, wishes[0], wishes[1], wishes[0], wishes[2], max_bytes=5 * SIZE)
    assert crowd(folder, 5) & {first.id, second.id, third.id} == {first.id, third.id}


def test_what_alone_is_more_than_half_is_not_pinned_and_does_not_unpin_others(
    folder: Path, file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = record([8, 8])
    write(folder, other, ROOT, CHILD)
    pin(folder, wish(tmp_path / "other", [8, 8]), wish(file, ROOT_AND_CHILD), max_bytes=3 * SIZE)
    assert crowd(folder, 3) == {other.id, *(each.id for each in OTHERS[-2:])}
    assert f"{file} may be evicted: it is too large, and" in caplog.text


def test_with_less_room_after_a_restart_less_is_pinned(folder: Path, file: Path) -> None:
    write(folder, ROOT, CHILD)
    pin(folder, wish(file, ROOT_AND_CHILD))
    assert crowd(folder, 2) == {each.id for each in OTHERS[-2:]}


def test_a_newcomer_that_what_is_pinned_leaves_no_room_for_evicts_nobody(folder: Path, file: Path) -> None:
    chain = [record([50])]
    chain.append(record([50, 51], chain[0], 1))
    chain.append(record([50, 51, 52], chain[1], 2))
    write(folder, ROOT, CHILD, *chain[:2])
    pin(folder, wish(file, ROOT_AND_CHILD), max_bytes=4 * SIZE)
    before = served(folder).keys()
    write(folder, chain[2], max_bytes=4 * SIZE)
    assert served(folder).keys() == before


def test_the_oldest_pin_goes_when_there_are_too_many(folder: Path, file: Path) -> None:
    write(folder, ROOT)
    pin(folder, wish(file, [1, 2]))
    with closing(sqlite3.connect(folder / "index.sqlite", isolation_level=None)) as db:
        db.execute("UPDATE pins SET used = used - 1")
        db.execute(
            "WITH RECURSIVE n (n) AS (SELECT 1 UNION SELECT n + 1 FROM n LIMIT ?)"
            " INSERT INTO pins SELECT CAST(n AS BLOB), '', x'00', used + n FROM n, pins",
            (MAX_PINS,),
        )
    assert ROOT.id not in crowd(folder)


def test_the_oldest_wish_is_forgotten_when_there_are_too_many(folder: Path, file: Path) -> None:
    opened = shelf(folder)
    for n in range(MAX_WISHES + 1):
        opened.pin(wish(file.with_name(str(n)), [200 + n, 1]))
    early = [record([200 + n, 1]) for n in (0, 1)]
    for each in early:
        opened.write(each, [payload(each.id)])
    finish(opened)
    assert crowd(folder) & {each.id for each in early} == {early[1].id}


def test_clearing_takes_what_is_pinned_too(folder: Path, file: Path) -> None:
    write(folder, ROOT)
    pin(folder, wish(file, [1, 2]))
    opened = shelf(folder)
    opened.clear()
    finish(opened)
    write(folder, ROOT)
    assert ROOT.id not in crowd(folder)


def test_another_process_does_not_evict_it_either(folder: Path, file: Path) -> None:
    write(folder, ROOT)
    mine, yours = shelf(folder, 3 * SIZE), shelf(folder, 3 * SIZE)
    mine.pin(wish(file, [1, 2]))
    finish(mine)
    for each in OTHERS:
        yours.write(each, [payload(each.id)])
    finish(yours)
    assert ROOT.id in served(folder)


def test_a_wish_for_what_another_process_removed_waits_for_it(folder: Path, file: Path) -> None:
    write(folder, ROOT)
    mine, yours = shelf(folder), shelf(folder)
    yours.clear()
    finish(yours)
    mine.pin(wish(file, [1, 2]))
    again = record([1, 2, 3])
    mine.write(again, [payload(again.id)])
    finish(mine)
    assert again.id in crowd(folder)
