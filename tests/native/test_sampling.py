"""Every parameter does what it says, the same seed says the same, and a continuation can be taken up anywhere."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import msgspec
import numpy as np
import pytest

from plait.errors import BadRequest
from plait.llama import lib, links
from plait.llama.context import Context
from plait.llama.lib import native
from plait.llama.model import Model
from plait.llama.sampling import N_SEEDS, Sampler, samplers
from plait.protocol import Sampling
from tests.native import models

PROMPT = [0, 100, 101, 102, 103, 101, 102]
SEEDED = Sampling(seed=7)
WILD = Sampling(seed=7, temperature=8, top_k=0, top_p=1, min_p=0)
GREEDY = Sampling(seed=7, temperature=0)
N_VOCAB = len(models.vocabulary())


@contextmanager
def told(context: Context, prompt: list[int]) -> Iterator[None]:
    context.trim(0, 0)
    for start in range(0, len(prompt) - 1, 100):
        context.decode([(0, start, prompt[start : start + 100][: len(prompt) - 1 - start], False)])
    context.decode([(0, len(prompt) - 1, prompt[-1:], True)])
    yield
    context.trim(0, 0)


def go_on(context: Context, sampler: Sampler, n: int) -> list[int]:
    """The next `n` tokens of stream 0, whose last batch has logits."""
    tokens: list[int] = []
    for _ in range(n):
        tokens.append(context.sample(sampler, 0))
        context.decode([(0, context.held(0), tokens[-1:], True)])
    return tokens


@pytest.fixture
def write(model: Model, context: Context) -> Callable[..., list[int]]:
    """Writes tokens from a prompt with fresh samplers."""

    def write(sampling: Sampling, n: int = 30, choice: int = 0, prompt: list[int] = PROMPT) -> list[int]:
        with closing(Sampler(model, sampling, choice, prompt)) as sampler, told(context, prompt):
            return go_on(context, sampler, n)

    return write


Write = Callable[..., list[int]]


def change(sampling: Sampling, **changes: object) -> Sampling:
    return msgspec.structs.replace(sampling, **changes)


def test_the_same_seed_says_the_same(write: Write) -> None:
    assert write(WILD) == write(WILD)
    assert write(WILD) != write(change(WILD, seed=8))


@pytest.mark.parametrize("choice", [1, 5])
def test_a_choice_is_its_own_seed(write: Write, choice: int) -> None:
    assert write(WILD, choice=choice) == write(change(WILD, seed=7 + choice))


def test_no_seed_is_random(write: Write) -> None:
    last = change(WILD, seed=N_SEEDS - 1)
    assert write(last, choice=1) == write(last, choice=1) == write(change(WILD, seed=0))


GREEDY_IN_EFFECT = [
    {"temperature": -1.0},
    {"temperature": 1e-30},
    {"temperature": 0.0, "mirostat": 1},
    {"temperature": 0.0, "mirostat": 2, "dynatemp_range": 1.0},
    {"temperature": 0.0, "top_n_sigma": 0.1, "top_p": 0.1, "min_p": 0.9, "top_k": 3},
    {"top_k": 1},
    {"top_p": 0.0},
    {"min_p": 1.0},
    {"top_n_sigma": 1e-6},
    {"temperature": 1e-12},
]


@pytest.mark.parametrize("changes", GREEDY_IN_EFFECT)
def test_these_take_the_best_token(write: Write, changes: dict[str, object]) -> None:
    assert write(change(SEEDED, **changes)) == write(GREEDY)


def test_the_best_token_is_the_one_with_the_greatest_logit(model: Model, context: Context, write: Write) -> None:
    with told(context, PROMPT):
        best = int(context.logits(0).argmax())
    assert write(GREEDY, 1) == [best]


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": 3.0},
        {"top_k": 2},
        {"top_p": 0.3},
        {"min_p": 0.6},
        {"typical_p": 0.1},
        {"top_n_sigma": 0.5},
        {"xtc_probability": 1.0, "xtc_threshold": 0.01},
        {"dynatemp_range": 7.9},
        {"dynatemp_range": 4.0, "dynatemp_exponent": 9.0},
        {"mirostat": 1},
        {"mirostat": 2},
        {"mirostat": 2, "mirostat_tau": 0.5, "mirostat_eta": 0.9},
        {"repeat_penalty": 1.5},
        {"presence_penalty": 9.0},
        {"frequency_penalty": 9.0},
        {"dry_multiplier": 9.0, "dry_allowed_length": 1},
        {"logit_bias": {77: 30.0}},
    ],
)
def test_every_parameter_has_a_say_and_says_the_same_again(write: Write, changes: dict[str, object]) -> None:
    changed = change(WILD, **changes)
    assert write(changed, 60) == write(changed, 60) != write(WILD, 60)


def test_min_keep_keeps_candidates(write: Write) -> None:
    narrow = change(WILD, top_p=0.0)
    assert write(narrow) == write(GREEDY) != write(change(narrow, min_keep=20))


def test_a_bias_forbids_and_forces(write: Write) -> None:
    best = write(GREEDY, 1)
    assert write(change(GREEDY, logit_bias={best[0]: -math.inf}), 1) != best
    assert write(change(GREEDY, logit_bias={best[0]: -1e30}), 1) != best
    assert write(change(WILD, logit_bias={33: 1e6})) == [33] * 30


def test_no_end_comes_when_it_is_ignored(write: Write) -> None:
    eager = change(WILD, logit_bias=dict.fromkeys((models.END_OF_TEXT, models.TURN_END), 200.0))
    assert set(write(eager)) <= {models.END_OF_TEXT, models.TURN_END}
    assert not set(write(change(eager, ignore_eos=True))) & {models.END_OF_TEXT, models.TURN_END}


@pytest.mark.parametrize("name", ["repeat_penalty", "presence_penalty", "frequency_penalty"])
def test_penalties_lower_repeats(write: Write, name: str) -> None:
    loop = change(GREEDY, logit_bias=dict.fromkeys(range(50, 60), 60.0))
    most, fewer = (max(Counter(write(s)).values()) for s in (loop, change(loop, **{name: 30.0})))
    assert fewer < most


def test_penalties_look_at_the_prompt_and_no_further_than_told(write: Write) -> None:
    best = write(GREEDY, 1)
    prompt = [*best, *PROMPT]
    after = write(GREEDY, 1, prompt=prompt)
    penalized = change(GREEDY, presence_penalty=1e6)
    full = [*range(4, N_VOCAB), *PROMPT]
    assert write(penalized, 1, prompt=[*after, *prompt]) != after
    assert write(change(penalized, repeat_last_n=0), 1, prompt=prompt) == after
    assert write(change(penalized, repeat_last_n=len(PROMPT)), 1, prompt=full)[0] not in PROMPT
    assert write(change(penalized, repeat_last_n=-1), 1, prompt=full)[0] in range(1, 4)


def test_dry_breaks_a_repeated_phrase(write: Write) -> None:
    phrase = [70, 71, 72, 73, 74, 75]
    prompt = [0, *phrase, *phrase, *phrase[:-1]]
    bent = change(GREEDY, logit_bias={75: 80.0})
    assert write(bent, 1, prompt=prompt) == [75]
    assert write(change(bent, dry_multiplier=100.0), 1, prompt=prompt) != [75]


def test_a_sequence_breaker_excuses_a_repeated_phrase(model: Model, write: Write) -> None:
    phrase = model.tokenize("abcdef", add_special=False, parse_special=False)
    prompt = [0, *phrase, *phrase, *phrase[:-1]]
    bent = change(GREEDY, logit_bias={phrase[-1]: 80.0}, dry_multiplier=100.0)
    assert write(bent, 1, prompt=prompt) != phrase[-1:]
    assert write(change(bent, dry_sequence_breakers=("e",)), 1, prompt=prompt) == phrase[-1:]


def test_xtc_drops_the_best_even_without_temperature(write: Write) -> None:
    open_ended = change(GREEDY, top_k=5, top_p=1.0, min_p=0.0)
    assert write(open_ended, 1) != write(change(open_ended, xtc_probability=1.0, xtc_threshold=0.0), 1)


RESUMED = [
    {},
    {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "temperature": 8.0},
    {"temperature": 8.0, "repeat_penalty": 1.5, "frequency_penalty": 2.0, "repeat_last_n": 5},
    {"temperature": 8.0, "dry_multiplier": 4.0, "dry_allowed_length": 1},
    {"temperature": 0.0, "presence_penalty": 20.0},
    {"temperature": 8.0, "dynatemp_range": 4.0, "typical_p": 0.9},
]


@pytest.mark.parametrize("changes", RESUMED)
@pytest.mark.parametrize("n_known", [0, 1, 17])
def test_a_continuation_goes_on_as_if_never_interrupted(
    model: Model, context: Context, write: Write, changes: dict[str, object], n_known: int
) -> None:
    sampling = change(WILD if changes else SEEDED, **changes)
    whole = write(sampling)
    known, rest = whole[:n_known], whole[n_known:]
    with closing(Sampler(model, sampling, 0, PROMPT)) as sampler, told(context, PROMPT):
        for token in known:
            context.decode([(0, context.held(0), [token], True)])
        sampler.accept(known)
        assert go_on(context, sampler, len(rest)) == rest


def stock_links(model: Model, sampling: Sampling, prompt: list[int]) -> Iterator[lib.SamplerPointer]:
    """All of it native, as llama-server does it."""
    biases = [native.llama_logit_bias(*pair) for pair in links.biases(model, sampling).items()]
    yield native.llama_sampler_init_logit_bias(
        model.n_vocab, len(biases), (native.llama_logit_bias * len(biases))(*biases)
    )
    for link in links.penalties(model, sampling, model.n_ctx_train):
        for token in prompt:
            native.llama_sampler_accept(link, token)
        yield link
    yield from links.choosers(model, sampling, sampling.seed or 0)


EVERYTHING = change(
    WILD, logit_bias={77: 20.0, 78: -5.0}, ignore_eos=True, repeat_penalty=1.3, frequency_penalty=2.0, repeat_last_n=9,
    dry_multiplier=2.0, dry_allowed_length=1, top_n_sigma=2.0, top_k=50, typical_p=0.95, top_p=0.97, min_p=0.01,
    xtc_probability=0.3, dynatemp_range=0.5,
)  # fmt: skip


@pytest.mark.parametrize(
    "sampling", [SEEDED, WILD, EVERYTHING, change(EVERYTHING, temperature=0.0, dynatemp_range=0.0)]
)
def test_the_choice_is_that_of_the_stock_chain(
    model: Model, context: Context, write: Write, sampling: Sampling
) -> None:
    chain = links.chain(stock_links(model, sampling, PROMPT))
    tokens: list[int] = []
    with told(context, PROMPT):
        for _ in range(100):
            tokens.append(native.llama_sampler_sample(chain, context.handle, 0))
            context.decode([(0, context.held(0), tokens[-1:], True)])
    native.llama_sampler_free(chain)
    assert write(sampling, 100) == tokens


@pytest.mark.parametrize("n_prompt", [7, 500])
def test_each_of_many_choices_chooses_as_if_it_were_alone(
    model: Model, context: Context, write: Write, n_prompt: int
) -> None:
    prompt = (PROMPT * 100)[:n_prompt]
    forgetful = change(EVERYTHING, repeat_last_n=100, dry_penalty_last_n=-1)
    made = list(samplers(model, forgetful, [5, 0, 2], prompt))
    for choice, sampler in zip([5, 0, 2], made, strict=True):
        with closing(sampler), told(context, prompt):
            assert go_on(context, sampler, 10) == write(forgetful, 10, choice, prompt)


def test_many_choices_take_a_long_prompt_in_once(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """One call for each token and choice, 256 times 40,000, stopped a worker's I/O for 18 seconds."""
    n_calls, accept = Counter[str](), native.llama_sampler_accept

    def counted(sampler: lib.SamplerPointer, token: int) -> None:
        n_calls["accept"] += 1
        accept(sampler, token)

    monkeypatch.setattr(native, "llama_sampler_accept", counted)
    penalized = change(SEEDED, repeat_penalty=1.1, repeat_last_n=-1, dry_multiplier=1.0)
    for sampler in samplers(model, penalized, range(256), PROMPT * 1000):
        sampler.close()
    assert n_calls["accept"] == len(PROMPT) * 1000


