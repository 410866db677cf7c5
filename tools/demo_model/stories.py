"""Makes short stories: picks who and what one is about, then tells a plot beat by beat.

A plot is a file of beats in order; a beat is a few alternative sentences, and one
that starts with `?` may be left out. The cast is chosen once per story, so names,
pronouns and things agree from the first sentence to the last.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from tools.demo_model.grammar import MATERIAL, Facts, Lists, expand, read_blocks, read_lists

_ONCE_SHARE = 0.38
_PARAGRAPH_SHARE = 0.6
_SAME_PRONOUN_SHARE = 0.2
_CHILDREN = ("boy", "girl")
_ELDERS = {"he": ("father", "grandfather", "uncle"), "she": ("mother", "grandmother", "aunt")}
_PRONOUNS = {"he": ("he", "him", "his", "himself"), "she": ("she", "her", "her", "herself")}


@dataclass(frozen=True)
class Subject:
    """What a story was asked to be about; an empty field is free to choose."""

    kind: str = ""
    name: str = ""
    he_or_she: str = ""
    plot: str = ""
    thing: str = ""


ANYTHING = Subject()


@cache
def story_lists() -> Lists:
    """Return every word list and shared sentence."""
    return read_lists(MATERIAL / "words.txt") | read_lists(MATERIAL / "phrases.txt")


@cache
def plots() -> dict[str, list[list[str]]]:
    """Return each plot's beats under the plot's name."""
    return {path.stem: read_blocks(path) for path in sorted(MATERIAL.glob("plots/*.txt"))}


@dataclass(frozen=True)
class Story:
    """A story's text, and the facts a question about it may ask for."""

    text: str
    facts: Facts


def tell_story(rng: random.Random, subject: Subject = ANYTHING, is_short: bool = False) -> Story:
    """Tell one story; a short one leaves out every beat that may be left out."""
    facts = _cast(rng, subject)
    name = subject.plot or rng.choice(sorted(plots()))
    opening = "opening" if rng.random() < _ONCE_SHARE else "other_opening"
    templates = [f"{{{opening}}}", *_chosen_beats(rng, plots()[name], is_short)]
    if rng.random() < 0.5:
        templates.append("{the_end}")
    beats = [expand(template, rng, facts, story_lists()) for template in templates]
    return Story(_laid_out(rng, beats), facts)


def tell_scene(rng: random.Random) -> str:
    """Tell of two friends in a few sentences that keep naming them."""
    facts = _cast(rng, ANYTHING)
    opening = rng.choice(("opening", "other_opening"))
    templates = [f"{{{opening}}}", "{meeting}", *["{moment}"] * rng.randint(1, 4)]
    return " ".join(expand(template, rng, facts, story_lists()) for template in templates)


def _chosen_beats(rng: random.Random, beats: list[list[str]], is_short: bool) -> list[str]:
    chosen = []
    for beat in beats:
        may_skip = beat[0] == "?"
        if may_skip and (is_short or rng.random() < 0.5):
            continue
        chosen.append(rng.choice(beat[1:] if may_skip else beat))
    return chosen


def _laid_out(rng: random.Random, beats: list[str]) -> str:
    """Join the beats into one paragraph, or into several of two or three beats."""
    if rng.random() > _PARAGRAPH_SHARE:
        return " ".join(beats)
    paragraphs: list[str] = []
    rest = beats
    while rest:
        n_beats = rng.choice((2, 3))
        paragraphs.append(" ".join(rest[:n_beats]))
        rest = rest[n_beats:]
    return "\n\n".join(paragraphs)


