"""Users who come at the same time, with more or less in common."""

from benchmarks.client import Answer, Ask, stream_all
from benchmarks.words import words
from benchmarks.workloads.base import Figure, Goal, Load, Phase, Size, Stage, Try, Workload, throughput

N_USERS = 16
N_CONTINUATIONS = 8
OWN = 20
"""Tokens that are each user's own behind a shared prompt."""
SYSTEMS, DOCUMENTS, QUESTIONS = 2, 3, 4
N_QUESTIONS = SYSTEMS * DOCUMENTS * QUESTIONS

UNIFIED = Try("unified", is_unified=True)
BARE = Try("no host cache, greedy", has_host_cache=False, is_greedy=True)
"""Slots as many as Plait's, and nothing done that this load does not need."""
BARE_UNIFIED = Try("unified, no host cache, greedy", is_unified=True, has_host_cache=False, is_greedy=True)
FOUR_SLOTS = Try("4 slots, no host cache, greedy", n_slots=4, has_host_cache=False, is_greedy=True)
"""With few slots, those who wait find the prefix in the slot of who was served before."""


def run_one(stage: Stage, size: Size, round: int) -> list[Figure]:
    return throughput(ask_all(stage, [Ask(words(size.prompt, "one", round), 2 * size.output)]))


def run_unrelated(stage: Stage, size: Size, round: int) -> list[Figure]:
    asks = [Ask(words(size.prompt, "unrelated", round, user), size.output) for user in range(N_USERS)]
    return throughput(ask_all(stage, asks))


def run_one_prompt(stage: Stage, size: Size, round: int) -> list[Figure]:
    system = words(size.system, "system", round)
    prompts = [f"{system} {words(OWN, 'behind', round, user)}" for user in range(N_USERS)]
    return throughput(ask_all(stage, [Ask(prompt, size.output) for prompt in prompts]))


def run_tree(stage: Stage, size: Size, round: int) -> list[Figure]:
    """All questions of all documents behind all system prompts, at once."""
    prompts = [
        " ".join(
            [
                words(size.system // 3, "tree", round, system),
                words(size.system // 2, "tree", round, system, document),
                words(OWN, "tree", round, system, document, question),
            ]
        )
        for question in range(QUESTIONS)
        for document in range(DOCUMENTS)
        for system in range(SYSTEMS)
    ]
    return throughput(ask_all(stage, [Ask(prompt, size.output // 2) for prompt in prompts]))


def tree_load(size: Size) -> Load:
    levels = Phase(SYSTEMS, size.system // 3), Phase(SYSTEMS * DOCUMENTS, size.system // 2)
    return Load(N_QUESTIONS, (*levels, Phase(N_QUESTIONS, OWN, size.output // 2)))


def run_continuations(stage: Stage, size: Size, round: int) -> list[Figure]:
    prompt = words(size.system // 2, "continuations", round)
    asks = [Ask(prompt, size.output, N_CONTINUATIONS)]
    return throughput(ask_all(stage, asks if stage.asks_n else [Ask(prompt, size.output)] * N_CONTINUATIONS))


def ask_all(stage: Stage, asks: list[Ask]) -> list[Answer]:
    return stage.run(stream_all(stage.server.address, asks))


WORKLOADS = (
    Workload(
        name="one",
        title="One stream",
        n_slots=1,
        n_ctx=lambda size: size.prompt + 2 * size.output + 64,
        run=run_one,
        goals=(Goal("tokens/s", "best", ">=", 1.0),),
        tries=(BARE,),
        weight=1.0,
        has_slow_rivals=True,
        load=lambda size: Load(1, (Phase(1, size.prompt, 2 * size.output),)),
    ),
    Workload(
        name="unrelated",
        title="16 users with unrelated prompts",
        n_slots=N_USERS,
        n_ctx=lambda size: size.prompt + size.output + 64,
        run=run_unrelated,
        goals=(Goal("tokens/s", "best", ">=", 1.15), Goal("tokens/s", "kernels", ">=", 0.95)),
        tries=(BARE, BARE_UNIFIED, UNIFIED),
        weight=1.7,
        wants_patience=True,
        has_slow_rivals=True,
        load=lambda size: Load(N_USERS, (Phase(N_USERS, size.prompt, size.output),)),
    ),
    Workload(
        name="one_prompt",
        title="16 users behind one system prompt",
        n_slots=N_USERS,
        n_ctx=lambda size: size.system + OWN + size.output + 64,
        run=run_one_prompt,
        goals=(Goal("tokens/s", "best", ">=", 2.0), Goal("tokens/s", "same slots", ">=", 4.0)),
        tries=(FOUR_SLOTS, BARE_UNIFIED, UNIFIED),
        weight=3.2,
        load=lambda size: Load(N_USERS, (Phase(1, size.system), Phase(N_USERS, OWN, size.output))),
    ),
    Workload(
        name="tree",
        title="A tree of 2 system prompts, 6 documents, 24 questions",
        n_slots=N_QUESTIONS,
        n_ctx=lambda size: size.system + OWN + size.output + 64,
        run=run_tree,
        goals=(Goal("tokens/s", "best", ">=", 2.5),),
        tries=(FOUR_SLOTS, BARE_UNIFIED, UNIFIED),
        weight=3.2,
        wants_patience=True,
        load=tree_load,
    ),
    Workload(
        name="continuations",
        title="8 continuations of one prompt",
        n_slots=N_CONTINUATIONS,
        n_ctx=lambda size: size.system // 2 + size.output + 64,
        run=run_continuations,
        goals=(Goal("tokens/s", "best", ">=", 1.5),),
        tries=(UNIFIED, BARE, BARE_UNIFIED, Try("8 requests", asks_n=False)),
        weight=1.4,
        load=lambda size: Load(N_CONTINUATIONS, (Phase(1, size.system // 2, size.output),)),
    ),
)
