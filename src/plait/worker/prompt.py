"""What a request's prompt is in token ids. Runs on the tokenizer's thread and touches nothing that another changes."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from plait.config import Engine as Settings
from plait.engine.sequence import common_prefix
from plait.errors import BadRequest, ContextOverflow
from plait.llama.context import Context
from plait.llama.model import Model
from plait.protocol import ChatPrompt, Prompt, RawPrompt, Request, TokenPrompt, Verdict, check_ids
from plait.text.template import ChatTemplate, Segment


class Loaded(NamedTuple):
    """What the engine's thread opened. Others may use what never changes: the vocabulary, sizes, the template."""

    model: Model
    context: Context
    template: ChatTemplate | None
    settings: Settings
    verdict: Verdict


class Tokenizer(Protocol):
    """What `prompt_tokens` needs of a model."""

    n_vocab: int
    longest_piece: int
    """Bytes of the token that has most."""

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]: ...

    def check_pace(self, texts: Sequence[str], param: str) -> None: ...


SLACK = 4
"""A normalizer may make a text shorter, but not by so much."""


def prompt_tokens(prompt: Prompt, tokenizer: Tokenizer, template: ChatTemplate | None, n_ctx: int) -> list[int]:
    """The ids that a prompt stands for, never empty. Raises `BadRequest`.

    What cannot fit `n_ctx` tokens, however it is tokenized, is refused before that takes seconds; so is what would take
    many of them.
    """
    check_ids(prompt, tokenizer.n_vocab)
    match prompt:
        case TokenPrompt(tokens):
            pass
        case RawPrompt(text, prefix):
            check_texts([text], tokenizer, n_ctx, "prompt")
            tokens = [*prefix, *tokenizer.tokenize(text, add_special=not prefix, parse_special=True)]
        case ChatPrompt(messages):
            if template is None:
                raise BadRequest("this model has no chat template; use completions", param="messages")
            segments = template.render(messages)
            check_texts([text for text, _ in segments], tokenizer, n_ctx, "messages")
            tokens = chat_tokens(segments, tokenizer)
    if not tokens:
        raise BadRequest("the prompt is empty", param="prompt")
    return tokens


def check_texts(texts: Sequence[str], tokenizer: Tokenizer, n_ctx: int, param: str) -> None:
    """Raise `BadRequest` for what is not worth to be tokenized, or would keep others waiting for that."""
    check_length(texts, tokenizer, n_ctx, param)
    tokenizer.check_pace(texts, param)


def check_length(texts: Sequence[str], tokenizer: Tokenizer, n_ctx: int, param: str) -> None:
    """Raise `ContextOverflow` for text that has more bytes than the longest tokens could hold."""
    n_bytes = sum(len(text.encode()) for text in texts)
    if n_bytes > SLACK * n_ctx * tokenizer.longest_piece:
        most = f"{n_ctx} tokens of at most {tokenizer.longest_piece} bytes"
        raise ContextOverflow(
            f"the prompt has {n_bytes} bytes; a context holds {most}, the answer included", param=param
        )


def chat_tokens(segments: Sequence[Segment], tokenizer: Tokenizer) -> list[int]:
    """Rendered turns as ids. A template that writes the begin token itself does not get a second one."""
    tokens: list[int] = []
    for i, (text, has_control) in enumerate(segments):
        tokens += tokenizer.tokenize(text, add_special=i == 0, parse_special=has_control)
    alone = tokenizer.tokenize("", add_special=True, parse_special=False)
    return tokens[1:] if tokens[:2] == alone * 2 else tokens


def usable_context(request: Request, context: Context) -> int:
    """Tokens that prompt and answer may have together."""
    return context.n_ctx if request.ctx_size is None else min(request.ctx_size, context.n_ctx)


class Prepared(NamedTuple):
    """A prompt, ready for the engine."""

    tokens: list[int]
    landmarks: frozenset[int]
    """Where its state is worth keeping, if the model's memory cannot be cut: later prompts go on from there."""


def landmarks(prompt: Prompt, tokens: list[int], loaded: Loaded) -> frozenset[int]:
    """The end of the last message, which the next turn has for certain, and the last place before an answer."""
    places = {len(tokens) - 1}
    if isinstance(prompt, ChatPrompt) and loaded.template:
        told = chat_tokens(loaded.template.render(prompt.messages, asks=False), loaded.model)
        places.add(common_prefix(told, tokens))
    return frozenset(places - {0})


def prepare(request: Request, loaded: Loaded) -> Prepared:
    """The prompt's ids, if they fit a slot with room for one more. Raises `BadRequest`."""
    n_ctx = usable_context(request, loaded.context)
    tokens = prompt_tokens(request.prompt, loaded.model, loaded.template, n_ctx)
    if len(tokens) >= n_ctx:
        raise ContextOverflow(
            f"the prompt has {len(tokens)} tokens; a context holds {n_ctx}, the answer included",
            param="messages" if isinstance(request.prompt, ChatPrompt) else "prompt",
        )
    return Prepared(tokens, frozenset() if loaded.context.can_cut else landmarks(request.prompt, tokens, loaded))
