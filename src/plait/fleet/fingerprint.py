"""Whether a model's files are still those that were loaded: a worker is replaced by one with the same weights, or not.

Knows what the file system says of a file, and not what is in it.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from msgspec import Struct

from plait import gguf
from plait.config import parse_adapter
from plait.errors import ModelChanged


class Fingerprint(Struct, frozen=True):
    """What differs when a file was written to, or another one took its place."""

    path: Path
    n_bytes: int
    mtime_ns: int
    inode: int


def take(model: Path) -> list[Fingerprint]:
    """Of all files of the model whose first part is `model`. Raises `ModelChanged` when one is out of reach."""
    return [_of(path) for path in gguf.files(model)]


def take_adapters(spellings: Iterable[str]) -> list[Fingerprint]:
    """Of LoRA adapters as the settings say them. Who loads one that is not there says so."""
    paths = (Path(parse_adapter(spelling)[0]) for spelling in spellings)
    return [_of(path) for path in paths if path.exists()]


def compare(loaded: Sequence[Fingerprint]) -> None:
    """Raises `ModelChanged` unless each file is as it was."""
    for before in loaded:
        if _of(before.path) != before:
            raise _changed(before.path)


def compare_mapped(loaded: Sequence[Fingerprint]) -> None:
    """Raises `ModelChanged` when a file was written to, so that who has mapped it computes with other bytes.

    One that was removed, or whose name was given to another, is still there for them.
    """
    for before in loaded:
        try:
            now = _of(before.path)
        except ModelChanged:
            continue
        if now.inode == before.inode and now != before:
            raise _changed(before.path)


def _changed(path: Path) -> ModelChanged:
    return ModelChanged(f"{path.name} has changed since it was loaded; unload the model and load it again")


def _of(path: Path) -> Fingerprint:
    try:
        found = path.stat()
    except OSError as error:
        raise ModelChanged(f"{path.name} is out of reach: {error.strerror}") from error
    return Fingerprint(path, found.st_size, found.st_mtime_ns, found.st_ino)
