"""A GGUF file in memory: its weights, its vocabulary and what it says of itself.

A `Model` owns the native model and gives it back in `close`; the contexts that compute with it are closed first. Once
loaded it does not change, so any thread may ask it. It knows nothing of sequences.
"""

import ctypes
import os
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path

from msgspec import structs

from plait import config, gguf
from plait.errors import BadRequest, ModelLoadFailed
from plait.llama import adapters, lib, pretokenizer
from plait.llama.lib import SamplerPointer, native
from plait.llama.owning import Owner

MAX_TEXT_BYTES = 2**31 - 1
"""libllama counts a text's bytes and its tokens in 32 bits."""

_LOAD_MODES = {(False, False): 0, (True, False): -1, (False, True): 2, (True, True): 3}
"""libllama's number for (mmap, mlock). -1 maps the file unless a device in use cannot read from a mapping."""

_NOT_TEXT = native.LLAMA_TOKEN_ATTR_CONTROL | native.LLAMA_TOKEN_ATTR_UNKNOWN


class Model(Owner):
    """A loaded model. Raises `ModelLoadFailed` in words for everything that keeps it from being served."""

    def __init__(self, path: str, engine: config.Engine) -> None:
        lib.start(engine.numa)
        self.n_contexts = 0
        """Open contexts on it; they count themselves."""
        self.sampler_prototypes: dict[Hashable, SamplerPointer] = {}
        """Samplers that take long to make. `links` keeps them here to clone them, for one thread at a time."""
        header = gguf.skim(Path(path))  # the gateway did, but by now it may be another file
        gguf.check(header)
        self.squares_relu = gguf.squares_relu(header)
        """Whether contexts need `squared_relu`, which is for the CPU."""
        if self.squares_relu:
            engine = structs.replace(engine, n_gpu_layers=0)
        self._handle: int | None = _load(path, engine)
        try:
            self._refuse_others()
            self.adapters = adapters.load(self._handle, engine.lora)
            """LoRA adapters, which contexts on this model compute with."""
            self._read_facts()
            self._read_vocabulary()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Frees the weights."""
        if self.n_contexts:
            raise RuntimeError("a context still computes with this model")
        for prototype in self.sampler_prototypes.values():
            native.llama_sampler_free(prototype)
        self.sampler_prototypes.clear()
        if self._handle is not None:
            native.llama_model_free(self._handle)
            self._handle = None

    @property
    def handle(self) -> int:
        """The native model, for calls."""
        if self._handle is None:
            raise ValueError("the model is closed")
        return self._handle

    @property
    def vocab(self) -> int:
        """Its native vocabulary."""
        vocab: int = native.llama_model_get_vocab(self.handle)
        return vocab

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """The tokens of `text`. `add_special`: with the model's own beginning and end; `parse_special`: control
        tokens written in the text are control tokens. Raises `BadRequest` for what libllama cannot count or survive."""
        data = _encode(text)
        if self.is_cut_by_regex:
            pretokenizer.check_depth(text)
        n_most = len(data)  # a token a byte: enough, but for what is put around the text
        while True:
            tokens = (ctypes.c_int32 * n_most)()
            n: int = native.llama_tokenize(self.vocab, data, len(data), tokens, n_most, add_special, parse_special)
            if n >= 0:
                return tokens[:n]
            if n < -MAX_TEXT_BYTES:
                raise BadRequest("the text has more than 2**31 tokens")
            n_most = -n

    def check_pace(self, texts: Sequence[str], param: str) -> None:
        """Raise `NotTokenizable` for a prompt of these texts if it takes libllama too long to cut them into words."""
        slow = pretokenizer.SLOW.get(self.metadata("tokenizer.ggml.pre") or "")
        if self.is_cut_by_regex and slow:
            pretokenizer.check_pace(texts, slow, param)

    def metadata(self, key: str) -> str | None:
        """What the file says under `key`, as text; None when it says nothing. Lists are not kept."""
        n_most = 256
        while True:
            buffer = ctypes.create_string_buffer(n_most)
            n: int = native.llama_model_meta_val_str(self.handle, key.encode(), buffer, n_most)
            if n < 0:
                return None
            if n < n_most:
                return buffer.value.decode("utf-8", "replace")
            n_most = n + 1

    def _refuse_others(self) -> None:
        """Only what predicts the next token from those before it can be served."""
        architecture = self.metadata("general.architecture")
        reads_both_ways = self.metadata(f"{architecture}.attention.causal") == "false"
        if native.llama_model_has_encoder(self.handle) or not native.llama_model_has_decoder(self.handle):
            raise ModelLoadFailed(f"{architecture} models have an encoder; only those that continue text are served")
        if reads_both_ways or native.llama_model_is_diffusion(self.handle):
            raise ModelLoadFailed(f"this {architecture} model does not continue text, it reads all of it at once")
        if native.llama_vocab_type(self.vocab) == native.LLAMA_VOCAB_TYPE_NONE:
            raise ModelLoadFailed("the file has no tokenizer")

    def _read_facts(self) -> None:
        handle = self.handle
        buffer = ctypes.create_string_buffer(256)
        native.llama_model_desc(handle, buffer, len(buffer))
        self.description: str = buffer.value.decode("utf-8", "replace").replace(" ?B", "")
        self.n_params: int = native.llama_model_n_params(handle)
        self.model_bytes: int = native.llama_model_size(handle)
        self.n_ctx_train: int = native.llama_model_n_ctx_train(handle)
        self.n_layer: int = native.llama_model_n_layer(handle)
        self.n_embd: int = native.llama_model_n_embd(handle)
        template: bytes | None = native.llama_model_chat_template(handle, None)
        self.chat_template = None if template is None else template.decode("utf-8", "replace")
        self.has_plain_memory: bool = not (
            native.llama_model_is_recurrent(handle) or native.llama_model_is_hybrid(handle)
        )
        """What it remembers is one row per token, so that any of a sequence's beginnings can be kept. A recurrent
        model's state is of all tokens at once."""

    def _read_vocabulary(self) -> None:
        """Asks once for all that is asked about tokens: a call costs more than looking it up."""
        vocab = self.vocab
        self.n_vocab: int = native.llama_vocab_n_tokens(vocab)
        self.is_cut_by_regex = native.llama_vocab_type(vocab) == native.LLAMA_VOCAB_TYPE_BPE
        """Whether a text may be cut with `std::regex` before its bytes are merged."""
        self.pieces = list(_pieces(vocab, self.n_vocab))
        self.longest_piece = max(map(len, self.pieces))
        """The bytes that each token stands for; none for control tokens."""
        self.end_tokens = frozenset(t for t in range(self.n_vocab) if native.llama_vocab_is_eog(vocab, t))
        """Every token that ends an answer."""
        self.spelled = list(_spelled(vocab, self.pieces, self.end_tokens))
        """The same with control tokens written out, except those that end an answer."""
        self.control_texts = tuple(_control_texts(vocab, self.pieces))
        """What `parse_special` takes for a control token, wherever it stands in a text."""
        self.suppressed = tuple(_suppressed(vocab))
        """Tokens that the file forbids."""
        self.bos_text = self._spelled(native.llama_vocab_bos(vocab))
        self.eos_text = self._spelled(native.llama_vocab_eos(vocab))

    def _spelled(self, token: int) -> str:
        """How a chat template writes a token; nothing when the model has none such."""
        if token == native.LLAMA_TOKEN_NULL:
            return ""
        return _piece(self.vocab, token, special=True).decode("utf-8", "replace")


