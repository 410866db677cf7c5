"""The words that a gateway and a worker say to each other. Nothing else crosses their socket.

A request is data (`Request`); its answer is a sequence of data (`Started`, `Progress`*, `Text`*, one `Done` a choice)
or one `Failed`. All structs are frozen. A frame holds a list of orders (gateway to worker) or of events (back).
"""

import operator
from collections.abc import Collection, Mapping
from typing import Literal

from msgspec import Struct, msgpack, structs

from plait.config import Engine
from plait.errors import BadRequest

MAX_CHOICES = 256
"""The most continuations of one prompt, `n`: the number of sequence ids that libllama has."""
MAX_PRIORITY = 100
"""Priorities are -100 … 100."""
MAX_STOPS = 16
MAX_STOP_BYTES = 256
MAX_LOGIT_BIASES = 1024
MAX_ADAPTERS = 64


# ── what a request asks ──────────────────────────────────────────────────────────────────────────────────────────


class RawPrompt(Struct, frozen=True, tag="raw"):
    """Text as it is. Control tokens written in it are control tokens: its author writes the whole prompt."""

    text: str
    prefix: tuple[int, ...] = ()
    """Ids of tokens that come before the text, and instead of a begin token."""


class TokenPrompt(Struct, frozen=True, tag="tokens"):
    """Token ids as they are; nothing is put in front."""

    tokens: list[int]


class ChatMessage(Struct, frozen=True):
    """One turn. Control tokens written in `content` are plain text: the turn's author may not forge other turns."""

    role: str
    content: str
    name: str | None = None


class ChatPrompt(Struct, frozen=True, tag="chat"):
    """Turns for the model's own chat template."""

    messages: list[ChatMessage]


Prompt = RawPrompt | TokenPrompt | ChatPrompt


def check_ids(prompt: Prompt, n_vocab: int) -> None:
    """Raise `BadRequest` for ids that are no tokens of the vocabulary. Either side asks: the gateway's answer waits for
    no worker, and a worker believes nobody."""
    match prompt:
        case TokenPrompt(ids) | RawPrompt(prefix=ids):
            _check(ids, n_vocab, "prompt")


def check_biases(biases: Mapping[int, float], n_vocab: int) -> None:
    """The same for `Sampling.logit_bias`."""
    _check(biases, n_vocab, "logit_bias")


def _check(ids: Collection[int], n_vocab: int, param: str) -> None:
    if ids and not 0 <= min(ids) <= max(ids) < n_vocab:
        token = next(id for id in ids if not 0 <= id < n_vocab)
        raise BadRequest(f"there is no token {token}; ids end at {n_vocab - 1}", param=param)


class Sampling(Struct, frozen=True, kw_only=True):
    """How the next token is chosen. Names, order and defaults are llama.cpp's (`common_params_sampling`)."""

    seed: int | None = None
    """None until `fleet` draws one: what a worker gets always has a number, 0 … 2**32 - 2."""
    temperature: float = 0.8
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    typical_p: float = 1.0
    top_n_sigma: float = -1.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    min_keep: int = 0
    repeat_last_n: int = 64
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = 64
    dry_sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    mirostat: Literal[0, 1, 2] = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    logit_bias: dict[int, float] = {}
    ignore_eos: bool = False


class Pin(Struct, frozen=True):
    """A file for whose sake a prompt stays on disk: while it is there, and within bounds, that is not evicted."""

    path: bytes
    """From the root on."""
    n_tokens: int | None = None
    """So many of the prompt's first tokens; None: all of them."""


class AdapterScale(Struct, frozen=True):
    """How much of one LoRA adapter is added."""

    id: int
    """Its place in the order of `--lora`, from 0."""
    scale: float


