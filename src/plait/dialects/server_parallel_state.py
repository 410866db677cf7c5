"""What all requests to server-parallel share: one system prompt, with the names in it, and a few slots.

`Shared` owns it, on the event loop, for as long as the server runs. Of the wire it knows nothing.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from msgspec import Struct

from plait.dialects import common
from plait.errors import Overloaded
from plait.fleet.base import Fleet
from plait.protocol import Answer, Done, RawPrompt, Request, Sampling, Started

ANY_SLOT = -1
N_UNSTOPPABLE = 3
"""Tokens before the first that may end an answer."""
ENDED = Done(0, 0, "stop", 0, 0, 0.0, 0.0)
"""What ends an answer in the engine's place when the system prompt is switched."""


class Persona(Struct, frozen=True):
    """What everybody's prompt continues, who talks there, and at whose turn an answer ends."""

    system_prompt: str
    user_name: str
    assistant_name: str
    antiprompts: tuple[str, ...]


USER, ASSISTANT = "User:", "Assistant:"
SYSTEM_PROMPT = """\
This is a conversation without an end. The User asks, and the Assistant answers: kindly, truthfully and to the point.

User: Can you recommend a good restaurant?
Assistant: Gladly. What do you like to eat, and in which part of town should it be?
User: Who was Richard Feynman?
Assistant: An American physicist, known for quantum electrodynamics, for his lectures and for playing the bongos.
User:"""


class Settings(Struct, frozen=True, kw_only=True):
    """What the program's own flags choose."""

    n_slots: int = 0
    """0: as many as the model has."""
    n_predict: int | None = None
    """The most tokens of a prompt and its answer; the system prompt does not count."""
    antiprompts: tuple[str, ...] = (USER,)
    prompt_chunk: int | None = None
    """The most prompt tokens of one decode call, if that is less than the engine's."""
    folder: Path | None = None
    """Whose files are served."""
    is_open: bool = False
    """Pages of all origins may call."""
    has_one_audience: bool = False
    """Whoever has an API key may switch the system prompt of all; else only where there are no keys."""


OWN = Settings()
"""Where no flags say otherwise."""


@dataclass(slots=True, eq=False)
class Slot:
    """A place that an answer has taken."""

    id: int
    is_over: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the answer is to end, whatever it has still to say."""

    async def ending(self) -> AsyncGenerator[Answer, None]:
        await self.is_over.wait()
        yield ENDED


class Shared:
    """The persona in force, and the slots that are taken."""

    def __init__(self, fleet: Fleet, settings: Settings) -> None:
        self.fleet, self.settings = fleet, settings
        self.persona = Persona(SYSTEM_PROMPT, USER, ASSISTANT, settings.antiprompts)
        self.taken: dict[int, Slot] = {}
        self.counted = ("", 0)
        """A system prompt, and how many tokens it has."""

    async def switch(self, persona: Persona) -> None:
        """From now on, for everybody. What is being said ends; what no context has room for changes nothing."""
        await self.count(persona.system_prompt)
        self.persona = persona
        for slot in self.taken.values():
            slot.is_over.set()
        self.taken.clear()

    @contextmanager
    def slot(self, wanted: int) -> Iterator[Slot]:
        """A slot, for the time of the block. Raises `Overloaded` when that one, or every one, is taken."""
        free = [id for id in range(self._n_slots()) if id not in self.taken and wanted in (ANY_SLOT, id)]
        if not free:
            raise Overloaded("every slot is taken" if wanted == ANY_SLOT else f"there is no free slot {wanted}")
        slot = self.taken[free[0]] = Slot(free[0])
        try:
            yield slot
        finally:
            # After a switch it may be another's.
            if self.taken.get(slot.id) is slot:
                del self.taken[slot.id]

    def _n_slots(self) -> int:
        info = common.find(self.fleet, None).info
        return self.settings.n_slots or (info.n_slots if info else 1)

    async def request(self, prompt: str, temperature: float) -> Request:
        """The order for a prompt that continues the system prompt."""
        persona, n_most = self.persona, None
        if self.settings.n_predict is not None:
            # The original stops when prompt and answer, without its last token, have come to n_predict.
            n_most = await self.count(persona.system_prompt) + self.settings.n_predict + 1
        return Request(
            prompt=RawPrompt(persona.system_prompt + prompt),
            max_total_tokens=n_most,
            stop=persona.antiprompts,
            keep_stop=True,
            stop_after=N_UNSTOPPABLE,
            sampling=sampling(temperature),
            prompt_chunk=self.settings.prompt_chunk,
        )

    async def count(self, system_prompt: str) -> int:
        """Its tokens; none of them is computed. Raises `ContextOverflow` when no context has room for them."""
        known, n_tokens = self.counted
        if known != system_prompt:
            asked = self.fleet.generate(None, Request(prompt=RawPrompt(system_prompt), max_tokens=0))
            async with aclosing(asked) as answer:
                n_tokens = sum([len(event.prompt_tokens) async for event in answer if isinstance(event, Started)])
            self.counted = system_prompt, n_tokens
        return n_tokens


async def prepare(fleet: Fleet) -> None:
    """Read the system prompt that holds from the start, so that nobody waits for it. Raises when there is no room."""
    async with aclosing(fleet.generate(None, Request(prompt=RawPrompt(SYSTEM_PROMPT), max_tokens=1))) as answer:
        async for _ in answer:
            pass


def sampling(temperature: float) -> Sampling:
    """All but the temperature is fixed."""
    return Sampling(
        temperature=max(temperature, 0.0), top_k=40, top_p=0.95, min_p=0.0, repeat_last_n=64, repeat_penalty=1.1
    )
