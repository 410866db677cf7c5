"""Makes short chats: a few turns of small talk, stories, questions and honest answers.

Exchanges come from files of ways to ask and ways to answer. What needs memory (a
name given earlier, the story told before) or counting is made here.
"""

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

from tools.demo_model.grammar import (
    MATERIAL,
    Lists,
    capitalised,
    expand,
    read_blocks,
    read_lists,
    with_articles,
)
from tools.demo_model.stories import ANYTHING, Story, Subject, story_lists, tell_story
from tools.demo_model.typing_habits import as_typed

_SLOT = re.compile(r"\{([a-z_]+)\}")
_NUMBERS = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
)
_MATTERS = {
    "friendship": "new_friend",
    "lost_matter": "lost_thing",
    "storm_matter": "storm",
    "journey_matter": "journey",
    "quarrel_matter": "quarrel",
    "skill_matter": "skill",
    "rescue_matter": "rescue",
    "dark_matter": "dark",
    "garden_matter": "garden",
    "truth_matter": "truth",
    "contest_matter": "contest",
    "gift_matter": "gift",
    "secret_matter": "secret",
    "wish_matter": "wish",
    "snow_matter": "snow",
    "helping_matter": "helping",
}
_SYLLABLES = (
    "ka",
    "lo",
    "mi",
    "ra",
    "ti",
    "zu",
    "be",
    "no",
    "sha",
    "vi",
    "du",
    "el",
    "an",
    "or",
    "is",
    "ma",
    "to",
    "fa",
    "ge",
    "ny",
    "ze",
)


@dataclass(frozen=True)
class Message:
    """One message of a chat."""

    role: str
    content: str


@dataclass
class _Memory:
    """What has been said in one chat; owned by the chat being made."""

    rng: random.Random
    messages: list[Message] = field(default_factory=list)
    user_name: str = ""
    story: Story | None = None

    def add(self, asked: str, answered: str) -> None:
        self.messages.append(Message("user", as_typed(self.rng, asked)))
        self.messages.append(Message("assistant", answered))


@dataclass(frozen=True)
class _Exchange:
    asks: list[str]
    answers: list[str]


def make_chat(rng: random.Random, n_turns: int = 0) -> list[Message]:
    """Make one chat of so many turns; without a number, from a single turn to a dozen."""
    memory = _Memory(rng)
    if rng.random() < 0.4:
        memory.messages.append(Message("system", _fill(rng, "{system}")))
    n_turns = n_turns or rng.choices((1, 2, 3, 4, 5, 8, 12), (45, 20, 13, 9, 6, 4, 3))[0]
    for turn in range(n_turns):
        if n_turns > 1 and turn == 0 and rng.random() < 0.3:
            _exchange(memory, "small_talk")
        else:
            _add_turn(memory)
    return memory.messages


@cache
def chat_lists() -> Lists:
    """Return every list that a chat may draw from."""
    folder = MATERIAL / "chats"
    lists, requests = (read_lists(folder / name) for name in ("lists.txt", "requests.txt"))
    return {**story_lists(), **lists, **requests}


@cache
def _exchanges(name: str) -> list[_Exchange]:
    blocks = read_blocks(MATERIAL / "chats" / f"{name}.txt")
    return [
        _Exchange(
            [line[2:] for line in block if line.startswith("> ")],
            [line[2:] for line in block if line.startswith("< ")],
        )
        for block in blocks
    ]


def _add_turn(memory: _Memory) -> None:
    """Add one turn of a kind chosen by weight."""
    kinds: tuple[tuple[int, Callable[[], None]], ...] = (
        (22, lambda: _story_turn(memory)),
        (17, lambda: _exchange(memory, "small_talk")),
        (16, lambda: _exchange(memory, "about_me")),
        (18, lambda: _exchange(memory, "unknown")),
        (13, lambda: _exchange(memory, "facts")),
        (4, lambda: _name_turn(memory)),
        (4, lambda: _echo_turn(memory)),
        (3, lambda: _sum_turn(memory)),
        (1, lambda: _json_turn(memory)),
        (6 if memory.story else 0, lambda: _story_question(memory)),
    )
    memory.rng.choices([add for _, add in kinds], [weight for weight, _ in kinds])[0]()


def _fill(rng: random.Random, template: str, **facts: str) -> str:
    return expand(template, rng, facts, chat_lists()).replace("\\n", "\n")


def _exchange(memory: _Memory, name: str) -> None:
    """Ask and answer from a file; the answer may name again what was asked about."""
    exchange = memory.rng.choice(_exchanges(name))
    ask = memory.rng.choice(exchange.asks)
    asked = {slot: _fill(memory.rng, f"{{{slot}}}") for slot in _SLOT.findall(ask)}
    again = {f"same_{slot}": value for slot, value in asked.items()}
    answer = memory.rng.choice(exchange.answers)
    memory.add(_fill(memory.rng, ask, **asked), _fill(memory.rng, answer, **again))


