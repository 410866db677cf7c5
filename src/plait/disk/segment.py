"""One file of the disk tier: header, record, payload; written whole or not at all, read whole or not at all.

    magic, version, bytes of the record, bytes of the payload, digest of the record, digest of the payload
    the record, as msgpack
    the payload

Both digests begin with the name of the folder, which is the key of model, build, KV types and adapters: a file that was
carried into another folder is as bad there as one with a flipped bit. SHA-256, because processors have instructions for
it: where BLAKE2b was measured beside it, it was 2.5 times slower.
"""

import hashlib
import os
import re
import secrets
import stat
import struct
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from plait.disk import record as records
from plait.disk.record import FORMAT, ID_BYTES, Record

_HEADER = struct.Struct("<8sIIQ32s32s")
_MAGIC = b"plait kv"
_PIECE = 1 << 20
"""Bytes that are read and hashed at once: they are still in the processor's cache when they are hashed."""
_NAME = re.compile(rf"([0-9a-f]{{{2 * ID_BYTES}}})\.kv")
TEMPORARY = ".tmp"


class BadSegment(ValueError):
    """A file that is not what its name and its digests say."""


class Sealed(NamedTuple):
    """A record as it is written down, and what proves that it was not changed."""

    packed: bytes
    digest: bytes


def name_of(id: bytes) -> str:
    return f"{id.hex()}.kv"


def id_of(name: str) -> bytes | None:
    """None: a file of that name is not a segment."""
    found = _NAME.fullmatch(name)
    return bytes.fromhex(found[1]) if found else None


def seal(key: str, record: Record) -> Sealed:
    packed = records.encode(record)
    return Sealed(packed, hashlib.sha256(f"{key} record ".encode() + packed).digest())


def unseal(key: str, sealed: Sealed) -> Record:
    """Raises `BadSegment` unless it was sealed in the folder of that key."""
    if hashlib.sha256(f"{key} record ".encode() + sealed.packed).digest() != sealed.digest:
        raise BadSegment("the record does not match its digest")
    try:
        return records.decode(sealed.packed)
    except ValueError as error:
        raise BadSegment(str(error)) from error


def n_bytes(record: Record) -> int:
    """Of the whole file."""
    return _HEADER.size + len(records.encode(record)) + record.n_bytes


def save(folder: Path, record: Record, payload: Sequence[memoryview]) -> None:
    """Afterwards the file is there, whatever happens to the machine. Raises `OSError`, and then it is not there.

    The payload is bytes, and must not change meanwhile.
    """
    temporary = folder / f"{record.id.hex()}-{secrets.token_hex(4)}{TEMPORARY}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        with open(os.open(temporary, flags, 0o600), "wb", buffering=0) as file:
            _write(file, memoryview(_head(folder.name, record, payload)))
            for part in payload:
                _write(file, part)
            os.fsync(file.fileno())
        os.replace(temporary, folder / name_of(record.id))
    finally:
        temporary.unlink(missing_ok=True)
    sync(folder)


def sync(folder: Path) -> None:
    """The names in the folder are as durable as the files."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def skim(path: Path) -> Sealed:
    """The record alone, for an index. Raises `BadSegment` when the file cannot be one, and `OSError`."""
    with _open(path) as file:
        sealed, _ = _begin(file, path)
    return sealed


def load(path: Path) -> tuple[Record, bytearray]:
    """The record and the payload. Raises `BadSegment` unless both are what was written, and `OSError`.

    The bytes that were checked are those that are handed out: nothing is mapped. A mapped file that somebody cuts short
    would end the process with SIGBUS, and one that somebody writes to would change after it was checked.
    """
    with _open(path) as file:
        sealed, digest = _begin(file, path)
        record = unseal(path.parent.name, sealed)
        hashed = _payload_hash(sealed)
        payload = bytearray(record.n_bytes)
        view = memoryview(payload)
        while view:
            n = file.readinto(view[:_PIECE])
            if not n:
                raise BadSegment("the file is cut short")
            hashed.update(view[:n])
            view = view[n:]
    if hashed.digest() != digest:
        raise BadSegment("the payload does not match its digest")
    return record, payload


def _head(key: str, record: Record, payload: Sequence[memoryview]) -> bytes:
    sealed = seal(key, record)
    hashed = _payload_hash(sealed)
    for part in payload:
        hashed.update(part)
    sizes = len(sealed.packed), record.n_bytes
    return _HEADER.pack(_MAGIC, FORMAT, *sizes, sealed.digest, hashed.digest()) + sealed.packed


def _payload_hash(sealed: Sealed) -> "hashlib._Hash":
    return hashlib.sha256(b"payload " + sealed.digest)


def _write(file: FileIO, part: memoryview) -> None:
    while part:
        part = part[file.write(part) :]


def _open(path: Path) -> FileIO:
    """Only files: a pipe or a link of that name is neither waited for nor followed."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    file = FileIO(fd, "rb") if stat.S_ISREG(os.fstat(fd).st_mode) else None
    if file is None:
        os.close(fd)
        raise BadSegment("not a file")
    return file


def _begin(file: FileIO, path: Path) -> tuple[Sealed, bytes]:
    """The record and the payload's digest. No length is believed before it is held against the file's size."""
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size:
        raise BadSegment("the file is cut short")
    magic, version, n_record, n_payload, digest, payload_digest = _HEADER.unpack(header)
    if (magic, version) != (_MAGIC, FORMAT):
        raise BadSegment("not a segment of this version")
    if _HEADER.size + n_record + n_payload != os.fstat(file.fileno()).st_size:
        raise BadSegment("the file is not as long as it should be")
    sealed = Sealed(file.read(n_record), digest)
    record = unseal(path.parent.name, sealed)
    if name_of(record.id) != path.name or record.n_bytes != n_payload:
        raise BadSegment("the record is another file's")
    return sealed, payload_digest
