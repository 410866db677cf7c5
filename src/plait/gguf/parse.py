"""From a path to a header, in milliseconds and without touching the weights; or to a `GGUFError`, as quickly."""

import math
import re
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from plait.gguf import bitnet
from plait.gguf.bitnet import Entry
from plait.gguf.cursor import Cursor, GGUFError, Unreadable, Value
from plait.gguf.header import Header, Tensor, is_whole
from plait.gguf.types import TYPES

T = TypeVar("T")

MAX_ENTRIES = 100_000
"""Metadata keys, and tensors."""
MAX_NAME = 64
MAX_DIMS = 4

SPLIT = re.compile(r"(?P<stem>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})\.gguf")
"""The name of one part of a split model."""


def skim(path: Path) -> Header:
    """The header of the model at `path`, which is the first part when there are several. Raises `GGUFError`."""
    first = _skim_file(path)
    n_parts = first.number("split.count", 1)
    if n_parts <= 1:
        return first
    parts = [first, *(_skim_file(part) for part in part_paths(path, n_parts)[1:])]
    return Header(
        path=path,
        version=first.version,
        metadata=first.metadata,
        tensors=[tensor for part in parts for tensor in part.tensors],
        data_offset=first.data_offset,
        n_file_bytes=sum(part.n_file_bytes for part in parts),
    )


def part_paths(path: Path, n_parts: int) -> list[Path]:
    """The files of a split model, of which `path` is the first."""
    named = SPLIT.fullmatch(path.name)
    if not named or int(named["count"]) != n_parts:
        raise GGUFError(f"{path}: one of {n_parts} parts, but not named -00001-of-{n_parts:05}.gguf")
    if int(named["index"]) != 1:
        raise GGUFError(f"{path}: part {int(named['index'])} of {n_parts}; the first part stands for all of them")
    return [path.with_name(f"{named['stem']}-{i:05}-of-{n_parts:05}.gguf") for i in range(1, n_parts + 1)]


def files(path: Path) -> list[Path]:
    """Where a model lies whose first part is at `path`, going by the names alone."""
    named = SPLIT.fullmatch(path.name)
    others = part_paths(path, int(named["count"]))[1:] if named and int(named["index"]) == 1 else []
    return [path, *(part for part in others if part.exists())]


def _skim_file(path: Path) -> Header:
    return read(path, partial(parse, path))


def read(path: Path, take: Callable[[Cursor], T]) -> T:
    """What `take` makes of an open file. Whatever is wrong with it is a `GGUFError` that begins with its path, and an
    `Unreadable` where that is the system's fault."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise GGUFError("not a file")
        with path.open("rb", buffering=0) as file:
            return take(Cursor(file, found.st_size))
    except FileNotFoundError as error:
        raise GGUFError(f"{path}: {error.strerror}") from error
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise GGUFError(f"{str(path)!r}: {error}") from error
    except GGUFError as error:
        raise GGUFError(f"{path}: {error}") from error


def parse(path: Path, cursor: Cursor) -> Header:
    """The header of the file that `cursor` stands at the beginning of; behind it, when it has been read."""
    version = _version(cursor)
    n_tensors, n_entries = cursor.u64(), cursor.u64()
    if max(n_tensors, n_entries) > MAX_ENTRIES:
        raise GGUFError(f"{n_tensors} tensors and {n_entries} metadata keys; {MAX_ENTRIES} is the most of each")
    metadata = _metadata(cursor, n_entries)
    alignment = _alignment(metadata)
    entries = [_entry(cursor) for _ in range(n_tensors)]
    bitnet.refuse_tables(metadata.get("general.architecture"), entries)
    tensors = [_tensor(entry, alignment) for entry in entries]
    if len({tensor.name for tensor in tensors}) < n_tensors:
        raise GGUFError("two tensors have the same name")
    begin = -(-cursor.at // alignment) * alignment
    for tensor in tensors:
        if (end := begin + tensor.offset + tensor.n_bytes) > cursor.size:
            raise GGUFError(f"truncated: {tensor.name} would go on to byte {end}, the file ends at {cursor.size}")
    return Header(
        path=path,
        version=version,
        metadata=metadata,
        tensors=tensors,
        data_offset=begin,
        n_file_bytes=cursor.size,
    )


def _version(cursor: Cursor) -> int:
    if cursor.size < 4 or cursor.u32() != int.from_bytes(b"GGUF", "little"):
        raise GGUFError("not a GGUF file")
    version = cursor.u32()
    if version and version & 0xFFFF == 0:
        raise GGUFError("a big-endian GGUF file, which this machine cannot run")
    if version not in (2, 3):
        raise GGUFError(f"GGUF version {version}; only 2 and 3 can be read")
    return version


def _metadata(cursor: Cursor, n: int) -> dict[str, Value]:
    metadata: dict[str, Value] = {}
    for _ in range(n):
        key = cursor.string()
        if not key or key in metadata:
            raise GGUFError(f"its metadata has the key {key!r} twice" if key else "its metadata has an empty key")
        metadata[key] = cursor.value(cursor.u32())
    return metadata


def _alignment(metadata: dict[str, Value]) -> int:
    value = metadata.get("general.alignment", 32)
    if not is_whole(value) or value <= 0 or value & (value - 1):
        raise GGUFError(f"general.alignment is {value!r}, not a power of two")
    return value


def _entry(cursor: Cursor) -> Entry:
    name = cursor.string()
    n_dims = cursor.u32()
    if len(name) >= MAX_NAME or not name.isprintable() or n_dims > MAX_DIMS:
        raise GGUFError(f"a tensor with {n_dims} dimensions and the name {name[:MAX_NAME]!r}")
    return Entry(name, tuple(cursor.u64() for _ in range(n_dims)), cursor.u32(), cursor.u64())


def _tensor(entry: Entry, alignment: int) -> Tensor:
    name, shape, number, offset = entry
    kind = TYPES.get(number)
    if kind is None:
        raise GGUFError(f"{name} is of type {number}, which llama.cpp does not know")
    if 0 in shape:
        raise GGUFError(f"{name} has a dimension of 0")
    if (shape or (1,))[0] % kind.n_block:
        raise GGUFError(f"{name} has rows of {shape[0]} numbers, not of whole {kind.name} blocks of {kind.n_block}")
    if offset % alignment:
        raise GGUFError(f"{name} begins at {offset}, not at a multiple of {alignment}")
    n_elements = math.prod(shape)
    return Tensor(name, shape, kind.name, offset, n_elements, kind.size(n_elements))
