"""`plait as NAME [that program's flags]`: the launchers, imported when they are called."""

import click

from plait.cli.lazy import Lazy, Subcommand

LAUNCHERS = {
    "llm-http": Subcommand("plait.cli.launchers.llm_http", "llm-http, the Rust inference server."),
    "sentient": Subcommand("plait.cli.launchers.sentient", "The Sentient inference server."),
    "srb": Subcommand("plait.cli.launchers.srb", "llama-srb-api."),
    "server-parallel": Subcommand("plait.cli.launchers.server_parallel", "llama.cpp's server-parallel."),
    "bitnet": Subcommand("plait.cli.launchers.bitnet_http", "The BitNet HTTP server."),
}


@click.group(cls=Lazy, commands=LAUNCHERS)
def command() -> None:
    """Stand in for another program: its flags, its defaults, its port, its paths."""
