"""An id says everything about a range of tokens; a folder's key says everything about what computed it."""

from array import array

import pytest
from msgspec import structs

from plait.disk import address, folder_key
from plait.disk.record import decode, encode
from tests.unit.disk.making import CHILD, ROOT


def test_an_id_covers_scope_range_and_all_tokens_before() -> None:
    others = [
        address("", [1, 2, 3], 1),
        address("", [1, 2, 3], 2),
        address("ann", [1, 2, 3], 1),
        address("", [0, 2, 3], 1),
        address("", [1, 2], 1),
        address("", [1, 2, 3, 0], 1),
    ]
    assert len(set(others)) == len(others)
    assert address("", array("i", [1, 2, 3]), 1) == others[0]


def test_a_folders_key_does_not_run_parts_together() -> None:
    keys = [
        folder_key(model="ab", build="c"),
        folder_key(model="a", build="bc"),
        folder_key(model="ab", build="c", adapters=[]),
        folder_key(model="ab", build="c", adapters=["x"]),
        folder_key(model="ab", build="c", adapters=["x", ""]),
    ]
    assert len(set(keys)) == len(keys)
    assert folder_key(build="c", model="ab") == keys[0]


def test_a_record_is_written_down_and_read_again() -> None:
    assert decode(encode(CHILD)) == CHILD


@pytest.mark.parametrize(
    "changes", [{"tokens": array("i")}, {"parent": b""}, {"start": 0}, {"parent": b"short"}, {"start": -1}, {"id": b""}]
)
def test_a_record_that_contradicts_itself_is_none(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        decode(encode(structs.replace(CHILD, **changes)))


def test_a_child_begins_behind_its_parents_first_token_and_right_behind_its_last_at_most() -> None:
    starts = [start for start in range(1, 7) if structs.replace(CHILD, start=start).hangs_on(ROOT)]
    assert starts == [1, 2, 3, 4]
    assert not structs.replace(CHILD, scope="ann").hangs_on(ROOT)