class Request(Struct, frozen=True, kw_only=True):
    """One prompt and how to go on from it."""

    prompt: Prompt
    n: int = 1
    """Continuations; choice `i` is sampled with `seed + i`."""
    max_tokens: int | None = None
    """Output tokens a choice; None = until the context's end."""
    max_total_tokens: int | None = None
    """Prompt and output together, a choice; a prompt that is longer is answered with nothing."""
    ctx_size: int | None = None
    """How much of a slot's context the request may use; a prompt that does not fit is refused."""
    stop: tuple[str, ...] = ()
    keep_stop: bool = False
    """The answer ends with the token that completes a stop string, instead of before the string."""
    stop_after: int = 0
    """Output tokens during which stop strings do not count."""
    sampling: Sampling = Sampling()
    lora: tuple[AdapterScale, ...] | None = None
    """Adapters that are not named have scale 0; None: the scales that the server began with."""
    cache_prompt: bool = True
    """False: neither take a known prefix from the cache nor leave one there."""
    pin: Pin | None = None
    prompt_chunk: int | None = None
    """Read the prompt in pieces of at most so many tokens."""
    n_threads: int | None = None
    """Wanted for this request; a batch runs with the most that one of its requests wants."""
    spells_control: bool = False
    """Control tokens of the answer are written out, but for the one that ends it; otherwise they have no text."""
    echo: bool = False
    """`Started` carries the prompt's text, token by token."""
    reproducible: bool = False
    """The same text at any load, also after a crash; refused where the model cannot. `prompt_chunk` and `n_threads` do
    not count then."""
    priority: int = 0
    """Who of a tenant's requests goes first; a higher one does, unless others have waited for long."""
    tenant: str = ""
    """Whose request it is. Free slots are shared fairly between tenants; without API keys there is only one."""


# ── orders: gateway to worker ────────────────────────────────────────────────────────────────────────────────────


class Load(Struct, frozen=True, tag=True):
    """The first order, once: load this file, then answer `Ready` or `Failed` with id 0."""

    path: str
    engine: Engine
    log_level: str
    digest: str = ""
    """Of the model's files. Empty: nobody knows, and nothing is kept on disk for it."""
    probed: "tuple[Probed, ...]" = ()
    """What is known of the model; the worker takes what was measured under its own conditions."""
    begun: "tuple[Probed, ...]" = ()
    """What earlier probes had no time for the rest of. If nothing else is known, the worker goes on with one."""
    n_together: int = 0
    """Sequences that any worker of the model decodes together, at most: all of them have to compute alike. 0: as many
    as this one has slots."""


class Generate(Struct, frozen=True, tag=True):
    """Do this. With `known`, go on with what another worker began."""

    id: int
    request: Request
    known: tuple[tuple[int, ...] | None, ...] = ()
    """Per choice, the output tokens that were said already; None for one that ended. Empty: nothing was said."""


class Cancel(Struct, frozen=True, tag=True):
    """Nobody listens to this request any more. Also for one that already ended: then it means nothing."""

    id: int


class Forget(Struct, frozen=True, tag=True):
    """Empty the prefix cache, on disk, too. Those who run go on."""


Order = Load | Generate | Cancel | Forget


# ── events: worker to gateway ────────────────────────────────────────────────────────────────────────────────────

Reason = Literal["stop", "length"]
"""stop: an end-of-turn token or a stop string. length: `max_tokens` or the context's end."""


Protection = Literal["no network", "no writes", "no foreign files", "no programs", "no core dumps"]
"""What a worker can no longer do, or be made to do, while it serves. Writes are those to files."""


