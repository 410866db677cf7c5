"""`plait`: finds the subcommand, and says in one line what went wrong."""

import sys

import click

from plait import __version__
from plait.cli.lazy import Lazy, Subcommand
from plait.config import ConfigError
from plait.errors import PlaitError

SUBCOMMANDS = {
    "serve": Subcommand("plait.cli.serve", "Serve models over HTTP."),
    "chat": Subcommand("plait.cli.chat", "Talk to a model in the terminal."),
    "as": Subcommand("plait.cli.as_", "Stand in for another program, with its own flags."),
    "convert": Subcommand("plait.cli.convert", "Convert BitNet's I2_S file by hand."),
    "models": Subcommand("plait.cli.models", "List the models on this machine."),
    "cache": Subcommand("plait.cli.cache", "Look at what is cached on disk, and clear it."),
    "settings": Subcommand("plait.cli.settings", ""),
}


@click.group(cls=Lazy, commands=SUBCOMMANDS)
@click.version_option(__version__, prog_name="plait", message="%(prog)s %(version)s")
def plait() -> None:
    """An HTTP server for GGUF language models: many prompts in one batch on one llama.cpp."""


def main() -> None:
    """Runs the command line. The exit code is 2 when it was said wrongly, 1 when it could not be done."""
    try:
        sys.exit(plait(prog_name="plait", standalone_mode=False))
    except (click.UsageError, ConfigError) as error:
        said = error.format_message() if isinstance(error, click.UsageError) else str(error)
        _give_up(said, 2)
    except (click.ClickException, PlaitError, OSError) as error:
        _give_up(str(error), 1)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)


def _give_up(message: str, code: int) -> None:
    click.echo(f"plait: {message}", err=True)
    sys.exit(code)