def _cast(rng: random.Random, subject: Subject) -> Facts:
    """Choose everyone and everything that must stay the same throughout a story."""
    facts = _hero(rng, subject)
    facts |= _friend(rng, facts)
    facts |= _elder(rng, facts["his"])
    for slot in ("place", "thing", "food", "baby", "bird", "contest", "seed", "present"):
        facts[slot] = expand(f"{{{slot}}}", rng, facts, story_lists())
    facts["day"] = expand("{morning}", rng, facts, story_lists())
    facts["thing"] = subject.thing or facts["thing"]
    facts["thing_a"] = f"a {facts['thing']}"
    facts["the_baby"] = f"a {facts['baby']}"
    facts["skill"], facts["skilling"] = rng.choice(story_lists()["skill"]).split("/")
    facts["trait"], facts["trait_too"] = rng.sample(story_lists()["trait"], 2)
    return facts


def _hero(rng: random.Random, subject: Subject) -> dict[str, str]:
    """Choose the hero: a child, an animal or something stranger."""
    he_or_she = subject.he_or_she or rng.choice(("he", "she"))
    kind = subject.kind or _kind(rng, he_or_she)
    adjective = rng.choice(story_lists()[rng.choice(("size", "trait"))])
    name = subject.name or _name(rng, he_or_she)
    facts = dict(zip(("he", "him", "his", "himself"), _PRONOUNS[he_or_she], strict=True))
    facts |= {"hero": name, "kind": kind, "kind_a": f"a {adjective} {kind}", "size_trait": adjective}
    facts["intro"] = f"a {adjective} {kind} {rng.choice(('named', 'called'))} {name}"
    facts["home"] = expand(rng.choice(story_lists()[_home(kind)]), rng, facts, story_lists())
    return facts


def _friend(rng: random.Random, hero: Facts) -> dict[str, str]:
    """Choose the friend, whose name and kind are not the hero's."""
    same = hero["he"]
    other = "she" if same == "he" else "he"
    he_or_she = same if rng.random() < _SAME_PRONOUN_SHARE else other
    kind = _different(hero["kind"], lambda: _kind(rng, he_or_she))
    name = _different(hero["hero"], lambda: _name(rng, he_or_she))
    adjective = rng.choice(("old", "small", "big", "young", *story_lists()["trait"]))
    he, him, his, _ = _PRONOUNS[he_or_she]
    intro = f"a {adjective} {kind} {rng.choice(('named', 'called'))} {name}"
    return {
        "friend": name,
        "f_he": he,
        "f_him": him,
        "f_his": his,
        "friend_intro": intro,
        "friend_kind_a": f"a {adjective} {kind}",
        "the_friend": f"the {kind}",
        "friend_name_kind": intro if kind in _CHILDREN else f"{name} the {kind}",
    }


def _different(taken: str, choose: Callable[[], str]) -> str:
    """Choose until the choice is not the one that is taken."""
    while (chosen := choose()) == taken:
        pass
    return chosen


def _elder(rng: random.Random, his: str) -> dict[str, str]:
    he_or_she = rng.choice(("he", "she"))
    he, him, his_own, _ = _PRONOUNS[he_or_she]
    elder = f"{his} {rng.choice(_ELDERS[he_or_she])}"
    if rng.random() < 0.25:
        title = "Mr." if he_or_she == "he" else "Mrs."
        elder = f"old {title} {rng.choice(story_lists()['surname'])}"
    return {"elder": elder, "e_he": he, "e_him": him, "e_his": his_own}


def _kind(rng: random.Random, he_or_she: str) -> str:
    """Choose what someone is: mostly a child or an animal, now and then a wonder."""
    match rng.random():
        case share if share < 0.4:
            return "boy" if he_or_she == "he" else "girl"
        case share if share < 0.85:
            return rng.choice(story_lists()["creature"])
        case _:
            return rng.choice(story_lists()[rng.choice(("wonder", f"{he_or_she}_wonder"))])


def _home(kind: str) -> str:
    if kind in _CHILDREN:
        return "home"
    return "den" if kind in story_lists()["creature"] else "land"


def _name(rng: random.Random, he_or_she: str) -> str:
    return rng.choice(story_lists()["boy" if he_or_she == "he" else "girl"])
