"""What is said when a server is ready: which models, how they are laid out, and where to reach them."""

from collections.abc import Iterator, Sequence
from typing import get_args

from rich.console import Console
from rich.text import Text

from plait import __version__
from plait.cli.models import count
from plait.config import Config, format_bytes
from plait.fleet.base import Served
from plait.fleet.registry import DEMO
from plait.protocol import ModelInfo, Protection


def show(console: Console, served: Sequence[Served], addresses: Sequence[str], config: Config, seconds: float) -> None:
    """One block to read; a line per model when there are several."""
    console.print(f"plait {__version__}\n", style="bold", highlight=False)
    for name, words in lines(served, addresses, config, seconds):
        console.print(Text.assemble((f"{name:<14}", "dim"), words), soft_wrap=True)


def lines(
    served: Sequence[Served], addresses: Sequence[str], config: Config, seconds: float
) -> Iterator[tuple[str, str]]:
    """The block's rows: what, and what it is."""
    if len(served) == 1 and (info := served[0].info):
        yield from _whole(served[0], info, config)
    else:
        yield from (("model", _line(model)) for model in served)
    if infos := [model.info for model in served if model.info]:
        yield "sandbox", _sandbox(infos[0])
    yield from (("address", address) for address in addresses)
    yield "ready", f"after {seconds:.1f} s"


def _whole(model: Served, info: ModelInfo, config: Config) -> Iterator[tuple[str, str]]:
    engine, n_replicas = config.engine, len(model.replicas)
    yield "model", model.name + _what_it_is(model)
    yield "weights", f"{_kind(info)}, {count(info.n_params)} parameters, {format_bytes(info.model_bytes)}"
    yield "context", f"{info.n_ctx:,} tokens in each of {info.n_slots} slots (trained on {info.n_ctx_train:,})"
    yield "KV cache", f"{info.kv_layout}, {engine.cache_type_k}/{engine.cache_type_v}, {format_bytes(info.kv_bytes)}"
    yield "prefixes", _prefixes(info)
    yield "reproducible", f"{info.verdict.reproducible}{f' ({info.verdict.reason})' if info.verdict.reason else ''}"
    yield "threads", f"{info.n_threads}" + (f" in each of {n_replicas} workers" if n_replicas > 1 else "")


def _prefixes(info: ModelInfo) -> str:
    """What is kept of ended requests, and where."""
    if not info.cache_ram:
        return "not kept"
    how = "by tokens" if info.prefix_cache == "tokens" else "as snapshots: this model's memory cannot be cut"
    disk = f", {format_bytes(info.cache_disk)} on disk" if info.cache_disk else ""
    return f"kept {how}, up to {format_bytes(info.cache_ram)} in RAM{disk}"


def _line(model: Served) -> str:
    if info := model.info:
        weights = f"{_kind(info)}, {format_bytes(info.model_bytes)} + {format_bytes(info.kv_bytes)} KV"
        return f"{model.name}{_what_it_is(model)}: {weights}, {info.n_slots} slots of {info.n_ctx:,} tokens"
    return f"{model.name}: {model.state}{f', {model.reason}' if model.reason else ''}"


def _sandbox(info: ModelInfo) -> str:
    """What workers have given up, which is the same for all of a machine."""
    missing = [protection for protection in get_args(Protection) if protection not in info.protections]
    if not info.protections:
        return "none: workers may do what this user may"
    return ", ".join(info.protections) + (f"; not enforced: {', '.join(missing)}" if missing else "")


def _kind(info: ModelInfo) -> str:
    """llama.cpp's description, without its "?B" for a size that it has no name for."""
    return info.description.replace(" ?B", "")


def _what_it_is(model: Served) -> str:
    return " (the demo model: small, and only for trying things out)" if model.name == DEMO else ""
