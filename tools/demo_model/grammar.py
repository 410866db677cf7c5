"""Turns templates into text: pure functions of a random source and some facts.

A template holds `{slot}`, filled from the facts or from a list of alternatives,
and `[this|that]`, of which one is taken. A slot written `{Slot}` starts with a
capital. What the slots mean is not known here.
"""

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

Lists: TypeAlias = Mapping[str, Sequence[str]]
Facts: TypeAlias = Mapping[str, str]

MATERIAL = Path(__file__).parent / "material"

# The innermost slot or choice; expanding from the inside out allows nesting.
_INNERMOST = re.compile(r"\{([A-Za-z_]+)\}|\[([^\[\]{}]*)\]")
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiouAEIOU])")


def content_lines(path: Path) -> Iterator[str]:
    """Yield a material file's lines without its comments."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            yield line.strip()


def read_lists(path: Path) -> dict[str, list[str]]:
    """Read a file of named lists: a name and a colon, then one entry per line."""
    lists: dict[str, list[str]] = {}
    name = ""
    for line in content_lines(path):
        if re.fullmatch(r"[a-z_]+:", line):
            name = line[:-1]
            lists[name] = []
        elif line:
            lists[name].append(line)
    return lists


def read_blocks(path: Path) -> list[list[str]]:
    """Read a file of blocks of lines that are separated by empty lines."""
    blocks: list[list[str]] = [[]]
    for line in content_lines(path):
        if line:
            blocks[-1].append(line)
        elif blocks[-1]:
            blocks.append([])
    return [block for block in blocks if block]


def capitalised(text: str) -> str:
    """Return the text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def with_articles(text: str) -> str:
    """Write "an" for "a" where a vowel follows."""
    return _ARTICLE.sub(r"\1n ", text)


def expand(template: str, rng: random.Random, facts: Facts, lists: Lists) -> str:
    """Fill a template until no slot and no choice is left."""

    def fill(match: re.Match[str]) -> str:
        slot: str | None = match[1]
        if slot is None:
            choices: str = match[2]
            return rng.choice(choices.split("|"))
        key = slot.lower()
        value = facts[key] if key in facts else rng.choice(lists[key])
        return capitalised(value) if slot[0].isupper() else value

    text = template
    while _INNERMOST.search(text):
        text = _INNERMOST.sub(fill, text)
    return with_articles(text)
