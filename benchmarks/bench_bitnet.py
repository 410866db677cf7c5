"""BitNet b1.58 2B4T's shape: how fast its file is converted, and what squared ReLU costs beside llama.cpp's own SiLU.

The file is random, in the official layout, and lies in the cache folder while this runs. Two contexts on one model, one
with squared ReLU and one without, take turns. What is added to a pass, and to a graph that is built anew, is also
measured where it is not lost in the rest: on as many layers of a tenth of the width.
"""

import argparse
import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from msgspec import structs

from benchmarks.report import Row, interleaved, show
from plait import config, gguf
from plait.bitnet import target, tiny, writing
from plait.bitnet.tiny import Shape
from plait.bitnet.writing import Described
from plait.config import BitNetHead
from plait.llama.context import Context
from plait.llama.model import Model

OFFICIAL = Shape(n_layer=30, n_embd=2560, n_ff=6912, n_head=20, n_head_kv=5, n_vocab=128_256, n_ctx=4096)
NARROW = Shape(n_layer=30, n_embd=256, n_ff=256, n_head=4, n_head_kv=1, n_vocab=512, n_ctx=4096)
N_PROMPT, N_CTX = 512, 1024
N_WRITTEN = 4
"""Tokens that are written at once."""
BYTES = np.array(
    [sum(code << 2 * i for i, code in enumerate(codes)) for codes in itertools.product(range(3), repeat=4)]
)
"""Every byte whose four codes are weights."""


def write(shape: Shape, path: Path) -> None:
    """An official file with random codes."""
    random = np.random.default_rng(0)
    described = list(tensors(shape))
    said = {key: writing.value(plain) for key, plain in tiny.metadata(shape, "bitnet-b1.58").items()}
    with path.open("wb") as file:
        file.write(writing.head(said, described))
        for tensor in described:
            for block in numbers(tensor, random):
                file.write(block)
            file.write(writing.padding(tensor.n_bytes))


def tensors(shape: Shape) -> Iterator[Described]:
    n, n_ff, n_kv = shape.n_embd, shape.n_ff, shape.head_size * shape.n_head_kv

    def one(name: str, kind: str, *rows_last: int) -> Described:
        return Described(f"{name}.weight", rows_last, kind, gguf.n_bytes(kind, int(np.prod(rows_last))))

    yield one("token_embd", "F16", n, shape.n_vocab)
    for i in range(shape.n_layer):
        for name, width in (("attn_norm", n), ("ffn_norm", n), ("attn_sub_norm", n), ("ffn_sub_norm", n_ff)):
            yield one(f"blk.{i}.{name}", "F32", width)
        for name, width in (("attn_q", n), ("attn_k", n_kv), ("attn_v", n_kv), ("attn_output", n)):
            yield one(f"blk.{i}.{name}", "I2_S", n, width)
        yield one(f"blk.{i}.ffn_gate", "I2_S", n, n_ff)
        yield one(f"blk.{i}.ffn_up", "I2_S", n, n_ff)
        yield one(f"blk.{i}.ffn_down", "I2_S", n_ff, n)
    yield one("output_norm", "F32", n)


