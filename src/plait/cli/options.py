"""The settings as command-line options: one for each, made from its declaration in `config`, and help by section."""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import click

from plait import config
from plait.config import Config, Option, format_bytes

HELP_WIDTH = 110

_FILE = click.Option(
    ["--config"],
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="PLAIT_CONFIG",
    metavar="FILE",
    help="settings from a TOML file",
)


class SettingsCommand(click.Command):
    """A command with every setting, and a few options of its own that come first in its help.

    `run` gets the settings in force, and the values of `params` by name.
    """

    def __init__(self, name: str, run: Callable[..., None], params: Sequence[click.Parameter], help: str) -> None:
        self.own = [*params, _FILE]

        def callback(config: Path | None, models: tuple[str, ...] = (), **said: object) -> None:
            own = {param.name: said.pop(param.name) for param in params if param.name in said}
            run(_settings(said, models, config), **own)

        super().__init__(
            name,
            callback=callback,
            params=[*self.own, *map(flag, config.options())],
            help=help,
            context_settings={"max_content_width": HELP_WIDTH, "help_option_names": ["-h", "--help"]},
        )

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own = [param for param in [*self.own, self.get_help_option(ctx)] if isinstance(param, click.Option)]
        sections = [("Options", [row for param in own if (row := param.get_help_record(ctx))])] + [
            (section.capitalize(), [(_left(opt), _right(opt)) for opt in opts])
            for section, opts in groupby(config.options(), key=lambda opt: opt.section)
        ]
        for title, rows in sections:
            with formatter.section(title):
                formatter.write_dl(rows, col_max=36)


def _settings(said: Mapping[str, object], models: tuple[str, ...], file: Path | None) -> Config:
    """The settings in force; models that stand alone come before those after `-m`."""
    flags = {name: value for name, value in said.items() if value not in (None, ())}
    if models:
        named = said["model"]
        assert isinstance(named, tuple)
        flags["model"] = models + named
    return config.load(flags, file=file)


def flag(opt: Option) -> click.Option:
    """The option as click knows it. Its value stays as it was said; `config` checks it."""
    plain = opt.name.replace("_", "-")
    if opt.is_flag:
        return click.Option([opt.name, f"--{plain}/--no-{plain}"], default=None)
    names = [opt.name, *([opt.short] if opt.short else []), opt.long]
    return click.Option(names, multiple=opt.repeats)


def _left(opt: Option) -> str:
    names = ", ".join([opt.short, opt.shown] if opt.short else [opt.shown])
    return names if opt.is_flag else f"{names} {_metavar(opt)}"


def _metavar(opt: Option) -> str:
    if opt.is_bytes:
        return "SIZE"
    if opt.choices:
        return "WORD"
    match opt.default:
        case int() | float():
            return "N"
        case _:
            return "TEXT"


def _right(opt: Option) -> str:
    choices = ", ".join(filter(None, opt.choices))
    default = say_default(opt)
    return opt.help + (f": {choices}" if choices else "") + (f"  [{default}]" if default else "")


def say_default(opt: Option) -> str:
    """The default, as a user would say it; empty for nothing."""
    match opt.default:
        case bool():
            return str(opt.default).lower()
        case () | "":
            return ""
        case tuple():
            return ", ".join(map(str, opt.default))
        case int() if opt.is_bytes and opt.default:
            return format_bytes(opt.default)
        case _:
            return str(opt.default)
