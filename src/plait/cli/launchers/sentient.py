"""`plait as sentient`: that program's one flag. It begins without a model, unless PLAIT_MODEL names one."""

from collections.abc import Sequence

import click

from plait import __version__, config
from plait.cli.launch import launch
from plait.dialects import sentient
from plait.fleet.base import Served
from plait.gateway.table import Dialect

HOST = "127.0.0.1"
MAX_BODY = 2 * 1024**2
"""axum's own limit."""


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option("-p", "--port", type=click.IntRange(0, 65535), default=3000, help=f"Port to listen on, on {HOST}.")
@click.version_option(__version__, "-V", "--version", prog_name="plait as sentient", message="%(prog)s %(version)s")
def command(port: int) -> None:
    """Stand in for the Sentient inference server: its flags, its port, its paths.

    Models come with POST /load_model. Every other setting of plait serve may be said as PLAIT_NAME in the environment.
    """
    settings = config.load({"host": HOST, "port": port, "max_body": MAX_BODY})
    dialect = Dialect("sentient", sentient.routes, sentient.refuse)
    launch(settings, dialect, say, sources=settings.models.model)


def say(served: Sequence[Served], addresses: Sequence[str], seconds: float) -> None:
    """What stands on standard output when requests may come."""
    for address in addresses:
        click.echo(f"Server running at {address}")