def numbers(tensor: Described, random: np.random.Generator) -> Iterator[bytes]:
    """A tensor's bytes; embeddings repeat themselves, for it takes long to draw them."""
    if tensor.kind == "F32":
        yield np.ones(tensor.n_bytes // 4, np.float32).tobytes()
    elif tensor.kind == "F16":
        block = (random.standard_normal(tensor.shape[0] * 64) * 0.05).astype(np.float16).tobytes()
        for begin in range(0, tensor.n_bytes, len(block)):
            yield block[: tensor.n_bytes - begin]
    else:
        yield BYTES[random.integers(0, len(BYTES), tensor.n_bytes - 32, np.uint8)].astype(np.uint8).tobytes()
        yield np.float32(0.05).tobytes() + bytes(28)


class Models:
    """A model with two contexts: as it is served, and with the SiLU that llama.cpp alone would compute it with."""

    def __init__(self, path: Path, engine: config.Engine, files: ExitStack) -> None:
        self.model = files.enter_context(Model(str(path), engine))
        self.contexts = []
        for squares in (True, False):
            self.model.squares_relu = squares
            self.contexts.append(files.enter_context(Context(self.model, engine, n_ctx=N_CTX, n_slots=1)))

    def clocks(self, run: Callable[[Context], None]) -> list[Callable[[], float]]:
        """Of the same work with squared ReLU and without."""
        return [partial(seconds, run, context) for context in self.contexts]


def seconds(run: Callable[[Context], None], context: Context) -> float:
    """Of the processor with one thread, whoever else uses the machine; else those that pass."""
    clock = time.process_time if context.n_threads == 1 else time.perf_counter
    begin = clock()
    run(context)
    return clock() - begin


def read_prompt(context: Context) -> None:
    """One pass, for which a graph is built."""
    context.trim(0, 0)
    context.decode([(0, 0, [7] * N_PROMPT, True)])


def write_tokens(context: Context) -> None:
    """A few passes over the same graph."""
    context.trim(0, 0)
    for i in range(N_WRITTEN):
        context.decode([(0, i, [9], True)])


def figures(name: str, models: Models, n_rounds: int) -> Iterator[Row]:
    """What squared ReLU costs."""
    for what, run, n in (("prompt", read_prompt, 1), ("token", write_tokens, N_WRITTEN)):
        with_it, without = interleaved(n_rounds * n * n, *models.clocks(run))
        yield Row(f"{name}: a {what}", with_it / n * 1e3, "ms")
        yield Row(f"{name}: squared ReLU for a {what}", (with_it - without) / n * 1e3, "ms more than SiLU")
        yield Row(f"{name}: squared ReLU for a {what}", with_it / without, "times SiLU", "<= 1.02")


def conversion(source: Path, path: Path, head: BitNetHead) -> Row:
    begin = time.perf_counter()
    target.convert(source, path, head, "x86", lambda n_done, n_total: None)
    rate = source.stat().st_size / 1e6 / (time.perf_counter() - begin)
    return Row(f"conversion, head {head}", rate, "MB/s", ">= 200")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks bitnet", description=__doc__)
    parser.add_argument("--layers", type=int, default=OFFICIAL.n_layer, help="of the model's 30")
    parser.add_argument("--threads", type=int, default=1, help="with one, the processor's time is measured")
    parser.add_argument("--rounds", type=int, default=5, help="prompts; tokens are written 16 times as often")
    return parser.parse_args()


def main() -> None:
    said = arguments()
    engine = config.Engine(threads=said.threads, batch_size=N_PROMPT, ubatch_size=N_PROMPT)
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    cache.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=cache) as name, ExitStack() as files:
        folder = Path(name)
        write(NARROW, folder / "narrow-i2_s.gguf")
        conversion(folder / "narrow-i2_s.gguf", folder / "narrow.gguf", "q8_0")
        rows = list(figures("narrow", Models(folder / "narrow.gguf", engine, files), said.rounds))
        source = folder / "i2_s.gguf"
        write(structs.replace(OFFICIAL, n_layer=said.layers), source)
        heads: tuple[BitNetHead, ...] = ("q8_0", "f16")
        rows += [conversion(source, folder / f"{head}.gguf", head) for head in heads]
        small, wide = (Models(folder / f"{head}.gguf", engine, files) for head in heads)
        rows += figures("2B4T", small, said.rounds)
        clocks = [models.clocks(write_tokens)[0] for models in (wide, small)]
        slow, quick = interleaved(said.rounds * N_WRITTEN, *clocks)
        rows.append(Row("2B4T: a token with an f16 head", slow / quick, "times q8_0"))
    show(f"bitnet, {said.layers} layers, {said.threads} threads", rows)


if __name__ == "__main__":
    main()
