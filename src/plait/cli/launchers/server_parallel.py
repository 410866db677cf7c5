"""`plait as server-parallel`: the flags of llama.cpp's server-parallel, all that it took and those that it only named.

What a flag stood for and llama.cpp has no more is refused with the reason.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import click
from msgspec import Struct

from plait.cli.fetching import fetch
from plait.cli.launch import launch
from plait.config import Config, ConfigError, load
from plait.dialects import common, server_parallel, server_parallel_state
from plait.dialects.common import INT32_MAX
from plait.dialects.server_parallel_state import USER, Settings
from plait.errors import BadRequest
from plait.fleet.base import Served
from plait.gateway.table import Dialect

PUBLIC = Path("examples/server/public")
LEAST_PREDICT = 128
MOST_BATCH = 512
LEAST_BATCH = 64
"""What the engine's own setting begins at; below, each request's prompt is cut into such small pieces."""
MOST_LAYERS = 1024

SIZE = click.IntRange(0, INT32_MAX)


class Flags(Struct, frozen=True, kw_only=True):
    """What was said on the command line, by the names below."""

    threads: int
    threads_batch: int
    ctx_size: int
    rope_freq_base: float
    rope_freq_scale: float
    batch_size: int
    memory_f32: bool
    mlock: bool
    no_mmap: bool
    numa: bool
    gpu_layers: int
    main_gpu: int
    tensor_split: str
    model: str
    alias: str
    lora: tuple[str, ...]
    lora_scaled: tuple[tuple[str, float], ...]
    host: str
    port: int
    path: Path | None
    timeout: int
    parallel: int
    cont_batching: bool
    n_predict: int | None
    reverse_prompt: tuple[str, ...]


class Program(click.Command):
    """Like the original, says how it is used and ends with 1, whatever is wrong with its flags."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        try:
            return super().make_context(*args, **extra)
        except click.UsageError as error:
            self.give_up(error.format_message(), error.ctx)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            self.give_up(str(error), ctx)

    def give_up(self, problem: str, ctx: click.Context | None) -> NoReturn:
        click.echo(f"error: {problem}", err=True)
        if ctx:
            click.echo(self.get_help(ctx), err=True)
        raise click.exceptions.Exit(1)


def gone(reason: str) -> Callable[[click.Context, click.Parameter, object], None]:
    """The callback of a flag that means nothing any more."""

    def refuse(ctx: click.Context, param: click.Parameter, value: object) -> None:
        if value:
            raise click.BadParameter(reason, ctx, param)

    return refuse


