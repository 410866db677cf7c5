"""The OpenAI dialect: `/v1/completions`, `/v1/chat/completions` and `/v1/models`, with llama.cpp's sampling fields.

From an HTTP request to an order, and from the events that answer it to one JSON value or to a stream of them.
Owns nothing that outlives a request, and knows no other dialect. docs/dialects/openai.md says what is served.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial

from msgspec import UNSET
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from plait.dialects import common
from plait.dialects.openai_wire import (
    CHAT,
    TEXT,
    Body,
    ChatBody,
    ChatChoice,
    ChatChunk,
    Choice,
    CompletionBody,
    Envelope,
    Model,
    ModelList,
    Refusal,
    Shape,
    TextChoice,
    encode,
    envelope,
    model,
    refusal,
    usage,
)
from plait.errors import ModelNotFound, PlaitError
from plait.fleet.base import Fleet, Served
from plait.protocol import Answer, Done, Progress, RawPrompt, Request, Resuming, Started, Text
from plait.web import guard, sse
from plait.web.documented import EVENTS, GENERATING, Documented, Documents, Says
from plait.web.respond import JSON, respond


def routes(fleet: Fleet) -> list[Route]:
    """This dialect's table."""
    return [
        Route("/v1/completions", partial(complete, fleet), methods=["POST"]),
        Route("/v1/chat/completions", partial(chat, fleet), methods=["POST"]),
        Route("/v1/models", partial(list_models, fleet)),
        Route("/v1/models/{name:path}", partial(show_model, fleet)),
    ]


def refuse(error: PlaitError) -> Response:
    """This dialect's way of saying no."""
    headers = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
    return Response(refusal(error), error.status, headers, JSON)


async def complete(fleet: Fleet, http: HttpRequest) -> Response:
    """`POST /v1/completions`."""
    body = await guard.json(http, CompletionBody)
    body.check()
    served = common.find(fleet, body.model)
    requests = [body.request(prompt) for prompt in body.prompts()]
    answers = [fleet.generate(served.name, request) for request in requests]
    if body.echo:
        answers = [echoed(request, said) for request, said in zip(requests, answers, strict=True)]
    return await reply(http, body, TEXT, served, answers)


async def chat(fleet: Fleet, http: HttpRequest) -> Response:
    """`POST /v1/chat/completions`."""
    body = await guard.json(http, ChatBody)
    body.check()
    served = common.find(fleet, body.model)
    request = body.request(body.prompt())
    return await reply(http, body, CHAT, served, [fleet.generate(served.name, request)])


async def reply(
    http: HttpRequest, body: Body, shape: Shape, served: Served, answers: Sequence[AsyncGenerator[Answer, None]]
) -> Response:
    """Send the answers, one a prompt, as the body asks for them: as they come or when all is said."""
    batches = common.weave(answers, body.n_choices)
    n_choices = len(answers) * body.n_choices
    if body.stream:
        chunks = Chunks(shape, served, n_choices, body.wants_usage)
        return await respond(http, streamed(batches, chunks), EVENTS)
    return await respond(http, whole(batches, shape, served, n_choices), JSON)


async def echoed(request: Request, said: AsyncGenerator[Answer, None]) -> AsyncGenerator[Answer, None]:
    """The same answer, in which each choice begins with the prompt's text."""
    async with aclosing(said):
        async for event in said:
            yield event
            if isinstance(event, Started) and isinstance(request.prompt, RawPrompt):
                for choice in range(request.n):
                    yield Text(event.id, choice, request.prompt.text, [])


async def whole(
    batches: AsyncGenerator[list[Answer], None], shape: Shape, served: Served, n_choices: int
) -> AsyncGenerator[bytes, None]:
    """The answer in one part."""
    said = await common.fold(batches, n_choices)
    answer = envelope(shape.id_prefix, shape.object, served)
    answer.choices = [shape.whole(index, text, said.reasons[index]) for index, text in enumerate(said.texts)]
    answer.usage = usage(said.counts)
    yield encode(answer)


