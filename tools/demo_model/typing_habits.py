"""Rewrites a tidy sentence the way people type into a chat: pure, given a random source."""

import random
import re

from tools.demo_model.grammar import capitalised

_QUESTION = re.compile(
    r"(what|who|where|when|why|how|which|can|could|do|does|did|are|is|will|may|should|have)\b",
    re.IGNORECASE,
)
_BEFORE = ("Hey, ", "Hi! ", "Hello, ", "Please, ", "So, ", "OK, ", "Tell me, ", "And ", "Now, ")
_AFTER = (" please", ", please", " for me", " now", " then", " today")


def as_typed(rng: random.Random, text: str) -> str:
    """Vary case, punctuation and politeness, and slip in a rare typing error."""
    text = _surrounded(rng, text)
    text = _with_ending(rng, text)
    if rng.random() < 0.03:
        text = _with_slip(rng, text)
    return _with_case(rng, text)


def _surrounded(rng: random.Random, text: str) -> str:
    match rng.random():
        case share if share < 0.06:
            return rng.choice(_BEFORE) + text
        case share if share < 0.09 and text[-1].isalpha() and '"' not in text:
            return text + rng.choice(_AFTER)
        case _:
            return text


def _with_ending(rng: random.Random, text: str) -> str:
    if not text[-1].isalnum():
        return text
    if _QUESTION.match(text) or ". What" in text:
        return text + rng.choices(("?", "", "??", "?!", " ?"), (68, 26, 2, 2, 2))[0]
    return text + rng.choices(("", ".", "!", "!!", "..."), (45, 38, 14, 2, 1))[0]


def _with_slip(rng: random.Random, text: str) -> str:
    """Leave out one letter or swap two."""
    if len(text) < 6:
        return text
    at = rng.randrange(1, len(text) - 2)
    if rng.random() < 0.5:
        return text[:at] + text[at + 1 :]
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]


def _with_case(rng: random.Random, text: str) -> str:
    match rng.random():
        case share if share < 0.68:
            return capitalised(text)
        case share if share < 0.96:
            return text.lower() if rng.random() < 0.5 else text
        case share if share < 0.98:
            return text.upper()
        case _:
            return text
