"""Which of llama.cpp's samplers a request asks for, in llama-server's order.

    logit_bias  penalties  dry │ top_n_sigma  top_k  typical_p  top_p  min_p  xtc  temperature  dist

A sampler that is off is left out, where llama.cpp would put one in that does nothing. Mirostat stands for all between
logit_bias and temperature, as there. With temperature 0 the best token is taken; of equally good ones, the one with
the lowest id. Native samplers come out of here; whoever takes one owns it.

Only what would make libllama compute nonsense is refused here; what makes sense is decided where requests are read.
"""

import ctypes
import math
from collections.abc import Iterable, Iterator

from msgspec.structs import fields

from plait.errors import BadRequest
from plait.llama.lib import SamplerPointer, native
from plait.llama.model import Model
from plait.protocol import Sampling, check_biases

_LARGEST = 1e9
"""What parameters may be at most, so that no logit leaves a float's range and becomes infinite, or not a number."""

_GREEDY_BELOW = 1e-15
"""A smaller temperature would make logits infinite."""

_NUMBERS = [field.name for field in fields(Sampling) if field.type in (int, float)]

_MIROSTAT_CANDIDATES = 100
_N_PROTOTYPES = 16


def check(model: Model, sampling: Sampling) -> None:
    """Raises `BadRequest` for what cannot be computed with this model."""
    for name in _NUMBERS:
        if not abs(getattr(sampling, name)) <= _LARGEST:
            raise BadRequest(f"{name} is out of range", param=name)
    if sampling.repeat_penalty < 1 / _LARGEST:
        raise BadRequest("repeat_penalty must be greater than 0", param="repeat_penalty")
    check_biases(sampling.logit_bias, model.n_vocab)
    for bias in sampling.logit_bias.values():
        if not bias <= _LARGEST:
            raise BadRequest(f"logit_bias: {bias} is out of range", param="logit_bias")
    if list(biases(model, sampling).values()).count(-math.inf) == model.n_vocab:
        raise BadRequest("logit_bias forbids every token", param="logit_bias")


def chain(links: Iterable[SamplerPointer]) -> SamplerPointer:
    """One sampler that applies `links` one after the other, and owns them."""
    made: SamplerPointer = native.llama_sampler_chain_init(native.llama_sampler_chain_default_params())
    try:
        for link in links:
            if not link:
                raise RuntimeError("libllama made no sampler")
            native.llama_sampler_chain_add(made, link)
    except BaseException:
        native.llama_sampler_free(made)
        raise
    return made


def clone(sampler: SamplerPointer) -> SamplerPointer:
    """Another that remembers the same and shares nothing."""
    made: SamplerPointer = native.llama_sampler_clone(sampler)
    if not made:
        raise RuntimeError("libllama made no sampler")
    return made


def biases(model: Model, sampling: Sampling) -> dict[int, float]:
    """What is added to which token's logit. That a token is forbidden is the last word on it."""
    given = {token: bias if bias >= -_LARGEST else -math.inf for token, bias in sampling.logit_bias.items()}
    ends = model.end_tokens if sampling.ignore_eos else ()
    return given | dict.fromkeys(ends, -math.inf) | dict.fromkeys(model.suppressed, -math.inf)


def penalties_window(sampling: Sampling, n_context: int) -> int:
    """How many of the latest tokens the repeat, frequency and presence penalties look at."""
    weights = sampling.repeat_penalty, sampling.frequency_penalty, sampling.presence_penalty
    is_on = weights != (1, 0, 0) and not sampling.mirostat
    return _window(sampling.repeat_last_n, n_context) if is_on else 0


def dry_window(sampling: Sampling, n_context: int) -> int:
    """How many of the latest tokens DRY looks at."""
    is_on = sampling.dry_multiplier != 0 and sampling.dry_base >= 1 and not sampling.mirostat
    return _window(sampling.dry_penalty_last_n, n_context) if is_on else 0


def _window(n: int, n_context: int) -> int:
    """Negative, or longer than a text can be: all of the text. libllama reserves the window at once."""
    return n if 0 <= n < n_context else n_context