def test_the_order_is_llama_servers(model: Model) -> None:
    made = [*links.penalties(model, EVERYTHING, 2048), *links.choosers(model, EVERYTHING, 0)]
    assert [native.llama_sampler_name(link).decode() for link in made] == [
        "penalties", "dry", "top-n-sigma", "top-k", "typical", "top-p", "min-p", "xtc", "temp-ext", "dist",
    ]  # fmt: skip
    native.llama_sampler_free(links.chain(made))


def test_a_choice_leaves_the_logits_as_they_were(model: Model, context: Context) -> None:
    with closing(Sampler(model, EVERYTHING, 0, PROMPT)) as sampler, told(context, PROMPT):
        before = context.logits(0)
        context.sample(sampler, 0)
        assert np.array_equal(before, context.logits(0))


REFUSED = [
    ({"logit_bias": {-1: 1.0}}, "logit_bias"),
    ({"logit_bias": {N_VOCAB: 1.0}}, "logit_bias"),
    ({"logit_bias": {5: math.nan}}, "logit_bias"),
    ({"logit_bias": {5: math.inf}}, "logit_bias"),
    ({"logit_bias": {5: 1e10}}, "logit_bias"),
    ({"logit_bias": dict.fromkeys(range(N_VOCAB), -math.inf)}, "logit_bias"),
    ({"logit_bias": dict.fromkeys({*range(N_VOCAB)} - {1, 3}, -1e10), "ignore_eos": True}, "logit_bias"),
    ({"temperature": math.nan}, "temperature"),
    ({"temperature": math.inf}, "temperature"),
    ({"top_k": 2**40}, "top_k"),
    ({"min_keep": -(2**40)}, "min_keep"),
    ({"repeat_penalty": 0.0}, "repeat_penalty"),
    ({"repeat_penalty": -1.0}, "repeat_penalty"),
    ({"frequency_penalty": -math.inf}, "frequency_penalty"),
    ({"mirostat": 2, "mirostat_tau": math.nan}, "mirostat_tau"),
    ({"dry_multiplier": 1.0, "dry_sequence_breakers": ("a\0b",)}, "dry_sequence_breakers"),
    ({"dry_multiplier": 1.0, "dry_sequence_breakers": ("a", "")}, "dry_sequence_breakers"),
    ({"dry_multiplier": 1.0, "dry_sequence_breakers": ("\ud800",)}, "dry_sequence_breakers"),
]


