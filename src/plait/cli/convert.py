"""`plait convert IN OUT`: BitNet's I2_S file as one that llama.cpp computes with, by hand."""

import typing
from pathlib import Path

import click
from rich.console import Console

from plait.bitnet import target
from plait.cli.fetching import CONVERTING, progress
from plait.config import BitNetHead, I2SLayout

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(context_settings={"show_default": True})
@click.argument("source", metavar="IN", type=_FILE)
@click.argument("converted", metavar="OUT", type=_FILE)
@click.option(
    "--bitnet-head",
    type=click.Choice(typing.get_args(BitNetHead)),
    default="q8_0",
    help="What the output head is converted to; f16: as it is in the file, and slower.",
)
@click.option(
    "--i2s-layout",
    type=click.Choice(typing.get_args(I2SLayout)),
    default="x86",
    help="What kind of machine the file was quantized on; the official ones: x86.",
)
def command(source: Path, converted: Path, bitnet_head: BitNetHead, i2s_layout: I2SLayout) -> None:
    """Convert an I2_S file of bitnet.cpp's, IN, to one that llama.cpp computes with, OUT.

    plait serve -m IN does this by itself, and keeps the file in its cache.
    """
    if converted.exists():
        raise click.UsageError(f"there is a file {converted} already")
    with progress(Console(stderr=True), CONVERTING) as tell:

        def told(n_done: int, n_total: int) -> None:
            tell(source.name, n_done, n_total)

        target.convert(source, converted, bitnet_head, i2s_layout, told)
