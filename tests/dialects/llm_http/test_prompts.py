"""Kept prompts on disk."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.dialects.llm_http_prompts import MAX_KEPT, Kept, RefusedPrompt, load, path_of, save
from plait.errors import Unavailable

PROMPT = Kept("ab12", (0, 458, 398), "Once upon")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = path_of(tmp_path_factory.mktemp("prompts"), 7)
    save(path, PROMPT)
    return path


@given(model=st.text(), tokens=st.lists(st.integers(0, 2**31 - 1)), text=st.text(), n_before=st.integers(0, 9))
def test_what_is_saved_is_loaded(
    tmp_path_factory: pytest.TempPathFactory, model: str, tokens: list[int], text: str, n_before: int
) -> None:
    path, prompt = path_of(tmp_path_factory.getbasetemp(), 3), Kept(model, tuple(tokens), text, n_before)
    save(path, prompt)
    assert load(path, model) == prompt


def test_the_newer_of_two_stays_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "7.plait-prompt"
    for tokens in ((1, 2), (3,)):
        save(path, Kept("m", tokens, ""))
    assert load(path, "m").tokens == (3,)
    assert list(path.parent.iterdir()) == [path]


def test_a_full_folder_takes_no_other_prompt_but_a_newer_one(tmp_path: Path) -> None:
    for number in range(MAX_KEPT):
        path_of(tmp_path, number).touch()
    with pytest.raises(Unavailable, match="1024 prompts"):
        save(path_of(tmp_path, MAX_KEPT), PROMPT)
    save(path_of(tmp_path, 7), PROMPT)
    assert load(path_of(tmp_path, 7), PROMPT.model) == PROMPT


@given(data=st.data())
def test_a_file_that_was_cut_or_changed_is_refused(
    file: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = file.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    bad = data.draw(st.sampled_from([whole[:at], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]]))
    damaged = tmp_path_factory.getbasetemp() / "damaged"
    damaged.write_bytes(bad)
    with pytest.raises(RefusedPrompt, match="damaged"):
        load(damaged, PROMPT.model)


def test_another_models_prompt_is_refused_with_both_digests(file: Path) -> None:
    with pytest.raises(RefusedPrompt, match="kept for another model, ab12; this one is cd34"):
        load(file, "cd34")


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(RefusedPrompt, match="not a file"):
            load(path, PROMPT.model)


def test_a_prompt_that_begins_with_the_kept_text_is_told_whole() -> None:
    assert PROMPT.prefix("Once upon a time") == PROMPT.prefix("Once upon") == ()
    assert Kept("ab12", (5, 6, 458, 398), "Once upon", 2).prefix("Once upon a time") == (5, 6)


def test_any_other_follows_behind_it() -> None:
    assert PROMPT.prefix(" a time") == PROMPT.prefix("") == PROMPT.tokens
