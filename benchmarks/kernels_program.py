"""The same work as a workload's in a bare loop over `llama_decode`, without a server.

`python -m benchmarks.kernels_program MODEL N_STREAMS N_CTX` says when it is ready, reads loads from standard input, one
line of JSON each, and answers with the seconds that each took. A `Loop` owns its model and context.
"""

import itertools
import json
import random
import statistics
import sys
import time
from pathlib import Path

from benchmarks.workloads.base import Figure, Load, Phase
from plait import config
from plait.llama.context import Context
from plait.llama.model import Model
from plait.llama.sampling import Sampler
from plait.protocol import Sampling

PREFILLS = (64, 512, 2048)
DECODES = (1, 2, 4, 8, 16)
N_TRIES = 3
ENOUGH = 2.0
"""Seconds after which a prompt is not read once more."""
N_DECODED = 24
HELD = 64
"""Tokens in each stream before the steps that are timed."""


class Loop:
    """One context, emptied for each load."""

    def __init__(self, model: Path, n_streams: int, n_ctx: int) -> None:
        settings = config.Engine()
        self.model = Model(str(model), settings)
        self.context = Context(self.model, settings, n_ctx=n_ctx, n_slots=n_streams)
        self.greedy = Sampler(self.model, Sampling(temperature=0.0, seed=0), 0, [])
        self.rng = random.Random(1)

    def close(self) -> None:
        self.greedy.close()
        self.context.close()
        self.model.close()

    def words(self, n: int) -> list[int]:
        return [self.rng.randrange(300, self.model.n_vocab) for _ in range(n)]

    def seconds(self, load: Load) -> float:
        """Of all phases: each prompt in as few calls as it fits in, then rows for all until they have written."""
        for stream in range(self.context.n_slots):
            self.context.trim(stream, 0)
        prompts = [[self.words(phase.n_prompt) for _ in range(phase.n_groups)] for phase in load.phases]
        begin, held = time.perf_counter(), 0
        for phase, shared in zip(load.phases, prompts, strict=True):
            last = self.read(held, shared, load.n_streams // phase.n_groups)
            held += phase.n_prompt
            for _ in range(phase.n_output - 1):
                self.context.decode([(stream, held, [token], True) for stream, token in enumerate(last)])
                last = [self.context.sample(self.greedy, stream) for stream in range(load.n_streams)]
                held += 1
        return time.perf_counter() - begin

    def step_seconds(self, n: int, held: int) -> float:
        """The median of some steps with a row for each of `n` streams, which hold that many tokens."""
        found = []
        for i in range(N_DECODED):
            begin = time.perf_counter()
            self.context.decode([(stream, held + i, [self.words(1)[0]], True) for stream in range(n)])
            for stream in range(n):
                self.context.sample(self.greedy, stream)
            found.append(time.perf_counter() - begin)
        return statistics.median(found)

    def read(self, held: int, prompts: list[list[int]], n_sharing: int) -> list[int]:
        """Each stream's next token. So many neighbours share a prompt: the first reads it, the others copy."""
        last = []
        for stream, prompt in zip(itertools.count(0, n_sharing), prompts, strict=False):
            last += [self.read_one(stream, held, prompt)] * n_sharing
            for other in range(stream + 1, stream + n_sharing):
                self.context.copy(stream, other, held + len(prompt))
        return last

    def read_one(self, stream: int, start: int, tokens: list[int]) -> int:
        n = self.context.n_batch
        for done in range(0, len(tokens), n):
            chunk = tokens[done : done + n]
            self.context.decode([(stream, start + done, chunk, True)])
        return self.context.sample(self.greedy, 0)


def speeds(model: Path) -> list[Figure]:
    """Tokens per second of prompts of some lengths, and of steps with some numbers of rows."""
    loop = Loop(model, max(DECODES), max(PREFILLS) + 64)
    loop.seconds(Load(1, (Phase(1, 64, 2),)))
    found = []
    for n in PREFILLS:
        load = Load(1, (Phase(1, n, 1),))
        tries = [loop.seconds(load)]
        while len(tries) < N_TRIES and sum(tries) < ENOUGH:
            tries.append(loop.seconds(load))
        found.append(Figure(f"prompt of {n}", n / min(tries), "tokens/s"))
    loop.seconds(Load(max(DECODES), (Phase(max(DECODES), HELD, 1),)))
    most_first = sorted(DECODES, reverse=True)  # all streams in a step hold as much as the first one
    rates = {n: n / loop.step_seconds(n, HELD + i * N_DECODED) for i, n in enumerate(most_first)}
    loop.close()
    return found + [Figure(f"{n} writing", rates[n], "tokens/s") for n in DECODES]


def main() -> None:
    model, n_slots, n_ctx = sys.argv[1:]
    loop = Loop(Path(model), int(n_slots), int(n_ctx))
    print("ready", flush=True)
    for line in sys.stdin:
        n_streams, phases = json.loads(line)
        print(loop.seconds(Load(n_streams, tuple(Phase(*phase) for phase in phases))), flush=True)


if __name__ == "__main__":
    main()
