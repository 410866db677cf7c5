"""`plait as bitnet`: stands in for the BitNet HTTP server, which knew no flags, only its environment."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click

from plait import config
from plait.cli.fetching import fetch
from plait.cli.launch import launch
from plait.cores import n_processors
from plait.dialects import bitnet_http
from plait.dialects.bitnet_http import Settings
from plait.fleet.base import Served
from plait.gateway.table import Dialect

MODEL = Path("models/BitNet-b1.58-2B-4T/ggml-model-i2_s.gguf")
"""Where that program finds its model, seen from the working directory."""


@click.command(context_settings={"show_default": True})
@click.option(
    "-m", "--model", default=str(MODEL), help="A GGUF file, hf:owner/repo[:quant], or a name on this machine."
)
@click.option("--host", default="0.0.0.0", help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, help="Port to listen on.")
@click.option(
    "--max-threads",
    type=click.IntRange(1, 512),
    default=4,
    envvar="MAX_THREADS",
    show_envvar=True,
    help="Threads of an instance, as far as there are cores; the most that a request may ask for.",
)
@click.option(
    "--instances",
    type=click.IntRange(1, 64),
    default=1,
    envvar="MODEL_INSTANCES",
    show_envvar=True,
    help="Worker processes, which take requests in turn.",
)
def command(model: str, host: str, port: int, max_threads: int, instances: int) -> None:
    """Stand in for the BitNet HTTP server: its paths, its port, its environment.

    Every other setting of plait serve may be said as PLAIT_NAME in the environment.
    """
    if model == str(MODEL) and not MODEL.is_file():
        raise click.UsageError(f"there is no {MODEL} in {Path.cwd()}; another model is named with -m MODEL")
    flags = {
        "model": (model,),
        "replicas": instances,
        "routing": "round-robin",
        "threads": min(max_threads, n_processors()),
        "host": host,
        "port": port,
    }
    settings = config.load(flags)
    fetch(settings.models.model, settings)
    routes = partial(bitnet_http.routes, settings=Settings(max_threads))
    launch(settings, Dialect("bitnet", routes, bitnet_http.refuse), say)


def say(served: Sequence[Served], addresses: Sequence[str], seconds: float) -> None:
    """What stands on standard output when requests may come."""
    (model,) = served
    n_threads = model.info.n_threads if model.info else 0
    click.echo(f"BitNet LLM API Server: {model.name}, instances: {len(model.replicas)}, threads of each: {n_threads}")
    click.echo(f"{', '.join(addresses)}, ready after {seconds:.1f} s")