@pytest.mark.parametrize(("changes", "param"), REFUSED)
def test_nonsense_is_refused_by_its_name(model: Model, changes: dict[str, object], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        Sampler(model, change(SEEDED, **changes), 0, PROMPT)
    assert refused.value.param == param


def test_a_window_is_no_longer_than_a_text(write: Write) -> None:
    """libllama would reserve 4 GB for each of these."""
    endless = change(WILD, repeat_last_n=10**9, repeat_penalty=1.5, dry_penalty_last_n=10**9, dry_multiplier=1.0)
    assert write(endless) == write(change(endless, repeat_last_n=-1, dry_penalty_last_n=-1))


def test_many_kinds_of_dry_are_remembered_and_forgotten(model: Model, write: Write) -> None:
    kinds = [change(WILD, dry_multiplier=1.0 + i) for i in range(20)]
    first = [write(kind, 5) for kind in kinds]
    assert [write(kind, 5) for kind in kinds] == first
    assert len(model.sampler_prototypes) < len(kinds)


def test_a_closed_sampler_samples_nothing(model: Model, context: Context) -> None:
    sampler = Sampler(model, SEEDED, 0, PROMPT)
    sampler.close()
    sampler.close()
    with told(context, PROMPT), pytest.raises(ValueError, match="closed"):
        context.sample(sampler, 0)
