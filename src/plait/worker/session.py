"""One request inside the worker: its sequences for the engine, and each choice's tokens as events.

Made on the tokenizer's thread; from its submission on, everything here belongs to the engine's thread.
"""

import codecs
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial

from plait.engine import sequence
from plait.engine.sequence import BLOCK, Group, Reason
from plait.errors import GenerationFailed
from plait.llama import adapters
from plait.llama.sampling import Sampler, samplers
from plait.protocol import Cached, Done, Event, Failed, Generate, Progress, Queued, Request, Started, Text
from plait.text.stream import TextStream
from plait.worker import judging
from plait.worker.prompt import Loaded, Prepared, usable_context

Say = Callable[[Event], None]
"""Where events go; called on the engine's thread."""


@dataclass(slots=True, eq=False)
class Work:
    """One request while it runs."""

    id: int
    received: float
    prompt: list[int]
    prompt_texts: list[str | None]
    say: Say
    group: Group
    choices: "list[Choice]" = field(default_factory=list)
    settled: "list[tuple[Choice, Reason]]" = field(default_factory=list)
    """Choices that end without another token: all that they may say is known, or they may say nothing."""

    @property
    def is_over(self) -> bool:
        return all(choice.is_over for choice in self.choices)

    def begin(self) -> None:
        """Said when the engine takes it. Who has a sequence speaks when that is admitted."""
        self.say(Queued(self.id))
        if not self.group.members:
            self.say(Started(self.id, self.prompt, Cached(), self.prompt_texts))
        for choice, reason in self.settled:
            choice.ended(reason)

    def close(self) -> None:
        for choice in self.choices:
            choice.close()


@dataclass(slots=True, eq=False)
class Choice:
    """One continuation's listener: tokens in, events out."""

    work: Work
    index: int
    text: TextStream
    pieces: list[bytes]
    release: Callable[[], None]
    """Frees the sampler."""
    leads: bool = False
    """Of a request's choices, the one that reads the prompt and tells of it."""
    n_output: int = 0
    first_token_at: float = 0.0
    is_over: bool = False

    def replay(self, known: Sequence[int]) -> None:
        """Hear again what another worker's choice said; nobody else does."""
        for token in known:
            self.n_output += 1
            self.text.feed(self.pieces[token])

    def started(self, cached: Cached) -> None:
        if self.leads:
            self.work.say(Started(self.work.id, self.work.prompt, cached, self.work.prompt_texts))

    def progress(self, n_done: int) -> None:
        if self.leads:
            self.work.say(Progress(self.work.id, n_done, len(self.work.prompt)))

    def token(self, token: int) -> bool:
        self.n_output += 1
        if not self.first_token_at:
            self.first_token_at = time.monotonic()
        text = self.text.feed(self.pieces[token])
        self.work.say(Text(self.work.id, self.index, text, [token]))
        return self.text.is_stopped

    def ended(self, reason: Reason) -> None:
        work, now = self.work, time.monotonic()
        first = (self.first_token_at or now) - work.received
        counts = len(work.prompt), self.n_output
        times = first, now - work.received
        work.say(Done(work.id, self.index, reason, *counts, *times, self.text.flush(), self.text.stopped_by))
        self.close()

    def failed(self, error: GenerationFailed) -> None:
        self.work.say(Failed(self.work.id, error.code, error.message, error.param))
        self.work.close()

    def close(self) -> None:
        if not self.is_over:
            self.is_over = True
            self.release()


def open_work(order: Generate, prepared: Prepared, loaded: Loaded, received: float, say: Say) -> Work:
    """The sequences of a prepared request. Raises `BadRequest` for sampling that the vocabulary forbids, for adapters
    that are not loaded, and when it is to be reproducible and cannot be."""
    request, prompt = order.request, prepared.tokens
    scales = adapters.chosen(request.lora, loaded.model.adapters)
    rules = judging.rules(request, loaded.settings, loaded.verdict)
    if rules:
        judging.check_adapters(scales, loaded.model.adapters)
    group = Group(
        shares=request.cache_prompt,
        pin=request.pin,
        chunk=BLOCK if rules else min(request.prompt_chunk or BLOCK, BLOCK),
        n_threads=request.n_threads or 0,
        priority=request.priority,
        tenant=request.tenant,
        scope="" if loaded.settings.cache_shared else request.tenant,
        adapters=scales,
        landmarks=prepared.landmarks,
        rules=rules,
    )
    texts = token_texts(prompt, loaded.model.pieces) if request.echo else []
    work = Work(order.id, received, prompt, texts, say, group)
    choices = {i: known for i, known in enumerate(order.known or ((),) * request.n) if known is not None}
    try:
        with closing(samplers(loaded.model, request.sampling, choices, prompt)) as made:
            for (i, known), sampler in zip(choices.items(), made, strict=True):
                open_choice(work, i, known, sampler, request, loaded)
    except BaseException:
        work.close()
        raise
    return work


def open_choice(
    work: Work, index: int, known: Sequence[int], sampler: Sampler, request: Request, loaded: Loaded
) -> None:
    """Add one choice, which said `known` before, to `work`."""
    model, context, *_ = loaded
    text = TextStream(request.stop, keep=request.keep_stop, after=request.stop_after)
    pieces = model.spelled if request.spells_control else model.pieces
    choice = Choice(work, index, text, pieces, sampler.close)
    work.choices.append(choice)
    sampler.accept(known)
    choice.replay(known)
    n_most = output_limit(request, len(work.prompt), usable_context(request, context))
    if choice.text.is_stopped or not model.end_tokens.isdisjoint(known[-1:]):
        work.settled.append((choice, "stop"))
    elif len(known) >= n_most:
        work.settled.append((choice, "length"))
    else:
        choice.leads = not work.group.members
        seq = sequence.Sequence(
            list(work.prompt), work.group, choice, partial(context.sample, sampler), n_most, model.end_tokens
        )
        seq.tokens += known


def output_limit(request: Request, n_prompt: int, n_ctx: int) -> int:
    """The most tokens that a choice may say, which may be none."""
    limits = [n_ctx - n_prompt]
    if request.max_tokens is not None:
        limits.append(request.max_tokens)
    if request.max_total_tokens is not None:
        limits.append(request.max_total_tokens - n_prompt)
    return max(0, min(limits))


def token_texts(tokens: Sequence[int], pieces: Sequence[bytes]) -> list[str | None]:
    """Each token's text. A character that several tokens make up is the last one's, and the others have none."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    texts: list[str | None] = []
    for token in tokens:
        text = decoder.decode(pieces[token])
        is_waiting = bool(decoder.getstate()[0])
        texts.append(None if is_waiting and not text else text)
    return texts