class Chunks:
    """One stream's events as bytes. What stays the same in a choice's chunks is encoded once, then only its text is."""

    def __init__(self, shape: Shape, served: Served, n_choices: int, has_usage: bool) -> None:
        self.shape, self.n_choices, self.has_usage = shape, n_choices, has_usage
        self.counts = common.Counts()
        self.envelope = envelope(shape.id_prefix, shape.chunk_object, served)
        self.envelope.usage = None if has_usage else UNSET
        # Inside JSON strings quotes are escaped, so neither this nor what `mould` looks for can stand in a name.
        head, bracket, self.tail = encode(self.envelope).partition(b'"choices":[')
        self.head = head + bracket
        self.moulds: dict[int, tuple[bytes, bytes]] = {}
        """By choice: what stands before and after the text in its chunks."""

    def render(self, event: Answer) -> bytes:
        match event:
            case Text():
                return self.text(event.choice, event.text)
            case Started():
                self.counts.count(event)
                return b"".join(map(self.chunk, self.shape.openings(self.n_choices)))
            case Progress():
                return sse.comment(f"prompt {event.n_done}/{event.n_prompt}")
            case Resuming():
                return sse.RESUMING
            case Done():
                self.counts.count(event)
                ending = self.chunk(self.shape.ending(event.choice, event.reason))
                return self.text(event.choice, event.text) + ending + self.closing()

    def text(self, choice: int, text: str) -> bytes:
        if not text:
            return b""
        if choice not in self.moulds:
            self.moulds[choice] = self.mould(choice)
        before, after = self.moulds[choice]
        return sse.event(before + encode(text) + after)

    def mould(self, choice: int) -> tuple[bytes, bytes]:
        before, _, after = encode(self.shape.text(choice, "")).partition(b'""')
        return self.head + before, after + self.tail

    def chunk(self, choice: Choice) -> bytes:
        return sse.event(self.head + encode(choice) + self.tail)

    def closing(self) -> bytes:
        """What follows the end of the last choice."""
        if self.counts.n_done < self.n_choices:
            return b""
        if not self.has_usage:
            return sse.DONE
        self.envelope.usage = usage(self.counts)
        return sse.event(encode(self.envelope)) + sse.DONE


async def streamed(batches: AsyncGenerator[list[Answer], None], chunks: Chunks) -> AsyncGenerator[bytes, None]:
    """The answer as events, one part a batch. When some are out already, an error can only be the last of them."""
    has_begun = False
    async with aclosing(batches):
        try:
            async for batch in batches:
                if part := b"".join(map(chunks.render, batch)):
                    has_begun = True
                    yield part
        except PlaitError as error:
            if not has_begun:
                raise
            yield sse.event(refusal(error))


async def list_models(fleet: Fleet, http: HttpRequest) -> Response:
    """`GET /v1/models`."""
    return Response(encode(ModelList([model(served) for served in fleet.models()])), media_type=JSON)


async def show_model(fleet: Fleet, http: HttpRequest) -> Response:
    """`GET /v1/models/{name}`."""
    return Response(encode(model(common.find(fleet, http.path_params["name"]))), media_type=JSON)


DOCUMENTS = Documents(
    (
        Documented(
            complete,
            "Go on with a text, or with several",
            (Says(Envelope[TextChoice]), Says(Envelope[TextChoice], media_type=EVENTS, end="[DONE]")),
            body=CompletionBody,
            raises=GENERATING,
        ),
        Documented(
            chat,
            "Answer a conversation",
            (Says(Envelope[ChatChoice]), Says(Envelope[ChatChunk], media_type=EVENTS, end="[DONE]")),
            body=ChatBody,
            raises=GENERATING,
        ),
        Documented(list_models, "The models that are served", (Says(ModelList),)),
        Documented(show_model, "One of them", (Says(Model),), raises=(ModelNotFound,)),
    ),
    refusal=Refusal,
)
