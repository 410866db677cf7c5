"""Chat template: messages → prompt text. The template comes from the model file, so it runs in a sandbox.

What the template writes may be control tokens; what a user wrote may not, even if it looks like one. Text that would
read as a control token is therefore fenced with two characters that no text may contain before it is rendered, and
comes out as a segment of its own, to be tokenized as plain text. Ordinary messages pass unchanged and unsplit.

A template that deletes or joins text may still make a control token of pieces that were none. So it is rendered once
more, with messages in which none can begin or end: what is then not written came from a message, and is refused.
"""

import json
import re
from collections.abc import Collection
from datetime import UTC, datetime
from typing import NamedTuple, NoReturn

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from plait.errors import BadRequest
from plait.protocol import ChatMessage

OPEN, CLOSE = "\ufdd0", "\ufdd1"
"""Unicode noncharacters, "intended for process-internal use" (Unicode 15, 23.7)."""
MARK = "\ufdd2"
"""Another. Part of no control text."""
MAX_PROMPT_CHARACTERS = 16 * 1024 * 1024
"""A template may multiply its input; this is far past any context."""


class Segment(NamedTuple):
    """A run of prompt text, and whether control tokens written in it are control tokens."""

    text: str
    has_control: bool


class ChatTemplate:
    """One model's template. `control_texts` are the texts that its tokenizer reads as control tokens."""

    def __init__(self, source: str, control_texts: tuple[str, ...], bos: str, eos: str) -> None:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = to_json
        environment.globals.update(raise_exception=refuse, strftime_now=strftime_now, bos_token=bos, eos_token=eos)
        try:
            self._template = environment.from_string(source)
            written = set(control_texts) - {""}
            self._control = re.compile(any_of(written))
            self._anywhere = re.compile(f"(?=({any_of(written)}))")
            self._ends = re.compile(any_of({text[i] for text in written for i in (0, -1)}))
        except (jinja2.TemplateError, RecursionError) as error:
            raise BadRequest(f"the model's chat template cannot be read: {error}") from error

    def render(self, messages: list[ChatMessage], *, asks: bool = True) -> list[Segment]:
        """The prompt that asks for the next turn; with `asks=False`, it ends with the last message. Raises `BadRequest`
        when messages would forge control tokens, and in the template's words when it refuses."""
        found = segments(self._rendered([self._turn(message) for message in messages], asks=asks))
        trial = segments(self._rendered([self._harmless(message) for message in messages], asks=asks))
        if self._controls(found) != self._controls(trial):
            raise BadRequest("the chat template would make a control token of parts of the messages", param="messages")
        return found

    def _rendered(self, turns: list[dict[str, str]], *, asks: bool) -> str:
        try:
            text = self._template.render(messages=turns, add_generation_prompt=asks, tools=None)
            text.encode()  # a template may write halves of characters, which are no text
        except BadRequest:
            raise
        except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError, RecursionError) as error:
            raise BadRequest(f"the model's chat template failed: {error}", param="messages") from error
        if len(text) > MAX_PROMPT_CHARACTERS:
            raise BadRequest("the rendered prompt is too long", param="messages")
        return text

    def _turn(self, message: ChatMessage) -> dict[str, str]:
        turn = {"role": self._fence(message.role), "content": self._fence(message.content)}
        return turn | ({"name": self._fence(message.name)} if message.name is not None else {})

    def _harmless(self, message: ChatMessage) -> dict[str, str]:
        """The same turn, but no control text can begin or end in it, nor hold a whole text of it. Templates do write
        control texts around a role; which roles there are is no user's choice."""
        turn = {name: self._disarm(text) for name, text in self._turn(message).items()}
        return {name: text if name == "role" else marked(text) for name, text in turn.items()}

    def _fence(self, text: str) -> str:
        return self._control.sub(rf"{OPEN}\g<0>{CLOSE}", text.replace(OPEN, "").replace(CLOSE, ""))

    def _disarm(self, fenced: str) -> str:
        """What is fenced stays: templates look for it."""
        parts = re.split(f"({OPEN}[^{CLOSE}]*{CLOSE})", fenced)
        return "".join(part if i % 2 else self._ends.sub(MARK, part) for i, part in enumerate(parts))

    def _controls(self, parts: list[Segment]) -> list[str]:
        """The control texts that count as such, overlapping ones included."""
        return [control for text, has_control in parts if has_control for control in self._anywhere.findall(text)]


def any_of(texts: Collection[str]) -> str:
    """A pattern for the longest of `texts` at a place. What many of them begin with is looked at once: vocabularies
    have hundreds of control texts, and whoever repeats their common beginning would keep the tokenizer for long."""
    rests: dict[str, list[str]] = {}
    for text in filter(None, sorted(texts)):
        rests.setdefault(text[0], []).append(text[1:])
    branches = [re.escape(first) + (any_of(rest) if any(rest) else "") for first, rest in rests.items()]
    if "" in texts:
        return f"(?:{'|'.join(branches)})?"
    return branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches) or '(?!)'})"


def segments(text: str) -> list[Segment]:
    """Cut rendered text at the fences, and at halves that a template left of them. One segment, in nearly all cases."""
    parts = re.split(f"{OPEN}([^{OPEN}{CLOSE}]*){CLOSE}|[{OPEN}{CLOSE}]", text)
    return [Segment(part, i % 2 == 0) for i, part in enumerate(parts) if part]


def marked(text: str) -> str:
    """With a mark before the first and behind the last character that is no space, if there is one."""
    inner = text.strip()
    return text.replace(inner, f"{MARK}{inner}{MARK}", 1) if inner else text


def refuse(message: str) -> NoReturn:
    """`raise_exception` of templates."""
    raise BadRequest(message, param="messages")


def strftime_now(form: str) -> str:
    return datetime.now(UTC).strftime(form)


def to_json(value: object, indent: int | None = None) -> str:
    """`tojson` as templates expect it: unescaped, unlike Jinja's own, which is meant for HTML."""
    return json.dumps(value, ensure_ascii=False, indent=indent)
