"""`plait models`: the models on this machine that can be served without a download."""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import msgspec
from msgspec import Struct
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from plait import gguf
from plait.config import format_bytes
from plait.fleet.stores import Found, find_models

logger = logging.getLogger(__name__)


class Listed(Struct, frozen=True):
    """One line of the table."""

    name: str
    n_bytes: int
    n_params: int
    quantization: str
    where: str
    path: str


@click.command()
@click.option("--json", "as_json", is_flag=True, help="one JSON list instead of a table")
def command(as_json: bool) -> None:
    """List the models on this machine; each name may be given to plait serve -m."""
    listed = list(look(find_models()))
    if as_json:
        click.echo(msgspec.json.encode(listed))
    elif listed:
        Console().print(table(listed))
    else:
        click.echo(
            "No models here yet. plait serve -m hf:owner/repo fetches one; plait serve alone has its demo model."
        )


def look(models: Iterable[Found]) -> Iterator[Listed]:
    """What each model's header says; those that have none that makes sense are left out."""
    for model in models:
        try:
            header = gguf.skim(model.path)
            quantization = header.quantization
        except gguf.GGUFError as error:
            logger.warning("left out: %s", error)
        else:
            path = str(Path(model.path).absolute())
            yield Listed(model.name, header.n_file_bytes, header.n_params, quantization, model.where, path)


def table(listed: Iterable[Listed]) -> Table:
    """The list as a table, whose paths are never cut."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("name", "size", "parameters", "type", "where"):
        shown.add_column(title, justify="right" if title in ("size", "parameters") else "left")
    shown.add_column("path", overflow="fold")
    for model in listed:
        cells = (
            model.name,
            format_bytes(model.n_bytes),
            count(model.n_params),
            model.quantization,
            model.where,
            model.path,
        )
        shown.add_row(*map(Text, cells))
    return shown


def count(n: float) -> str:
    """`135 M`, `1.24 B`: three digits are enough to read."""
    for unit in ("", " k", " M", " B"):
        if n < 1000:
            return f"{n:.3g}{unit}"
        n /= 1000
    return f"{n:,.3g} T"
