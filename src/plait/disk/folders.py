"""The whole cache directory, seen from outside: what is there and how to be rid of it. Needs no model and no worker."""

import contextlib
import logging
import os
import re
import shutil
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec import Struct

from plait.disk import index as indexes
from plait.disk import segment
from plait.disk.claim import Claim
from plait.disk.record import folder_key
from plait.disk.store import Store
from plait.errors import NotFound

log = logging.getLogger("plait.disk")

_KEY = re.compile(rf"[0-9a-f]{{{len(folder_key())}}}")


class Folder(Struct, frozen=True):
    """What is kept for one model and all that must match."""

    key: str
    name: str
    """For people; the key again where the index does not tell."""
    n_files: int
    n_bytes: int
    last_used: float
    """Seconds since 1970."""
    path: str


def default_dir(env: Mapping[str, str] = os.environ) -> Path:
    """Where caches lie, unless it is said otherwise."""
    home = Path(env.get("HOME") or Path.home())
    return Path(env.get("XDG_CACHE_HOME") or home / ".cache") / "plait" / "segments"


def folders(cache_dir: Path) -> list[Folder]:
    """Those in which something is kept, the last used one first. Raises `OSError`."""
    found = (_look(path) for path in _folders(cache_dir))
    return sorted((folder for folder in found if folder.n_files), key=lambda folder: -folder.last_used)


def n_bytes(cache_dir: Path) -> int:
    """Of all files below the directory that are ours, indices and what is half written included."""
    return sum(info.st_size for path in _folders(cache_dir) for _, info in _files(path))


def clear(cache_dir: Path, which: str | None = None) -> list[Folder]:
    """Remove one folder, by its name, its key or how the key begins, or all of them; returns what was removed.

    A running server may go on using its folder: it finds it empty. Raises `NotFound` and `OSError`.
    """
    there = {path.name: _look(path) for path in _folders(cache_dir)}
    chosen = [folder for folder in there.values() if which is None or _is_meant(folder, which)]
    if which is not None and not chosen:
        raise NotFound(f"nothing is cached for {which} in {cache_dir}")
    for folder in chosen:
        _empty(Path(folder.path), folder.name)
    return [folder for folder in chosen if folder.n_files]


def _is_meant(folder: Folder, which: str) -> bool:
    return folder.name == which or (len(which) >= 4 and folder.key.startswith(which))


def _folders(cache_dir: Path) -> Iterator[Path]:
    with contextlib.suppress(FileNotFoundError), os.scandir(cache_dir) as entries:
        for entry in entries:
            if _KEY.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                yield Path(entry.path)


def _files(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                yield entry.name, entry.stat(follow_symlinks=False)


def _look(path: Path) -> Folder:
    files = [info for name, info in _files(path) if segment.id_of(name)]
    try:
        name, used = indexes.glance(path)
    except sqlite3.Error as error:
        log.debug("%s: %s", path, error)
        name, used = path.name, 0
    last_used = used / 1e6 or max((info.st_mtime for info in files), default=0.0)
    return Folder(path.name, name, len(files), sum(info.st_size for info in files), last_used, str(path.absolute()))


def _empty(path: Path, name: str) -> None:
    """Remove the folder, or what is in it while somebody is there."""
    with contextlib.suppress(FileNotFoundError), Claim(path) as claim:
        if claim.alone():
            shutil.rmtree(path)
            return
    store = Store(path, name, sys.maxsize, lambda _lost: None)
    try:
        store.clear(None)
    finally:
        store.close()
