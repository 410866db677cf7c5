"""When a worker counts as hanging, which is as good as dead. Holds nothing."""

import asyncio

from plait.fleet.client import Client
from plait.fleet.process import Worker

USUAL_STEPS = 10
"""A step may take so many times as long as usual before it counts as hanging."""
FIRST_STEPS = 4
FIRST_STEP_SECONDS = 60.0
"""What the first step may take, while nobody knows what is usual: so many times the limit, and at least so long."""

CHUNK_ROWS = 64
"""The least that a step takes of a prompt, however slow the model is (`engine.pace`)."""


async def watch(worker: Worker, hang_seconds: float) -> str:
    """Returns when a worker is dead; if it hung, it was helped, and the return says so."""
    while True:
        try:
            # Not `wait_for`: in Python 3.11 that forgets a cancel that comes just as the worker dies.
            async with asyncio.timeout(hang_seconds / 3):
                await worker.client.died.wait()
        except TimeoutError:
            worker.look_at_memory()
            silence = worker.client.silence()
            if silence is not None and silence > patience(worker.client, hang_seconds):
                worker.kill()
                return f"the worker had not moved for {silence:.0f} s"
        else:
            return ""


def patience(client: Client, hang_seconds: float) -> float:
    """How long a worker may be silent: a long step is work, if steps are as long as that, or may be."""
    return longest_silence(client.usual_step(), client.usual_row(), hang_seconds)


def longest_silence(usual_step: float | None, usual_row: float | None, hang_seconds: float) -> float:
    """The same, from what steps and their rows take. Who only writes may begin to read a prompt in the next step."""
    if usual_step is None or usual_row is None:
        return max(FIRST_STEPS * hang_seconds, FIRST_STEP_SECONDS)
    return max(hang_seconds, USUAL_STEPS * usual_step, CHUNK_ROWS * usual_row)