def penalties(model: Model, sampling: Sampling, n_context: int) -> Iterator[SamplerPointer]:
    """Those that look at the text so far. None with mirostat."""
    if n := penalties_window(sampling, n_context):
        yield native.llama_sampler_init_penalties(
            model.n_vocab, n, sampling.repeat_penalty, sampling.frequency_penalty, sampling.presence_penalty
        )
    if n := dry_window(sampling, n_context):
        yield _dry(model, sampling, n)


def _dry(model: Model, sampling: Sampling, n: int) -> SamplerPointer:
    """A clone, where there is one to clone: each breaker is searched for in the whole vocabulary, which takes some
    50 ms for 150,000 tokens."""
    key = sampling.dry_multiplier, sampling.dry_base, sampling.dry_allowed_length, n, sampling.dry_sequence_breakers
    prototypes = model.sampler_prototypes
    if key not in prototypes:
        if len(prototypes) == _N_PROTOTYPES:
            native.llama_sampler_free(prototypes.pop(next(iter(prototypes))))
        breakers = [_breaker(text) for text in sampling.dry_sequence_breakers]
        prototypes[key] = native.llama_sampler_init_dry(
            model.vocab, *key[:4], (ctypes.c_char_p * len(breakers))(*breakers), len(breakers)
        )
    return clone(prototypes[key])


def _breaker(text: str) -> bytes:
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise BadRequest("a sequence breaker is not Unicode", param="dry_sequence_breakers") from error
    if not data or b"\0" in data:
        raise BadRequest("a sequence breaker has no text, or a NUL in it", param="dry_sequence_breakers")
    return data


def choosers(model: Model, sampling: Sampling, seed: int) -> Iterator[SamplerPointer]:
    """Those that look at the logits: they leave fewer candidates, and the last takes one."""
    if not sampling.mirostat and (not is_greedy(sampling) or _may_drop_best(sampling)):
        yield from _truncations(model, sampling, seed)
    if is_greedy(sampling):
        yield native.llama_sampler_init_greedy()
        return
    if sampling.temperature != 1 or sampling.dynatemp_range > 0:
        spread = 0 if sampling.mirostat else sampling.dynatemp_range
        yield native.llama_sampler_init_temp_ext(sampling.temperature, spread, sampling.dynatemp_exponent)
    tau, eta = sampling.mirostat_tau, sampling.mirostat_eta
    match sampling.mirostat:
        case 0:
            yield native.llama_sampler_init_dist(seed)
        case 1:
            yield native.llama_sampler_init_mirostat(model.n_vocab, seed, tau, eta, _MIROSTAT_CANDIDATES)
        case 2:
            yield native.llama_sampler_init_mirostat_v2(seed, tau, eta)


def _truncations(model: Model, sampling: Sampling, seed: int) -> Iterator[SamplerPointer]:
    n_keep = max(0, sampling.min_keep)
    if sampling.top_n_sigma > 0:
        yield native.llama_sampler_init_top_n_sigma(sampling.top_n_sigma)
    if sampling.top_k > 0:
        yield native.llama_sampler_init_top_k(min(sampling.top_k, model.n_vocab))
    if sampling.typical_p < 1:
        yield native.llama_sampler_init_typical(sampling.typical_p, n_keep)
    if sampling.top_p < 1:
        yield native.llama_sampler_init_top_p(sampling.top_p, n_keep)
    if sampling.min_p > 0:
        yield native.llama_sampler_init_min_p(sampling.min_p, n_keep)
    if _has_xtc(sampling):
        yield native.llama_sampler_init_xtc(sampling.xtc_probability, sampling.xtc_threshold, n_keep, seed)


def is_greedy(sampling: Sampling) -> bool:
    """Whether the temperature leaves one candidate. A range around 0 reaches above it; mirostat has none."""
    return sampling.temperature < _GREEDY_BELOW and (sampling.dynatemp_range <= 0 or sampling.mirostat != 0)


def _may_drop_best(sampling: Sampling) -> bool:
    """Whether the best token may be among those that are dropped: all samplers but these two keep it."""
    return sampling.typical_p < 1 or _has_xtc(sampling)


def _has_xtc(sampling: Sampling) -> bool:
    return sampling.xtc_probability > 0 and sampling.xtc_threshold <= 0.5
