"""How long a context and how many slots a model gets, so that it starts without options on the machine it is on.

Pure but for one look at the machine's free memory. What the user said is kept or refused, never bent. Counts the
weights, the KV cache and the buffers of one pass; knows nothing of what else runs here, nor of GPUs.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import islice, product
from pathlib import Path

from msgspec import Struct, structs

from plait import gguf
from plait.config import Config, Engine, format_bytes
from plait.errors import OutOfMemory

SHARE_OF_FREE = 0.6
"""The rest is for the page cache and for who else lives here."""
CACHES_SHARE_OF_FREE = 0.25
"""For the prefixes that workers keep of ended requests."""
MEMINFO = Path("/proc/meminfo")
MOST_TOKENS = 8192
MOST_SLOTS = 16
STEPS = ((2048, 16), (2048, 4), (512, 4), (512, 1))
"""Where the tokens per slot and the slots go down to, in this order, when memory is short."""
GRANULE = 256
"""llama.cpp rounds a slot's context up to a multiple of this."""
PROCESS_BYTES = 128 * 1024**2
"""A worker without its model."""


class Fit(Struct, frozen=True):
    """What a worker is to make of a model. `ctx_size` is tokens per slot."""

    ctx_size: int
    slots: int
    model_bytes: int
    kv_bytes: int
    compute_bytes: int
    """The worker itself, and the buffers of one pass."""
    pool_cells: int = 0
    """Tokens of the pool that all slots share; 0: each slot has its own."""

    @property
    def n_bytes(self) -> int:
        return self.model_bytes + self.kv_bytes + self.compute_bytes


def available(memory_budget: int, meminfo: Path = MEMINFO) -> int:
    """Bytes that all models together may take; 0 asks the machine."""
    return memory_budget or int(_free(meminfo) * SHARE_OF_FREE)


def cache_ram(config: Config, n_models: int = 1, promised: int = 0, meminfo: Path = MEMINFO) -> int:
    """Bytes for prefixes of ended requests, per worker of so many models; -1 asks the machine. `promised`: bytes that
    others have been given for theirs, and may not have filled yet."""
    if config.engine.cache_ram >= 0:
        return config.engine.cache_ram
    n_free = max(0, _free(meminfo) - promised)
    return int(n_free * CACHES_SHARE_OF_FREE) // (config.models.replicas * n_models)


def _free(meminfo: Path) -> int:
    """Bytes. Raises `OutOfMemory` when the machine does not say."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", meminfo.read_text(), re.MULTILINE)
    if not found:
        raise OutOfMemory(f"{meminfo} does not say how much memory is free; --memory-budget can")
    return int(found[1]) * 1024


def fit(path: Path, engine: Engine, available: int, share: float = 1.0) -> Fit:
    """The longest context and the most slots for this model in its share of `available` bytes.

    A model that is too large for its share gets the least that it can run with, if that is available. Raises
    `OutOfMemory` in numbers when it is not, `gguf.GGUFError` when it is no model.
    """
    model = gguf.skim(path)
    if engine.kv_layout == "unified" or engine.kv_cells:
        return _pool(model, engine, (int(available * share), available))
    choices = list(_choices(model, engine))
    may_share = engine.kv_layout == "auto" and not engine.reproducible
    fitting = [choice for choice in choices if choice.n_bytes <= int(available * share)]
    fitting += [choice for choice in choices[-1:] if choice.n_bytes <= available]
    if fitting:
        return fitting[0]
    try:
        return _pool(model, engine, (available,) if may_share else ())
    except OutOfMemory as error:
        raise OutOfMemory(_refusal(model, engine, choices[-1], available)) from error


def _pool(model: gguf.Header, engine: Engine, rooms: Sequence[int]) -> Fit:
    """One pool for all slots, as large as there is room for, or as was asked; at least one slot's context."""
    token_bytes, compute_bytes = kv_bytes_per_token(model, engine), _compute_bytes(model, engine)
    n_slots = engine.slots or MOST_SLOTS
    lengths = dict.fromkeys(n_tokens for n_tokens, _ in _ladder(model, engine))
    for room, n_tokens in product(rooms, lengths):
        pool = Fit(n_tokens, n_slots, model.n_tensor_bytes, 0, compute_bytes)
        n_most = _granules(engine.kv_cells or n_tokens * n_slots)
        n_room = max(0, room - pool.n_bytes) // max(1, token_bytes) // GRANULE * GRANULE
        if min(n_most, n_room) >= (n_most if engine.kv_cells else _granules(n_tokens)):
            n_cells = min(n_most, n_room)
            return structs.replace(pool, kv_bytes=n_cells * token_bytes, pool_cells=n_cells)
    n_cells = _granules(engine.kv_cells or min(lengths))
    least = Fit(min(lengths), n_slots, model.n_tensor_bytes, n_cells * token_bytes, compute_bytes, n_cells)
    raise OutOfMemory(_refusal(model, engine, least, max(rooms, default=0)))