class Facts(Struct, frozen=True, kw_only=True):
    """What a probe found out about how a model's rows are computed here. A row is one token of one sequence; bits are
    those of its K, its V and, where it has them, its logits. What was not measured is not so."""

    widths: tuple[int, ...] = ()
    """The numbers of rows of the decode steps that were tried, ascending."""
    classes: tuple[tuple[int, ...], ...] = ()
    """In all steps of the widths of one class, a row gets the same bits in any place. A width at which the place
    matters is in none."""
    deep_alone: bool = False
    """A row that is alone in its step gets the bits of one that is not, beyond 512 tokens of context, too."""
    blocks: bool = False
    """Whole blocks of 64 are equal in whatever chunks of whole blocks they are computed."""
    blocks_beside: bool = False
    """They are equal beside blocks of other sequences, too."""
    tails_beside: bool = False
    """A chunk of less than a block is equal beside others of its length."""
    ends: bool = False
    """The logits behind a chunk of less than a block are those of a decode step, however many chunks want theirs."""
    replay_chunk: int = 1
    """Up to this length, the rows of a chunk of less than a block have the bits of rows that are decoded one by one."""
    any_threads: bool = False
    """The number of threads makes no difference."""
    n_steps: int = 0
    """How many parts of the probe came to their end. The next one goes on behind them."""
    seconds: float = 0.0
    cut_short: str = ""
    """Why something was not measured; empty when all was."""


class ProbeKey(Struct, frozen=True, kw_only=True):
    """What facts depend on: the same key, the same facts."""

    model: str
    """Digest of its files."""
    adapters: tuple[tuple[str, str], ...] = ()
    """Of each, its file's digest and its scale."""
    library: str
    """Binding, library, and the instruction sets that its kernels use."""
    cache_types: tuple[str, str]
    rope: tuple[float, float]
    """Frequency base and scale."""
    n_threads: tuple[int, int]
    """For decoding, for prompts."""
    n_ubatch: int
    n_slots: int


class Probed(Struct, frozen=True):
    """Facts that are known, and of what."""

    key: ProbeKey
    facts: Facts


Reproducible = Literal["under load", "under load, padded", "no"]


