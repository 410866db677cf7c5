"""K16: fault after fault in one pool, in a seeded order. Nobody healthy is lost, and nothing is left in the end."""

import asyncio
import os
import random
import signal
from contextlib import aclosing
from pathlib import Path

import pytest

from plait.errors import ContextOverflow, PoisonousRequest
from plait.fleet.pool import Pool
from plait.protocol import RawPrompt, Request
from tests.process.conftest import OpenPool
from tests.process.test_resume import check_history, collect, counting
from tests.process.test_workers import children, text
from tests.waiting import soon

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

FAULTS = ("mortal", "freeze", "haunt", "crash", "garbage", "stranger", "refuse", "leave", "kill")
N_HEALTHY = 4


async def suffer(pool: Pool, fault: str, mark: Path, dice: random.Random) -> None:
    """One fault, and what becomes of the request that brings it about."""
    match fault:
        case "kill":
            os.kill(dice.choice([replica.pid for replica in pool.served().replicas]) or 0, signal.SIGKILL)
        case "leave":
            async with aclosing(pool.generate(counting("hang"))) as answers:
                await anext(answers)
        case "refuse":
            with pytest.raises(ContextOverflow):
                await text(pool.generate(counting("refuse")))
        case "crash" | "garbage" | "stranger":
            with pytest.raises(PoisonousRequest):
                await text(pool.generate(Request(prompt=RawPrompt(f"{fault} {mark}"))))
        case _:
            check_history(await collect(pool.generate(counting(f"{fault} {mark} {dice.randrange(40)}"))))


def kept() -> tuple[str, int, int]:
    """What this process holds: children, open files, tasks."""
    return children(), len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())


async def test_k16_fault_after_fault_loses_nobody_and_leaves_nothing(open_pool: OpenPool, tmp_path: Path) -> None:
    async with open_pool() as pool:
        await collect(pool.generate(counting("count")))
    # Whatever is opened once in a process is open now.
    dice, before = random.Random(16), kept()
    async with open_pool(n_replicas=2, hang_seconds=4, max_queue=100) as pool:
        for fault in dice.sample(FAULTS, len(FAULTS)):
            healthy = [asyncio.create_task(collect(pool.generate(counting(f"count {i}")))) for i in range(N_HEALTHY)]
            await suffer(pool, fault, tmp_path / fault, dice)
            for each in healthy:
                check_history(await each)
            await soon(lambda: [replica.state for replica in pool.served().replicas] == ["ready"] * 2)
        assert pool.tally.outcomes["ok"] == N_HEALTHY * len(FAULTS) + 3
    await soon(lambda: kept() == before)