def folder(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """The default one need not be there."""
    return value or (PUBLIC if PUBLIC.is_dir() else None)


def antiprompts(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return common.stops(list(dict.fromkeys([*value, USER])))
    except BadRequest as error:
        raise click.BadParameter(error.message, ctx, param) from None


@click.command(cls=Program, context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option("-t", "--threads", type=SIZE, show_default="all cores", default=0, help="Threads for decoding.")
@click.option("-tb", "--threads-batch", type=SIZE, show_default="as -t", default=0, help="Threads for prompts.")
@click.option("-c", "--ctx-size", "--ctx_size", type=SIZE, default=512, help="Tokens of a slot; 0: as the model says.")
@click.option("--rope-freq-base", type=float, show_default="the model's", default=0.0, help="RoPE's base frequency.")
@click.option("--rope-freq-scale", type=float, show_default="the model's", default=0.0, help="RoPE's frequency scale.")
@click.option(
    "-b", "--batch-size", type=click.IntRange(1), default=MOST_BATCH, help="Prompt tokens read at once, 512 at most."
)
@click.option("--memory-f32", "--memory_f32", is_flag=True, help="K and V of the context in 32 bits instead of 16.")
@click.option("--mlock", is_flag=True, help="Keep the model in RAM.")
@click.option("--no-mmap", is_flag=True, help="Read the model's file instead of mapping it.")
@click.option("--numa", is_flag=True, help="Spread the work over the NUMA nodes.")
@click.option("-ngl", "--gpu-layers", "--n-gpu-layers", type=int, default=0, help="Layers on the GPU.")
@click.option("-mg", "--main-gpu", type=SIZE, default=0, help="The GPU for what is not split.")
@click.option("-ts", "--tensor-split", default="", show_default=False, metavar="N,N,...", help="Share of each GPU.")
@click.option(
    "-nommq",
    "--no-mul-mat-q",
    is_flag=True,
    expose_value=False,
    callback=gone("llama.cpp chooses its CUDA kernels by itself now"),
    help="Refused: llama.cpp chooses its kernels by itself.",
)
@click.option(
    "-m",
    "--model",
    default="models/7B/ggml-model-f16.gguf",
    help="A GGUF file, hf:owner/repo[:quant], or a name on this machine.",
)
@click.option(
    "-a",
    "--alias",
    default="",
    show_default=False,
    metavar="NAME",
    help="What the model is called in logs and metrics.",
)
@click.option("--lora", multiple=True, metavar="FILE", help="A LoRA adapter; may repeat.")
@click.option(
    "--lora-scaled", multiple=True, type=(str, float), metavar="FILE S", help="The same, times S; may repeat."
)
@click.option(
    "--lora-base",
    expose_value=False,
    callback=gone("llama.cpp adds adapters to the model as it is, and has no use for another base"),
    help="Refused: adapters need no other base model any more.",
)
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, help="Port to listen on.")
@click.option(
    "--path",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    callback=folder,
    show_default=str(PUBLIC),
    help="Folder whose files are served, before our own page.",
)
@click.option(
    "-to", "--timeout", type=click.IntRange(1, 86_400), default=600, help="Seconds for a client to send or to read on."
)
@click.option("-np", "--parallel", type=click.IntRange(1, 256), default=1, help="Slots: answers at the same time.")
@click.option("-cb", "--cont-batching", is_flag=True, help="A new prompt does not wait until nobody is answered.")
@click.option(
    "-n", "--n-predict", type=int, show_default="no limit", help="Tokens of a prompt and its answer, at least 128."
)
@click.option(
    "-r", "--reverse-prompt", multiple=True, callback=antiprompts, help=f"Ends an answer, as {USER} does; may repeat."
)
def command(**said: Any) -> None:
    """Stand in for llama.cpp's server-parallel: its flags, its port, its paths.

    Every other setting of plait serve may be said as PLAIT_NAME in the environment.
    """
    flags = Flags(**said)
    config = configured(flags)
    fetch(config.models.model, config)
    routes = partial(server_parallel.routes, settings=settings(flags))
    launch(config, Dialect("server-parallel", routes, server_parallel.refuse, server_parallel_state.prepare), say)


def settings(flags: Flags) -> Settings:
    """What these flags choose of the dialect."""
    return Settings(
        n_slots=flags.parallel,
        n_predict=None if flags.n_predict is None else max(flags.n_predict, LEAST_PREDICT),
        antiprompts=flags.reverse_prompt,
        prompt_chunk=min(flags.batch_size, MOST_BATCH),
        folder=flags.path,
        is_open=True,
        has_one_audience=True,
    )


def configured(flags: Flags) -> Config:
    """What these flags are in Plait's own words."""
    same = "threads", "threads_batch", "ctx_size", "rope_freq_base", "rope_freq_scale", "mlock", "main_gpu"
    kind = "f32" if flags.memory_f32 else "f16"
    n_batch = max(LEAST_BATCH, min(flags.batch_size, MOST_BATCH))
    return load(
        {name: getattr(flags, name) for name in (*same, "host", "port", "cont_batching")}
        | {
            "model": (f"{flags.alias}={flags.model}" if flags.alias else flags.model,),
            "slots": flags.parallel,
            "batch_size": n_batch,
            "ubatch_size": n_batch,
            "cache_type_k": kind,
            "cache_type_v": kind,
            "mmap": not flags.no_mmap,
            "numa": "distribute" if flags.numa else "",
            "n_gpu_layers": max(0, min(flags.gpu_layers, MOST_LAYERS)),
            "tensor_split": flags.tensor_split.replace("/", ","),
            "lora": [f"{file}=1" for file in flags.lora] + [f"{file}={scale}" for file, scale in flags.lora_scaled],
            "header_timeout": flags.timeout,
            "body_timeout": flags.timeout,
            "write_timeout": flags.timeout,
        }
    )


def say(served: Sequence[Served], addresses: Sequence[str], seconds: float) -> None:
    """What stands on standard output when requests may come."""
    (model,) = served
    slots = f"{model.info.n_slots} slots of {model.info.n_ctx:,} tokens" if model.info else model.state
    click.echo(f"server-parallel: {model.name}, {slots}")
    click.echo(f"{', '.join(addresses)}, ready after {seconds:.1f} s")
