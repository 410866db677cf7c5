"""What a server holds: after a restart, and in memory."""

from benchmarks.client import Answer, Ask
from benchmarks.words import words
from benchmarks.workloads.base import Figure, Goal, Size, Stage, Workload, failures, first_tokens
from benchmarks.workloads.together import N_USERS, OWN, UNIFIED, ask_all

N_SYSTEMS = 4
MIB = 1 << 20
MEMORY_CTX = 1024


def ask_known(stage: Stage, size: Size, round: int) -> list[Answer]:
    systems = [words(size.system // 2, "known", round, i) for i in range(N_SYSTEMS)]
    prompts = [f"{systems[user % N_SYSTEMS]} {words(OWN, 'known', round, user)}" for user in range(N_USERS)]
    return ask_all(stage, [Ask(prompt, size.output // 4) for prompt in prompts])


def run_restart(stage: Stage, size: Size, round: int) -> list[Figure]:
    """Prompts that the server knew before it was started anew."""
    before = ask_known(stage, size, round)
    stage.server.keep(stage.setup.n_slots)
    stage.restart()
    stage.server.recall(stage.setup.n_slots)
    after = ask_known(stage, size, round)
    cold = [figure._replace(name=f"{figure.name}, before") for figure in first_tokens(before)]
    computed = stage.server.counted()
    told = [Figure("prompt tokens computed anew", computed.prompt_tokens, "tokens")] if computed else []
    return [*first_tokens(after), *cold, *told, *failures(after)]


def run_memory(stage: Stage, size: Size, round: int) -> list[Figure]:
    asks = [Ask(words(size.prompt, "memory", round, user), size.output // 4) for user in range(N_USERS)]
    answers = ask_all(stage, asks)
    return [Figure("resident", stage.server.memory / MIB, "MiB"), *failures(answers)]


WORKLOADS = (
    Workload(
        name="restart",
        title="Known prompts after a restart",
        n_slots=N_USERS,
        n_ctx=lambda size: size.system // 2 + OWN + size.output + 64,
        run=run_restart,
        figure="first token, median",
        goals=(),
        weight=1.4,
        is_better_high=False,
    ),
    Workload(
        name="memory",
        title="Memory at the same context and slots, without caches besides, which defaults have",
        n_slots=N_USERS,
        n_ctx=lambda size: MEMORY_CTX,
        run=run_memory,
        figure="resident",
        goals=(Goal("resident", "same slots", "<=", 1.1),),
        tries=(UNIFIED,),
        weight=0.7,
        has_host_cache=False,
        is_better_high=False,
    ),
)
