"""Users who stay for several turns, disturb each other, or leave."""

import asyncio
import contextlib
import itertools
import random
import time

from benchmarks.client import Answer, Ask, stream
from benchmarks.rivals.base import Counted, Server
from benchmarks.words import words
from benchmarks.workloads.base import Figure, Goal, Load, Phase, Size, Stage, Try, Workload, failures, throughput
from benchmarks.workloads.together import BARE, BARE_UNIFIED, UNIFIED, ask_all

N_CONVERSATIONS = 8
N_STEADY = 4
N_SLOTS = 16
N_IMPATIENT = 32
WARM = 8
"""Tokens that each steady stream has when the first long prompt comes."""
WARM_WITHIN = 60.0
SETTLED = 2.0
"""Seconds for which counters stand still when nothing is computed any more."""
SETTLES_WITHIN = 30.0

Address = tuple[str, int]

# ── growing conversations ────────────────────────────────────────────────────────────────────────────────────────────


async def converse(address: Address, size: Size, round: int, who: int) -> list[Answer]:
    """Each turn's prompt is all that was said before, and a question."""
    said, answers = words(size.prompt, "conversation", round, who), []
    for turn in range(size.turns):
        said = f"{said} {words(size.prompt // 2, 'question', round, who, turn)}"
        answer = await stream(address, Ask(said, size.output // 2))
        said += answer.text
        answers.append(answer)
    return answers


def run_conversations(stage: Stage, size: Size, round: int) -> list[Figure]:
    async def all_of_them() -> list[list[Answer]]:
        address = stage.server.address
        return await asyncio.gather(*(converse(address, size, round, who) for who in range(N_CONVERSATIONS)))

    return throughput([answer for answers in stage.run(all_of_them()) for answer in answers])


def conversations_load(size: Size) -> Load:
    turns = [Phase(N_CONVERSATIONS, size.prompt // 2, size.output // 2) for _ in range(size.turns)]
    return Load(N_CONVERSATIONS, (Phase(N_CONVERSATIONS, size.prompt), *turns))


# ── long prompts beside steady streams ───────────────────────────────────────────────────────────────────────────────


async def disturb(address: Address, size: Size, round: int) -> tuple[list[Answer], list[Answer], int]:
    """The streams that were disturbed, and the long prompts that did it, one after the other; and how many of those
    streams had hardly begun when the first long prompt came."""
    n_chunks = [0] * N_STEADY
    is_warm, is_over = asyncio.Event(), asyncio.Event()

    async def write(who: int) -> Answer:
        def leaves(n: int) -> bool:
            n_chunks[who] = n
            if min(n_chunks) >= WARM:
                is_warm.set()
            return is_over.is_set()

        ask = Ask(words(size.prompt, "steady", round, who), steady_tokens(size))
        answer = await stream(address, ask, leaves)
        is_warm.set()  # who has ended is not waited for
        return answer

    writers = [asyncio.create_task(write(who)) for who in range(N_STEADY)]
    with contextlib.suppress(TimeoutError):  # some servers never write for all of them at once
        await asyncio.wait_for(is_warm.wait(), WARM_WITHIN)
    n_cold = sum(n < WARM for n in n_chunks)
    long = [await stream(address, Ask(words(size.long, "long", round, i), 4)) for i in range(size.n_long)]
    is_over.set()
    return await asyncio.gather(*writers), long, n_cold


def steady_tokens(size: Size) -> int:
    """Enough to outlast the long prompts where these are read in time."""
    return size.long // 4


def run_disturbed(stage: Stage, size: Size, round: int) -> list[Figure]:
    writers, long, n_cold = stage.run(disturb(stage.server.address, size, round))
    begin, end = long[0].sent, long[-1].ended
    gaps = [
        after - before
        for writer in writers
        for before, after in itertools.pairwise([*writer.times, writer.ended])
        if before < end and after > begin
    ]
    n_beside = sum(begin < at < end for writer in writers for at in writer.times)
    n_failed = sum(not each.is_whole for each in (*long, *(writer for writer in writers if writer.ended < end)))
    figures = [Figure("tokens/s beside them", n_beside / (end - begin), "tokens/s")]
    if gaps:
        figures.append(Figure("worst gap", max(gaps), "s"))
    if all(answer.times for answer in long):
        first = sum(answer.first_token for answer in long) / len(long)
        figures.append(Figure("long prompts' first token", first, "s"))
    if n_cold:
        figures.append(Figure("streams not begun before", n_cold, "streams"))
    if n_failed:
        figures.append(Figure("failed answers", n_failed / len([*long, *writers]), "share"))
    return figures


# ── half of the slots in use ─────────────────────────────────────────────────────────────────────────────────────────


def run_half_empty(stage: Stage, size: Size, round: int) -> list[Figure]:
    """The speed of the eight that are left when eight random ones of sixteen have ended."""
    staying = set(random.Random(f"half {round}").sample(range(N_SLOTS), N_SLOTS // 2))
    asks = [
        Ask(words(size.prompt, "half", round, user), size.output * (3 if user in staying else 1))
        for user in range(N_SLOTS)
    ]
    answers = ask_all(stage, asks)
    begin = max(answer.ended for user, answer in enumerate(answers) if user not in staying)
    end = min(answers[user].ended for user in staying)
    n_left = sum(begin < at <= end for user in staying for at in answers[user].times)
    rate = n_left / (end - begin) if end > begin else 0.0
    return [Figure("tokens/s of those left", rate, "tokens/s"), *failures(answers)]


# ── clients that hang up ─────────────────────────────────────────────────────────────────────────────────────────────


async def burst(address: Address, size: Size, round: int) -> list[Answer]:
    """Half of the clients leave when they have had a few tokens."""
    rng = random.Random(f"burst {round}")
    patience = [rng.randint(1, size.output // 4) if who % 2 else 0 for who in range(N_IMPATIENT)]
    asks = [Ask(words(size.prompt, "burst", round, who), size.output) for who in range(N_IMPATIENT)]
    leaving = [lambda n, limit=limit: 0 < limit <= n for limit in patience]
    pairs = zip(asks, leaving, strict=True)
    return await asyncio.gather(*(stream(address, ask, leaves) for ask, leaves in pairs))


def run_hangups(stage: Stage, size: Size, round: int) -> list[Figure]:
    per_prompt = computed_for_one(stage, size, round)
    before = settled(stage.server)
    answers = stage.run(burst(stage.server.address, size, round))
    after = settled(stage.server)
    figures = throughput(answers[::2])
    if before and after and (n_computed := total(after) - total(before)):
        n_wanted = sum(answer.n_output + per_prompt for answer in answers if answer.times)
        figures.append(Figure("computed for nobody", max(0.0, 1 - n_wanted / n_computed), "share"))
    return figures


def computed_for_one(stage: Stage, size: Size, round: int) -> int:
    """How many tokens of one such prompt a server computes: some know the first, which begins all, from another."""
    ask_all(stage, [Ask(words(1, "burst", round), 1)])
    before = settled(stage.server)
    ask_all(stage, [Ask(words(size.prompt, "one of a burst", round), 1)])
    after = settled(stage.server)
    return after.prompt_tokens - before.prompt_tokens if before and after else 0


def total(counted: Counted) -> int:
    return counted.prompt_tokens + counted.output_tokens


def settled(server: Server) -> Counted | None:
    """What was computed, when nothing is computed any more."""
    last, since, deadline = server.counted(), time.monotonic(), time.monotonic() + SETTLES_WITHIN
    while last and time.monotonic() < min(since + SETTLED, deadline):
        time.sleep(0.1)
        if (now := server.counted()) != last:
            last, since = now, time.monotonic()
    return last


WORKLOADS = (
    Workload(
        name="conversations",
        title="8 growing conversations",
        n_slots=N_CONVERSATIONS,
        n_ctx=lambda size: size.prompt + size.turns * (size.prompt + size.output) // 2 + 64,
        run=run_conversations,
        goals=(Goal("tokens/s", "best", ">=", 1.5),),
        tries=(BARE, BARE_UNIFIED, UNIFIED),
        weight=1.6,
        wants_patience=True,
        load=conversations_load,
    ),
    Workload(
        name="disturbed",
        title="4 steady streams while long prompts arrive",
        n_slots=N_STEADY + 1,
        n_ctx=lambda size: size.long + 64,
        run=run_disturbed,
        figure="worst gap",
        goals=(
            Goal("worst gap", "same slots", "<=", 1 / 8),
            Goal("long prompts' first token", "same slots", "<=", 1.3),
        ),
        tries=(Try("batches of 256", n_batch=256),),
        weight=1.5,
        is_better_high=False,
    ),
    Workload(
        name="half_empty",
        title="8 of 16 slots in use, after random ends",
        n_slots=N_SLOTS,
        n_ctx=lambda size: size.prompt + 3 * size.output + 64,
        run=run_half_empty,
        figure="tokens/s of those left",
        goals=(Goal("tokens/s of those left", "same slots", ">=", 2.0),),
        tries=(BARE, BARE_UNIFIED, UNIFIED),
        weight=1.8,
    ),
    Workload(
        name="hangups",
        title="A burst of 32, half of whom hang up",
        n_slots=N_SLOTS,
        n_ctx=lambda size: size.prompt + size.output + 64,
        run=run_hangups,
        figure="computed for nobody",
        goals=(Goal("computed for nobody", "", "<=", 0.02),),
        weight=1.6,
        is_better_high=False,
    ),
)
