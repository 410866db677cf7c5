"""`plait settings`: the reference page of all settings, docs/config.md, from their declarations in `config`."""

from itertools import groupby

import click

from plait import config
from plait.cli.options import say_default
from plait.config import Option

HEAD = """\
# Settings

Each setting can be said in three ways. A flag wins over an environment variable, that over the file given with
`--config` (or `PLAIT_CONFIG`), that over the default. An empty variable says nothing. A list is separated by commas
in a variable, is a list in TOML, and its flag is repeated. Sizes are written as `512MiB` or `8GiB`, or in bytes.

```toml
[models]
model = ["hf:ggml-org/SmolLM2-135M-Instruct-GGUF:Q8_0"]

[engine]
ctx_size = 4096

[server]
port = 8080
```

This page is written by `plait settings > docs/config.md`.
"""


@click.command()
def command() -> None:
    """Print the reference page of all settings."""
    click.echo(page(), nl=False)


def page() -> str:
    """docs/config.md."""
    sections = [
        f"\n## [{section}]\n\n| flag | variable | default | may be | what it does |\n|---|---|---|---|---|\n"
        + "".join(map(_row, opts))
        for section, opts in groupby(config.options(), key=lambda opt: opt.section)
    ]
    return HEAD + "".join(sections)


def _row(opt: Option) -> str:
    flags = ", ".join(f"`{flag}`" for flag in (opt.short, opt.shown) if flag)
    default = say_default(opt)
    cells = [flags, f"`{opt.variable}`", f"`{default}`" if default else "", opt.expected, opt.help]
    return "| " + " | ".join(cells) + " |\n"
