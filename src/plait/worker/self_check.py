"""Whether libllama computes BitNet as its mathematics says, tried on a tiny model before a real one is served.

The model is made in memory, in the official layout, converted and loaded as a user's is, and its logits are held
against numpy's. A libllama that builds its graph in another way is noticed here, and not by who reads the answers.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from plait import config
from plait.bitnet import reference, tiny
from plait.bitnet.convert import Conversion
from plait.bitnet.reference import Gate
from plait.errors import GenerationFailed, ModelLoadFailed
from plait.llama.context import Context
from plait.llama.model import Model

LARGEST_ERROR = 1e-4
"""Relative. Kernels that sum in another order differ by 1e-6, SiLU in the place of squared ReLU by 0.3."""
TOKENS = [28, 266, 80, 66, 66, 257, 151, 127, 118, 256]
"""Chosen one by one, so that no activation lies within 1e-5, relative, of a border between two roundings: 8 bits would
differ on a processor whose kernels sum in another order."""
_N_CTX = 256

OpenContext = Callable[..., Context]


class _File(NamedTuple):
    """A file that is nowhere on a disk, and how it can be opened once more."""

    file: BinaryIO
    path: Path


def run(engine: config.Engine, gate: Gate = "relu2", open_context: OpenContext = Context) -> None:
    """Raise `ModelLoadFailed` when the logits of the tiny model are not what they have to be with this gate."""
    try:
        error = relative_error(engine, gate, open_context)
    except (GenerationFailed, ModelLoadFailed) as failure:
        raise ModelLoadFailed(
            f"BitNet is not served: libllama cannot compute a model of known logits: {failure.message}"
        ) from failure
    if not error < LARGEST_ERROR:
        raise ModelLoadFailed(
            f"BitNet is not served: on a model of known logits, libllama's differ from them by {error:.2g} (relative);"
            f" below {LARGEST_ERROR:g} is right"
        )


def relative_error(engine: config.Engine, gate: Gate = "relu2", open_context: OpenContext = Context) -> float:
    """Of the logits after a prompt of several tokens, and after one token more."""
    numbers = tiny.Numbers(tiny.TINY, wide="F32")
    with ExitStack() as files:
        source, converted = files.enter_context(_in_memory()), files.enter_context(_in_memory())
        tiny.write(numbers, source.file)
        source.file.flush()
        with Conversion(source.path, "f16", "x86") as conversion:
            conversion.write(converted.file, lambda n_done, n_total: None)
        converted.file.flush()
        said = _logits(str(converted.path), _settings(engine), open_context)
    wanted = reference.logits(numbers, TOKENS, gate)[-2:]
    return float(np.linalg.norm(said - wanted) / np.linalg.norm(wanted))


def _settings(engine: config.Engine) -> config.Engine:
    """One thread, no GPU, and a cache that rounds nothing."""
    return config.Engine(
        threads=1,
        batch_size=64,
        ubatch_size=64,
        n_gpu_layers=0,
        numa=engine.numa,
        cache_type_k="f32",
        cache_type_v="f32",
    )


def _logits(path: str, settings: config.Engine, open_context: OpenContext) -> NDArray[np.float32]:
    """Those after all tokens but the last, and after all."""
    with Model(path, settings) as model, open_context(model, settings, n_ctx=_N_CTX, n_slots=1) as context:
        context.decode([(0, 0, TOKENS[:-1], True)])
        first = context.logits(0)
        context.decode([(0, len(TOKENS) - 1, TOKENS[-1:], True)])
        return np.stack([first, context.logits(0)])


@contextmanager
def _in_memory() -> Iterator[_File]:
    """On Linux, a file that a worker without rights to write files can write."""
    if sys.platform == "linux":
        with open(os.memfd_create("bitnet"), "w+b") as file:
            yield _File(file, Path(f"/proc/self/fd/{file.fileno()}"))
    else:
        with tempfile.NamedTemporaryFile(suffix=".gguf") as named:
            yield _File(named.file, Path(named.name))