def _granules(n: int) -> int:
    return -(-n // GRANULE) * GRANULE


def _choices(model: gguf.Header, engine: Engine) -> Iterator[Fit]:
    """What may be made of the model, from most to least."""
    token_bytes, compute_bytes = kv_bytes_per_token(model, engine), _compute_bytes(model, engine)
    for n_tokens, n_slots in _ladder(model, engine):
        n_cells = _granules(n_tokens) * n_slots
        yield Fit(n_tokens, n_slots, model.n_tensor_bytes, n_cells * token_bytes, compute_bytes)


def _ladder(model: gguf.Header, engine: Engine) -> Iterator[tuple[int, int]]:
    """Tokens per slot and slots; what was given stays as it is."""
    trained = model.own("context_length", MOST_TOKENS) // GRANULE * GRANULE
    most = min(max(trained, GRANULE), MOST_TOKENS)
    n_tokens, n_slots = engine.ctx_size or most, engine.slots or MOST_SLOTS
    yield n_tokens, n_slots
    for least_tokens, least_slots in STEPS:
        while not engine.ctx_size and n_tokens > least_tokens:
            n_tokens = max(n_tokens // 2 // GRANULE * GRANULE, least_tokens)
            yield n_tokens, n_slots
        while not engine.slots and n_slots > least_slots:
            n_slots //= 2
            yield n_tokens, n_slots


def kv_bytes_per_token(model: gguf.Header, engine: Engine) -> int:
    """Bytes of KV cache that one token takes in all layers."""
    return sum(
        gguf.n_bytes(engine.cache_type_k, row.n_k) + gguf.n_bytes(engine.cache_type_v, row.n_v)
        for row in model.kv_rows()
    )


def _compute_bytes(model: gguf.Header, engine: Engine) -> int:
    """One pass over `ubatch_size` tokens: their logits, and a few rows of each width that a layer has."""
    width = 3 * max(model.per_layer("feed_forward_length"), default=0) + 8 * model.own("embedding_length", 0)
    return 4 * engine.ubatch_size * (model.n_vocab + width) + PROCESS_BYTES


def _refusal(model: gguf.Header, engine: Engine, least: Fit, available: int) -> str:
    """Why there is no room, and what there would be room for if nothing had been asked."""
    refusal = (
        f"{model.path.name} needs {format_bytes(least.model_bytes)} for its weights"
        f" + {format_bytes(least.kv_bytes)} for the KV cache of {_words(least)}"
        f" + {format_bytes(least.compute_bytes)} to compute; {format_bytes(available)} are available"
    )
    others = _choices(model, structs.replace(engine, ctx_size=0, slots=0, kv_cells=0))
    fitting = (choice for choice in others if choice.n_bytes <= available)
    return "; ".join([refusal, *(f"{_words(choice)} would fit" for choice in islice(fitting, 1))])


def _words(choice: Fit) -> str:
    if choice.pool_cells:
        return f"a pool of {choice.pool_cells:,} tokens"
    return f"{choice.slots} slot{'s' * (choice.slots > 1)} of {choice.ctx_size:,} tokens"
