"""The whole server with fake workers, in a process of its own.

`python -m tests.fakes.server SETTINGS [STEP_SECONDS]`, with the settings as one JSON object. Writes one JSON line when
it is ready: its addresses and the names of its models. With `prepares` among the settings, a dialect has the model read
this prompt before there are requests; with `leaps`, the gateway's wall clock is an hour fast and an hour slow by turns.
"""

import itertools
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import TypeVar

import msgspec

from plait.config import load
from plait.fleet.base import Fleet, Served
from plait.gateway.app import DIALECTS
from plait.gateway.server import serve
from plait.protocol import RawPrompt, Request
from tests.fakes.worker import command

HOUR = 3600
Number = TypeVar("Number", int, float)


def leaping(clock: Callable[[], Number], far: int) -> Callable[[], Number]:
    """The clock, fast and slow by turns."""
    offsets = itertools.cycle((far, -far))
    return lambda: clock() + next(offsets)


def main(settings: dict[str, object], *step_seconds: float) -> None:
    def on_ready(served: Sequence[Served], addresses: Sequence[str]) -> None:
        sys.stdout.write(msgspec.json.encode([list(addresses), [model.name for model in served]]).decode() + "\n")
        sys.stdout.flush()

    if settings.pop("leaps", False):
        vars(time).update(time=leaping(time.time, HOUR), time_ns=leaping(time.time_ns, HOUR * 10**9))
    prompt = settings.pop("prepares", None)
    first, *others = DIALECTS
    if isinstance(prompt, str):
        first = first._replace(prepare=partial(read, prompt))
    serve(load(settings, env={}), on_ready, dialects=[first, *others], worker_command=command(*step_seconds))


async def read(prompt: str, fleet: Fleet) -> None:
    async with aclosing(fleet.generate(None, Request(prompt=RawPrompt(prompt), max_tokens=1))) as answer:
        async for _ in answer:
            pass


if __name__ == "__main__":
    main(msgspec.json.decode(sys.argv[1], type=dict[str, object]), *map(float, sys.argv[2:]))
