"""`plait cache`: what the prefix cache keeps on disk, and how to be rid of it."""

import time
from collections.abc import Iterable
from pathlib import Path

import click
import msgspec
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from plait import config, disk
from plait.config import format_bytes
from plait.disk import Folder

_where = click.option(
    "--cache-dir",
    "cache_dir",
    metavar="DIR",
    help="what plait serve was given; default: PLAIT_CACHE_DIR, or plait/segments in the user's cache",
)


@click.group()
def command() -> None:
    """Look at what the prefix cache keeps on disk, and clear it."""


@command.command("list")
@_where
@click.option("--json", "as_json", is_flag=True, help="one JSON list instead of a table")
def show(cache_dir: str | None, as_json: bool) -> None:
    """List the models for which something is kept, the last used one first."""
    folders = disk.folders(place(cache_dir))
    if as_json:
        click.echo(msgspec.json.encode(folders))
    elif folders:
        Console().print(table(folders, time.time()))
    else:
        click.echo(f"Nothing is cached in {place(cache_dir)}.")


@command.command()
@_where
def size(cache_dir: str | None) -> None:
    """Say how much room the cache takes on disk."""
    click.echo(format_bytes(disk.n_bytes(place(cache_dir))))


@command.command()
@click.argument("name", required=False)
@_where
def clear(name: str | None, cache_dir: str | None) -> None:
    """Remove what is kept for NAME (a name or a key from the list), or everything.

    A server that runs goes on, and computes again what it no longer finds.
    """
    cleared = disk.clear(place(cache_dir), name)
    n_bytes = sum(folder.n_bytes for folder in cleared)
    n_files = sum(folder.n_files for folder in cleared)
    click.echo(f"Removed {n_files} {'file' if n_files == 1 else 'files'}, {format_bytes(n_bytes)}.")


def place(said: str | None) -> Path:
    """The directory that was said, by flag or by variable, or the default."""
    chosen = config.load({"cache_dir": said} if said else {}).engine.cache_dir
    return Path(chosen).expanduser() if chosen else disk.default_dir()


def table(folders: Iterable[Folder], now: float) -> Table:
    """The list as a table. `now` is in seconds since 1970."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("name", "files", "size", "last used"):
        shown.add_column(title, justify="right" if title in ("files", "size") else "left", overflow="fold")
    shown.add_column("key", no_wrap=True)
    for folder in folders:
        cells = folder.name, str(folder.n_files), format_bytes(folder.n_bytes), ago(now - folder.last_used)
        shown.add_row(*map(Text, (*cells, folder.key[:12])))
    return shown


def ago(seconds: float) -> str:
    """`just now`, `5 minutes ago`, `3 days ago`."""
    for n_seconds, unit in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if (n := int(seconds // n_seconds)) > 0:
            return f"{n} {unit}{'s' if n > 1 else ''} ago"
    return "just now"
