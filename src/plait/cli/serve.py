"""`plait serve`: fetches what is missing, starts the server, and says when and where it can be reached."""

import time
from collections.abc import Sequence

import click
from rich.console import Console

from plait.cli import banner
from plait.cli.fetching import fetch
from plait.cli.options import SettingsCommand
from plait.config import Config
from plait.fleet.base import Served
from plait.gateway.server import serve


def run(config: Config) -> None:
    """Serves until it is told to stop."""
    began = time.monotonic()
    fetch(config.models.model, config)

    def on_ready(served: Sequence[Served], addresses: Sequence[str]) -> None:
        banner.show(Console(), served, addresses, config, time.monotonic() - began)

    serve(config, on_ready)


command = SettingsCommand(
    "serve",
    run,
    params=[click.Argument(["models"], nargs=-1, metavar="[MODEL]...")],
    help="""Serve models over HTTP, as OpenAI's API and others.

    A MODEL is a GGUF file, hf:owner/repo[:quant], or a name that plait models lists; without one, the demo model is
    served. Every setting may also be said as PLAIT_NAME in the environment, or in a file given with --config.""",
)
