"""`plait as srb`: llama-srb-api's flags."""

import re
import shlex
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import click
from rich.console import Console

from plait import config
from plait.cli import banner
from plait.cli.fetching import fetch
from plait.cli.launch import launch
from plait.cli.options import flag
from plait.dialects import common, srb
from plait.fleet.base import Served
from plait.gateway.table import Dialect
from plait.protocol import MAX_CHOICES

ESCAPES = {r"\n": "\n", r"\r": "\r", r"\t": "\t", r"\'": "'", r"\"": '"', r"\\": "\\"}
"""What llama.cpp reads in a stop string on its command line."""

ENGINE = click.Command(
    "--args",
    params=[
        click.Option(["stop", "-r", "--reverse-prompt"], multiple=True),
        *(flag(opt) for opt in config.options() if opt.section == "engine"),
    ],
    add_help_option=False,
)
"""The program that `--args` was for: llama.cpp's own flags."""


class Args(NamedTuple):
    """What `--args` says."""

    stop: tuple[str, ...] | None
    settings: dict[str, object]


def read_args(ctx: click.Context, param: click.Parameter, value: str) -> Args:
    try:
        with ENGINE.make_context("--args", shlex.split(value)) as inner:
            said = {name: value for name, value in inner.params.items() if value not in (None, ())}
    except (ValueError, click.UsageError) as error:
        problem = error.format_message() if isinstance(error, click.UsageError) else f"{error}."
        raise click.UsageError(f"--args: {problem} It takes -r, and the engine's settings of plait serve.") from None
    stop = said.pop("stop", None)
    return Args(stop and common.stops([unescape(string) for string in stop]), said)


def unescape(stop: str) -> str:
    return re.sub(r"\\.", lambda found: ESCAPES.get(found[0], found[0]), stop)


def refuse_engine(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is not None:
        raise click.UsageError("--engine: there is no program to start any more; llama.cpp is part of this one")


@click.command(context_settings={"show_default": True})
@click.option("--model", required=True, help="A GGUF file, hf:owner/repo[:quant], or a name on this machine.")
@click.option("--engine", callback=refuse_engine, expose_value=False, help="Refused: the engine is part of Plait.")
@click.option("--n", type=click.IntRange(1, MAX_CHOICES), default=8, help="Completions of each prompt.")
@click.option(
    "--max-n",
    type=click.IntRange(1, MAX_CHOICES),
    show_default="16, or --n if that is more",
    help="The most that a request may ask for; so many are decoded together.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=9090, help="Port to listen on, on all addresses.")
@click.option(
    "--ctx",
    type=click.IntRange(1, 2**24),
    show_default="8192, or what the model and the memory allow",
    help="Tokens that a prompt and one of its completions may have together.",
)
@click.option("--args", default="", callback=read_args, help="llama.cpp's flags for the engine; -r for stop strings.")
def command(model: str, n: int, max_n: int | None, port: int, ctx: int | None, args: Args) -> None:
    """Stand in for llama-srb-api: its flags, its port, its paths.

    Every other setting of plait serve may be said as PLAIT_NAME in the environment.
    """
    most = max_n or max(n, srb.OWN.max_n)
    if n > most:
        raise click.UsageError(f"--n {n} is more than --max-n {most}")
    flags = {"model": (model,), "slots": most, "host": "0.0.0.0", "port": port, "cors_origin": ("*",)}
    settings = config.load(flags | ({"ctx_size": ctx} if ctx else {}) | args.settings)
    fetch(settings.models.model, settings)

    def say(served: Sequence[Served], addresses: Sequence[str], seconds: float) -> None:
        banner.show(Console(), served, addresses, settings, seconds)

    routes = partial(srb.routes, settings=srb.Settings(n, most, args.stop))
    launch(settings, Dialect("srb", routes, srb.refuse), say)
