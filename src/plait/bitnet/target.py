"""Where a conversion's file comes to be: whole or not at all, and once, whoever else wants it at the same time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from plait.bitnet.convert import Conversion, Tell
from plait.config import BitNetHead, I2SLayout
from plait.errors import ModelLoadFailed


def convert(source: Path, target: Path, head: BitNetHead, layout: I2SLayout, tell: Tell) -> None:
    """Makes `target` of `source`, unless it is there. Raises `ModelLoadFailed`."""
    with Conversion(source, head, layout) as conversion:
        try:
            with _part(target) as file:
                if file is not None:
                    os.posix_fallocate(file.fileno(), 0, conversion.n_bytes)
                    conversion.write(file, tell)
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise ModelLoadFailed(f"{source} cannot be converted to {target}: {error.strerror}") from error


@contextmanager
def _part(target: Path) -> Iterator[BinaryIO | None]:
    """A file that becomes `target` when the block ends well; None when the target is there.

    Only one process at a time has it: the others wait. One that was left half done is begun anew.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    with _locked(part) as file:
        if target.exists():
            part.unlink()
            yield None
            return
        file.truncate(0)
        try:
            yield file
        except BaseException:
            part.unlink()
            raise
        part.rename(target)
        _sync(target.parent)


def _locked(path: Path) -> BinaryIO:
    """The file at `path`, made if it is not there, when nobody else has it. Closing it lets the next one have it."""
    while True:
        file = open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "r+b")
        fcntl.flock(file, fcntl.LOCK_EX)
        if _is_at(path, file):
            return file
        file.close()  # who had it before has renamed or removed it


def _is_at(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
