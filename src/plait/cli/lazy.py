"""A group of commands that are imported when they are called, and not before: `--help` answers at once."""

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import click


class Subcommand(NamedTuple):
    """The module that has it as `command`, and what the group's help says of it; nothing: it is not shown."""

    module: str
    help: str


class Lazy(click.Group):
    """Knows its commands' names."""

    def __init__(self, *args: Any, commands: Mapping[str, Subcommand], **attrs: Any) -> None:
        super().__init__(*args, **attrs)
        self.subcommands = commands

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.subcommands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.subcommands:
            return None
        found = importlib.import_module(self.subcommands[cmd_name].module).command
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, sub.help) for name, sub in self.subcommands.items() if sub.help])