def _story_turn(memory: _Memory) -> None:
    rng = memory.rng
    if rng.random() < 0.3:
        subject, about = ANYTHING, ""
    else:
        subject, about = _subject(rng)
    ask = _fill(rng, "{story_about}" if about else "{story_request}", about=about)
    memory.story = tell_story(rng, subject, is_short=rng.random() < 0.7)
    preface = ""
    if rng.random() < 0.5:
        preface = _fill(rng, "{preface_about}\n\n" if about else "{preface}\n\n", about=about)
    memory.add(ask, preface + memory.story.text)


def _subject(rng: random.Random) -> tuple[Subject, str]:
    """Choose what a story is asked to be about, and how that is said."""
    he_or_she = rng.choice(("he", "she"))
    name = _fill(rng, "{boy}" if he_or_she == "he" else "{girl}")
    child = "boy" if he_or_she == "he" else "girl"
    lists = [chat_lists()[name] for name in ("creature", "wonder", f"{he_or_she}_wonder")]
    kind = rng.choice((child, child, *(kind for kinds in lists for kind in kinds)))
    match rng.random():
        case share if share < 0.5:
            adjective = rng.choice(("", "", f"{_fill(rng, '{trait}')} ", "little "))
            return Subject(kind=kind, he_or_she=he_or_she), with_articles(f"a {adjective}{kind}")
        case share if share < 0.75:
            said = with_articles(f"a {kind} {rng.choice(('named', 'called'))} {name}")
            return Subject(kind=kind, name=name, he_or_she=he_or_she), said
        case _:
            return _matter(rng)


def _matter(rng: random.Random) -> tuple[Subject, str]:
    matter = rng.choice(sorted(_MATTERS))
    thing = _fill(rng, "{thing}")
    return Subject(plot=_MATTERS[matter], thing=thing), _fill(rng, f"{{{matter}}}", thing=thing)


def _story_question(memory: _Memory) -> None:
    assert memory.story is not None
    who = memory.rng.choice(("hero", "friend"))
    facts = dict(memory.story.facts)
    ask = _fill(memory.rng, f"{{which_{who}}}", **facts)
    memory.add(ask, _fill(memory.rng, f"{{which_{who}_answer}}", **facts))


def _name_turn(memory: _Memory) -> None:
    """Tell a name, or ask for it back."""
    rng = memory.rng
    if rng.random() < (0.7 if memory.user_name else 0.2):
        answer = "{known_name}" if memory.user_name else "{unknown_name}"
        memory.add(_fill(rng, "{which_name}"), _fill(rng, answer, name=memory.user_name))
        return
    memory.user_name = _any_name(rng)
    ask = _fill(rng, "{my_name}", name=memory.user_name)
    memory.add(ask, _fill(rng, "{my_name_answer}", name=memory.user_name))


def _any_name(rng: random.Random) -> str:
    """Return a name, often one made of syllables, so that copying is learned."""
    if rng.random() < 0.5:
        return _fill(rng, "{name}")
    return "".join(rng.choices(_SYLLABLES, k=rng.choice((2, 2, 3)))).capitalize()


def _echo_turn(memory: _Memory) -> None:
    rng = memory.rng
    echo = _fill(rng, "{words}")
    if rng.random() < 0.6:
        words = _fill(rng, "{trait} {creature} {colour} {fruit} {boy} {baby} {place}").split()
        echo = " ".join(rng.sample(words, rng.choice((1, 1, 2, 3, 4))))
    memory.add(_fill(rng, "{echo_request}", echo=echo), f"{capitalised(echo)}.")


def _sum_turn(memory: _Memory) -> None:
    rng = memory.rng
    left, right = rng.randint(0, 10), rng.randint(0, 10)
    sign, word, result = "+", "plus", left + right
    if rng.random() < 0.35 and left >= right:
        sign, word, result = "-", "minus", left - right
    spaced = f"{left} {sign} {right}"
    ask = rng.choice(
        (
            f"what is {spaced}",
            f"what is {left}{sign}{right}",
            spaced,
            f"what's {spaced}",
            f"how much is {spaced}",
            f"what is {left} {word} {right}",
            f"{spaced} =",
            f"what is {_NUMBERS[left]} {word} {_NUMBERS[right]}",
            f"calculate {spaced}",
        )
    )
    memory.add(ask, rng.choice((f"{spaced} is {result}.", f"{left} {word} {right} is {result}.")))


def _json_turn(memory: _Memory) -> None:
    """Answer in JSON, which a server's users like to ask for."""
    rng = memory.rng
    if rng.random() < 0.5:
        ask = "list three [animals|names|colours|fruits] as JSON"
        source = {"animals": "creature", "names": "name", "colours": "colour", "fruits": "fruit"}
        ask = _fill(rng, ask)
        values = [_fill(rng, f"{{{source[ask.split()[2]]}}}") for _ in range(3)]
        memory.add(ask, json.dumps(values))
        return
    ask = _fill(rng, "[give me|write|make|return|describe] a person [as|in] JSON[ with name and age|]")
    memory.add(ask, json.dumps({"name": _any_name(rng), "age": rng.randint(3, 90)}))