def _load(path: str, engine: config.Engine) -> int:
    with lib.errors_heard() as errors:
        handle: int | None = native.llama_model_load_from_file(os.fsencode(path), _params(engine))
    if handle is None:
        reason = errors[0].rpartition("error loading model: ")[2] if errors else "libllama gives no reason"
        raise ModelLoadFailed(f"{path}: {reason}")
    return handle


def _params(engine: config.Engine) -> object:
    params = native.llama_model_default_params()
    params.n_gpu_layers = engine.n_gpu_layers
    params.main_gpu = engine.main_gpu
    params.load_mode = _LOAD_MODES[engine.mmap, engine.mlock]
    params.check_tensors = True  # a block with a NaN in it would end in a NaN logit; reads some 5 GB a second
    if engine.tensor_split:
        params.tensor_split = _shares(engine.tensor_split)
    return params


def _shares(text: str) -> ctypes.Array[ctypes.c_float]:
    """`3,1`, for as many devices as libllama could ever have: it reads one share for each."""
    n_most: int = native.llama_max_devices()
    shares = [float(part) for part in text.split(",")]
    if len(shares) > n_most:
        raise ModelLoadFailed(f"tensor_split is for {len(shares)} devices; libllama knows {n_most}")
    return (ctypes.c_float * n_most)(*shares)


def _encode(text: str) -> bytes:
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise BadRequest("the text is not Unicode: it has half a surrogate pair") from error
    if len(data) > MAX_TEXT_BYTES - 2:
        raise BadRequest("the text is larger than 2 GiB")
    return data


def _pieces(vocab: int, n_vocab: int) -> Iterator[bytes]:
    """As `_piece` without control tokens, with one buffer for all: a vocabulary has 150,000 tokens."""
    buffer = ctypes.create_string_buffer(256)
    view = memoryview(buffer)
    to_piece, size = native.llama_token_to_piece, len(buffer)
    for token in range(n_vocab):
        n = to_piece(vocab, token, buffer, size, 0, False)
        yield bytes(view[:n]) if n >= 0 else _piece(vocab, token, special=False)


def _piece(vocab: int, token: int, *, special: bool) -> bytes:
    n_most = 256
    while True:
        buffer = ctypes.create_string_buffer(n_most)
        n: int = native.llama_token_to_piece(vocab, token, buffer, n_most, 0, special)
        if n >= 0:
            return buffer.raw[:n]
        n_most = -n


def _spelled(vocab: int, pieces: list[bytes], end_tokens: frozenset[int]) -> Iterator[bytes]:
    for token, piece in enumerate(pieces):
        yield piece or (b"" if token in end_tokens else _piece(vocab, token, special=True))


def _control_texts(vocab: int, pieces: list[bytes]) -> Iterator[str]:
    for token, piece in enumerate(pieces):
        if not piece and native.llama_vocab_get_attr(vocab, token) & _NOT_TEXT:
            text: bytes = native.llama_vocab_get_text(vocab, token)
            if text:
                yield text.decode("utf-8", "replace")


def _suppressed(vocab: int) -> list[int]:
    n = ctypes.c_int32()
    tokens = native.llama_vocab_get_suppress_tokens(vocab, ctypes.byref(n))
    found: list[int] = tokens[: n.value]
    return found
