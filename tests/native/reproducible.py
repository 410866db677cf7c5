"""Random work for an engine on a real context, and what must hold: reproducible requests get what they get alone.

Tokens are chosen by a checksum of all logits, so one bit that differs changes the rest of the text.
"""

import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from plait import config
from plait.engine.engine import Engine
from plait.engine.pace import Pace
from plait.engine.segments import Segments
from plait.engine.sequence import Group
from plait.engine.sequence import Sequence as Continuation
from plait.errors import GenerationFailed
from plait.llama.context import Context
from plait.llama.model import Model
from plait.protocol import Cached, Verdict

N_CTX = 1024
STEPS = 5_000
N_BATCH = 512

Prepare = Callable[[Engine], None]
"""Does something to an engine before it works, such as planting a bug."""


class SteadyPace(Pace):
    """A pace that does not look at the watch: a step's share of prompts is drawn."""

    def __init__(self, rng: random.Random, n_ubatch: int) -> None:
        super().__init__(target=0.1, n_batch=N_BATCH, n_ubatch=n_ubatch)
        self.rng = rng

    def budget(self, has_writers: bool) -> int:
        return self.rng.choice([64, 128, 256])


@dataclass(eq=False)
class Heard:
    """What one choice said; a listener."""

    tokens: list[int] = field(default_factory=list)
    is_over: bool = False

    def started(self, cached: Cached) -> None: ...

    def progress(self, n_done: int) -> None: ...

    def token(self, token: int) -> bool:
        self.tokens.append(token)
        return False

    def ended(self, reason: str) -> None:
        self.is_over = True

    def failed(self, error: GenerationFailed) -> None:
        raise error


@dataclass(eq=False)
class Asked:
    """One request. `rules` None: any text will do."""

    prompt: list[int]
    seed: int
    n_output: int
    rules: Verdict | None
    choices: list[Heard]
    group: Group = field(default_factory=Group)
    has_left: bool = False

    @property
    def is_over(self) -> bool:
        return self.has_left or all(choice.is_over for choice in self.choices)

    def submit(self, engine: Engine, context: Context) -> None:
        """From the beginning; or to go on from what was said, when another engine has said it."""
        self.group = Group(rules=self.rules, scope=self.group.scope)
        for i, heard in enumerate(self.choices):
            if not heard.is_over:
                sample = sampler(context, self.seed + i)
                begun = Continuation(list(self.prompt), self.group, heard, sample, self.n_output)
                begun.tokens += heard.tokens
        engine.submit(self.group)


def sampler(context: Context, seed: int) -> Callable[[int], int]:
    def sample(span: int) -> int:
        logits = context.logits(span)
        return zlib.crc32(logits.tobytes(), seed) % len(logits)

    return sample


@dataclass
class Bench:
    """One model, the settings of its contexts, and what holds for it."""

    model: Model
    settings: config.Engine
    rules: Verdict

    def context(self, n_slots: int) -> Context:
        return Context(self.model, self.settings, n_ctx=N_CTX, n_slots=max(n_slots, self.rules.n_rows(n_slots)))

    def alone(self, asked: Asked, choice: int = 0, prepare: Prepare = lambda engine: None) -> list[int]:
        """What a choice says when its request is all that a fresh server does."""
        lonely = Asked(asked.prompt, asked.seed + choice, asked.n_output, asked.rules, [Heard()])
        (text,) = self.together([lonely], prepare)
        return text

    def together(self, requests: Sequence[Asked], prepare: Prepare = lambda engine: None) -> list[list[int]]:
        """What the first choices say when requests come at once to a fresh server with a slot for each."""
        with self.context(len(requests)) as context:
            pace = Pace(target=0.1, n_batch=N_BATCH, n_ubatch=context.n_ubatch)
            engine = Engine(context, len(requests), pace, rules=self.rules)
            prepare(engine)
            for asked in requests:
                asked.submit(engine, context)
            while not engine.is_idle:
                engine.step()
        return [asked.choices[0].tokens for asked in requests]


@dataclass
class Workload:
    """Requests that come and leave, on engines that are killed now and then."""

    bench: Bench
    rng: random.Random
    prepare: Prepare = lambda engine: None
    asked: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.n_slots = self.rng.randint(1, 5)
        self.cache_bytes = self.rng.choice([0, 2**20, 2**30])
        self.roots = [self.words(self.rng.randint(1, 300)), self.words(self.rng.randint(500, 800))]

    def words(self, n: int) -> list[int]:
        return [self.rng.randrange(4, self.bench.model.n_vocab) for _ in range(n)]

    def ask(self) -> Asked:
        root = self.rng.choice(self.roots)
        prompt = root[: self.rng.randint(1, len(root))] + self.words(self.rng.randint(0, 70))
        rules = self.bench.rules if self.rng.random() < 0.7 else None
        choices = [Heard() for _ in range(self.rng.choice([1, 1, 2, 5]))]
        asked = Asked(prompt, self.rng.randrange(1000), self.rng.randint(1, 40), rules, choices)
        self.asked.append(asked)
        return asked

    def open(self, context: Context) -> Engine:
        pace = SteadyPace(self.rng, context.n_ubatch)
        engine = Engine(context, self.n_slots, pace, Segments(context, self.cache_bytes), rules=self.bench.rules)
        self.prepare(engine)
        for asked in self.asked:
            if not asked.is_over:
                asked.submit(engine, context)
        return engine

    def run(self, n_requests: int, n_kills: int) -> None:
        for _ in range(n_kills + 1):
            with self.bench.context(self.n_slots) as context:
                self.work(self.open(context), context, n_requests, self.rng.randint(20, 60) if n_kills else STEPS)
            n_kills -= 1
        assert all(asked.is_over for asked in self.asked), "somebody starves"

    def work(self, engine: Engine, context: Context, n_requests: int, n_steps: int) -> None:
        for _ in range(n_steps):
            if len(self.asked) < n_requests:
                if self.rng.random() < 0.3:
                    self.ask().submit(engine, context)
                if self.asked and self.rng.random() < 0.05:
                    leaving = self.rng.choice(self.asked)
                    leaving.has_left = True
                    engine.cancel(leaving.group)
            elif engine.is_idle:
                return
            engine.step()

    def check(self) -> None:
        for asked in self.asked:
            for i, heard in enumerate(asked.choices if asked.rules else ()):
                expected = self.bench.alone(asked, i)
                assert heard.tokens == (expected if heard.is_over else expected[: len(heard.tokens)])


def run_workload(bench: Bench, seed: int, prepare: Prepare = lambda engine: None, n_requests: int = 12) -> Workload:
    """One whole random workload, checked."""
    rng = random.Random(seed)
    workload = Workload(bench, rng, prepare)
    workload.run(n_requests, rng.choice([0, 1, 2]))
    workload.check()
    return workload