class Verdict(Struct, frozen=True, kw_only=True):
    """Whether the same request can get the same text at any load, and what that asks of the scheduler."""

    reproducible: Reproducible = "no"
    """under load: it costs nothing; padded: some steps compute more than they would otherwise; no: it cannot."""
    reason: str = ""
    """In words; empty when it costs nothing."""
    pad_to: int = 1
    """Rows that a decode step has to have at least."""
    pad_by: int = 1
    """Its number of rows is a multiple of this."""
    replay_chunk: int = 1
    """The most known output tokens of one chunk; with 1, they are decoded one by one."""
    blocks_together: bool = False
    """Blocks of several sequences may share a call; if not, each sequence's have their own."""
    tails_together: bool = False
    """So may chunks of less than a block."""
    ends_decoded: bool = True
    """The last token before a choice is left for a decode step, also when it is not the prompt's last."""
    any_threads: bool = False
    """The number of threads makes no difference."""

    def n_rows(self, n: int) -> int:
        """Of a decode step of `n` sequences."""
        return max(self.pad_to, -(-n // self.pad_by) * self.pad_by)


PrefixCache = Literal["tokens", "snapshots"]
"""tokens: what is known of any range of tokens is kept once, and used for every prompt that begins with it. snapshots:
the model's memory is of all tokens at once; it is kept at the end of a prompt and of its last user message, and used
for prompts that begin with just these tokens."""


class ModelInfo(Struct, frozen=True, kw_only=True):
    """What was loaded and how it is laid out. Bytes are bytes; `n_ctx` is tokens per slot."""

    description: str
    n_params: int
    model_bytes: int
    kv_bytes: int
    n_vocab: int
    n_ctx: int
    n_ctx_train: int
    n_slots: int
    kv_layout: str
    has_chat_template: bool
    n_threads: int
    load_seconds: float
    prefix_cache: PrefixCache = "tokens"
    cache_ram: int = 0
    """Bytes for prefixes, at most; 0: none are kept when a slot is needed."""
    cache_disk: int = 0
    protections: tuple[Protection, ...] = ()
    """What holds of the worker that loaded it."""
    verdict: Verdict = Verdict(reason="it was not probed")
    probed: Probed | None = None
    """What the worker measured for it; None when it did not have to."""
    fingerprint: str = ""
    """Of all that an answer's bits depend on but the request; empty when that is not known."""


class Ready(Struct, frozen=True, tag=True, array_like=True):
    model: ModelInfo


class Queued(Struct, frozen=True, tag=True, array_like=True):
    """The prompt has become token ids and waits for a slot. Until `Started`, nothing is computed for it."""

    id: int


class Cached(Struct, frozen=True, array_like=True):
    """How many of a prompt's tokens are not computed again, by where they were found."""

    running: int = 0
    """In a sequence that was still running."""
    idle: int = 0
    """In what an ended one had left in the context."""
    ram: int = 0
    disk: int = 0

    @property
    def n(self) -> int:
        return self.running + self.idle + self.ram + self.disk

    def __add__(self, other: "Cached") -> "Cached":
        mine, others = structs.astuple(self), structs.astuple(other)
        return Cached(*map(operator.add, mine, others))


class Started(Struct, frozen=True, tag=True, array_like=True):
    """The prompt is being read. With these ids and the request, another worker could do the same work again."""

    id: int
    prompt_tokens: list[int]
    cached: Cached = Cached()
    prompt_texts: list[str | None] = []
    """Of each prompt token, if the request asked for them. A character comes with its last token; None before that."""


class Progress(Struct, frozen=True, tag=True, array_like=True):
    """A prompt that takes several steps: `n_done` of its tokens are in the context."""

    id: int
    n_done: int
    n_prompt: int


class Text(Struct, frozen=True, tag=True, array_like=True):
    """What one choice said in one step. `text` may be empty while a character or a stop string is incomplete."""

    id: int
    choice: int
    text: str
    tokens: list[int]


class Done(Struct, frozen=True, tag=True, array_like=True):
    """One choice's end. Times are seconds since the order arrived."""

    id: int
    choice: int
    reason: Reason
    n_prompt: int
    n_output: int
    first_token_seconds: float
    seconds: float
    text: str = ""
    """What was held back for a stop string that did not come."""
    stopped_by: str = ""
    """The stop string that ended it."""


class Failed(Struct, frozen=True, tag=True, array_like=True):
    """The whole request's end, all choices. `code` is one of `errors`."""

    id: int
    code: str
    message: str
    param: str | None = None


class Stats(Struct, frozen=True, tag=True, array_like=True, kw_only=True):
    """The worker's pulse, from its engine thread: after a step in which a slot or the queue changed, and every second.

    `…_total` only ever grow. `step_seconds` lists the durations of the steps since the last pulse, `step_rows` their
    tokens.
    """

    n_slots: int
    n_reading: int
    n_writing: int
    n_waiting: int
    n_cells: int
    """Tokens whose KV the context holds, running and idle."""
    n_cells_max: int
    prompt_tokens_total: int
    cached_tokens_total: Cached
    output_tokens_total: int
    cache_ram_bytes: int = 0
    """Cells of ended sequences, outside of the context."""
    cache_buffer_bytes: int = 0
    """What states are moved through on their way into and out of the context."""
    cache_disk_bytes: int = 0
    requests_total: int
    cancelled_total: int
    cancel_steps_max: int = 0
    """Steps that ended between a cancel's arrival and the end of what it cancelled; 1: the one that was under way."""
    preempted_total: int = 0
    """Sequences that had to wait for cells after they had begun."""
    steps_total: int
    step_seconds: list[float]
    step_rows: list[int]


Event = Ready | Queued | Started | Progress | Text | Done | Failed | Stats


class Resuming(Struct, frozen=True):
    """Not from a worker: there is none just now, and the request will go on with the next. Said every few seconds."""


Answer = Started | Progress | Text | Done | Resuming
"""What a request's stream yields; `Failed` is raised as its exception, `Ready` and `Stats` are the worker's own."""

encode = msgpack.Encoder().encode
decode_orders = msgpack.Decoder(list[Order]).decode
decode_events = msgpack.Decoder(list[Event]).decode
