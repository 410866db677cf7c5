"""Which model a file holds, told from a few megabytes of it: the key of what is kept about a model between runs.

The digest covers all metadata and the whole tensor table, the sizes of the files, and samples of the weights: blocks
spread evenly over each file, and a page in the middle of every tensor. Small models are read whole. It does not see a
change that lies between the samples. Two trainings, quantizations or conversions of a model differ everywhere, so they
have different digests; a few weights that were changed by hand, or a disk that rots, can go unseen. It proves nothing
against somebody who means to deceive.
"""

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from plait.gguf.cursor import Cursor, GGUFError
from plait.gguf.parse import files, parse, read

N_BLOCKS = 64
"""Sampled of a model's weights; shared by its files, if there are several."""
MIN_BLOCKS = 8
"""Sampled of each file's weights."""
BLOCK_BYTES = 64 * 1024
PAGE_BYTES = 4096
"""Sampled of each tensor's weights."""

_FORMAT = b"plait model digest 1"
_N_HEX = 32


def digest(path: Path) -> str:
    """32 hexadecimal digits for the model whose first file is at `path`. They do not depend on the files' names or
    dates. Raises `GGUFError` when a file cannot be read, or is no GGUF file."""
    whole = hashlib.sha256(_FORMAT)
    parts = files(path)
    n_blocks = max(MIN_BLOCKS, N_BLOCKS // len(parts))
    for part in parts:
        whole.update(read(part, partial(_digest_file, part, n_blocks)))
    return whole.hexdigest()[:_N_HEX]


def _digest_file(path: Path, n_blocks: int, cursor: Cursor) -> bytes:
    header = parse(path, cursor)
    n_header = cursor.at
    found = hashlib.sha256(b"%d %d " % (cursor.size, n_header))
    found.update(memoryview(cursor.data)[:n_header])
    for start, n in _spread(n_header, cursor.size, n_blocks):
        found.update(_sample(cursor, start, n))
    for tensor in header.tensors:
        n = min(PAGE_BYTES, tensor.n_bytes)
        found.update(_sample(cursor, header.data_offset + tensor.offset + (tensor.n_bytes - n) // 2, n))
    return found.digest()


def _spread(begin: int, end: int, n_blocks: int) -> Iterator[tuple[int, int]]:
    """Where blocks begin and how long they are: evenly from the first byte to the last, or all there is."""
    n_free = end - begin - n_blocks * BLOCK_BYTES
    if n_free <= 0:
        yield begin, end - begin
        return
    for index in range(n_blocks):
        yield begin + index * BLOCK_BYTES + index * n_free // (n_blocks - 1), BLOCK_BYTES


def _sample(cursor: Cursor, start: int, n: int) -> bytes:
    cursor.file.seek(start)
    data = cursor.file.read(n)
    if len(data) < n:
        raise GGUFError("it became shorter while it was read")
    return data
