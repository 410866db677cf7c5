"""Prompts to token ids, and a choice's tokens to events."""

from collections.abc import Sequence
from functools import partial

import pytest

from plait.engine.sequence import Group
from plait.errors import BadRequest, ContextOverflow, GenerationFailed
from plait.protocol import (
    Cached,
    ChatMessage,
    ChatPrompt,
    Done,
    Event,
    Failed,
    Progress,
    RawPrompt,
    Started,
    Text,
    TokenPrompt,
)
from plait.text.stream import TextStream
from plait.text.template import ChatTemplate
from plait.worker.prompt import prompt_tokens
from plait.worker.session import Choice, Work, token_texts

BEGIN, CONTROL = 1, 2
PIECES = [b"", b"", b"", b"Hi", b" you", "é".encode()[:1], "é".encode()[1:]]


class Letters:
    """One id per character, a begin token in front, and `<x>` as one control token where that is allowed."""

    n_vocab = 200
    longest_piece = 4

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        if parse_special:
            text = text.replace("<x>", chr(CONTROL))
        return [BEGIN] * add_special + [ord(letter) for letter in text]

    def check_pace(self, texts: Sequence[str], param: str) -> None:
        pass


def template(source: str) -> ChatTemplate:
    return ChatTemplate(source, ("<x>",), bos="\1", eos="")


def ids(prompt: RawPrompt | TokenPrompt | ChatPrompt, source: str = "{{ messages[0].content }}") -> list[int]:
    return prompt_tokens(prompt, Letters(), template(source), n_ctx=1000)


def test_raw_text_may_hold_control_tokens() -> None:
    assert ids(RawPrompt("a<x>")) == [BEGIN, ord("a"), CONTROL]


def test_tokens_before_a_text_stand_for_its_begin_token() -> None:
    assert ids(RawPrompt("a", prefix=(5, 6))) == [5, 6, ord("a")]


def test_token_ids_pass_as_they_are() -> None:
    assert ids(TokenPrompt([5, 6])) == [5, 6]


@pytest.mark.parametrize("bad", [-1, 200, 2**31])
def test_ids_outside_the_vocabulary_are_refused(bad: int) -> None:
    for prompt in (TokenPrompt([5, bad]), RawPrompt("a", prefix=(5, bad))):
        with pytest.raises(BadRequest, match="there is no token"):
            ids(prompt)


@pytest.mark.parametrize("prompt", [RawPrompt("a" * 100_000), ChatPrompt([ChatMessage("user", "a" * 100_000)])])
def test_what_cannot_fit_is_refused_before_it_is_tokenized(prompt: RawPrompt | ChatPrompt) -> None:
    with pytest.raises(ContextOverflow, match="100000 bytes"):
        ids(prompt)


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(BadRequest, match="empty"):
        ids(TokenPrompt([]))


def test_a_turn_cannot_write_control_tokens_but_the_template_can() -> None:
    found = ids(ChatPrompt([ChatMessage("user", "a<x>")]), "<x>{{ messages[0].content }}<x>")
    assert found == [BEGIN, CONTROL, ord("a"), *map(ord, "<x>"), CONTROL]


def test_a_template_that_writes_the_begin_token_does_not_get_two() -> None:
    assert ids(ChatPrompt([ChatMessage("user", "a")]), "{{ bos_token }}a") == [BEGIN, ord("a")]


def test_a_chat_needs_a_template() -> None:
    with pytest.raises(BadRequest, match="no chat template"):
        prompt_tokens(ChatPrompt([ChatMessage("user", "a")]), Letters(), None, n_ctx=1000)


def listen(n: int = 1, stops: tuple[str, ...] = ()) -> tuple[list[Choice], list[Event], list[int]]:
    """`n` choices of one request, what they say, and which samplers were freed."""
    said: list[Event] = []
    freed: list[int] = []
    work = Work(7, 0.0, [BEGIN, 3], [], said.append, Group())
    for i in range(n):
        work.choices.append(Choice(work, i, TextStream(stops), PIECES, partial(freed.append, i), leads=i == 0))
    return work.choices, said, freed


def test_a_choice_tells_what_it_hears() -> None:
    (choice,), said, freed = listen()
    choice.started(Cached(idle=1))
    choice.progress(1)
    assert not choice.token(3)
    choice.ended("length")
    started, progress, text, done = said
    assert (started, progress, text) == (
        Started(7, [BEGIN, 3], Cached(idle=1)),
        Progress(7, 1, 2),
        Text(7, 0, "Hi", [3]),
    )
    assert isinstance(done, Done)
    assert (done.reason, done.n_prompt, done.n_output) == ("length", 2, 1)
    assert freed == [0]


def test_only_the_first_choice_speaks_of_the_prompt() -> None:
    (_, second), said, _ = listen(n=2)
    second.started(Cached(ram=2))
    second.progress(1)
    assert not said


def test_half_a_character_waits_for_its_other_half() -> None:
    (choice,), said, _ = listen()
    choice.token(5)
    choice.token(6)
    assert [event.text for event in said if isinstance(event, Text)] == ["", "é"]


def test_a_stop_string_is_enough() -> None:
    (choice,), said, _ = listen(stops=("i y",))
    assert [choice.token(3), choice.token(4)] == [False, True]
    assert "".join(event.text for event in said if isinstance(event, Text)) == "H"
    choice.ended("stop")
    assert isinstance(said[-1], Done)
    assert said[-1].stopped_by == "i y"


def test_what_was_held_back_is_said_at_the_end() -> None:
    (choice,), said, _ = listen(stops=("i you!",))
    choice.token(3)
    choice.ended("stop")
    assert isinstance(said[-1], Done)
    assert said[-1].text == "i"


def test_a_failure_ends_all_choices_once() -> None:
    (first, _), said, freed = listen(n=2)
    first.failed(GenerationFailed("no"))
    assert said == [Failed(7, "generation_failed", "no")]
    assert freed == [0, 1]


def test_a_replayed_choice_goes_on_where_it_was_and_repeats_nothing() -> None:
    (choice,), said, _ = listen(stops=("i you",))
    choice.replay([3])
    assert not said
    assert choice.token(4)
    assert said == [Text(7, 0, "", [4])]
    assert choice.n_output == 2


def test_a_prompts_characters_come_with_their_last_token() -> None:
    assert token_texts([BEGIN, 3, 5, 6], PIECES) == ["", "Hi", None, "é"]
