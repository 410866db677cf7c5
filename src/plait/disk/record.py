"""What one file of the disk tier holds, and the names by which files and folders are found again. Pure."""

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta, Struct

FORMAT = 3
"""Of files and index. Part of a folder's key, so that two versions of Plait never meet in one folder."""
ID_BYTES = 16

if TYPE_CHECKING:
    Tokens = array[int]
else:  # an array's type takes no argument while a program runs
    Tokens = array

Part = str | int | float | Sequence[str]


class Record(Struct, frozen=True):
    """The KV of one range of tokens, on the path that leads to it.

    A child may begin within its parent's range: `parent.start < start <= parent.end`.
    """

    id: Annotated[bytes, Meta(min_length=ID_BYTES, max_length=ID_BYTES)]
    """`address()` of the range. It is the same in all processes, which is why a file is written once."""
    scope: str
    """The tenant, or "" for what all share, and the adapters where they are not those of the folder. Records of
    different scopes never meet."""
    parent: Annotated[bytes, Meta(max_length=ID_BYTES)]
    """The file that holds what comes right before; empty at position 0."""
    start: Annotated[int, Meta(ge=0)]
    """The position of the first token."""
    tokens: Tokens
    """Token ids (int32) of the range alone."""
    n_exact: Annotated[int, Meta(ge=0)]
    """How many of the first tokens carry the bits of a cold run; the disk tier only carries it."""
    n_bytes: Annotated[int, Meta(ge=0)]
    """Of the payload."""

    @property
    def end(self) -> int:
        """The position after the last token."""
        return self.start + len(self.tokens)

    @property
    def is_whole(self) -> bool:
        """Whether the fields can be true together."""
        return bool(self.tokens) and (len(self.parent) == ID_BYTES if self.start else not self.parent)

    def hangs_on(self, parent: "Record") -> bool:
        """Whether that record holds the token right before this one's first."""
        return self.parent == parent.id and self.scope == parent.scope and parent.start < self.start <= parent.end

    def says_the_same(self, other: "Record") -> bool:
        """Whether both are about the same tokens of the same text; another process may have hung it elsewhere."""
        return (self.id, self.scope, self.start, self.tokens) == (other.id, other.scope, other.start, other.tokens)


def tenant(scope: str) -> str:
    """Whose the records of a scope are. A tenant has one for each set of adapters, and each shape of whole states."""
    return scope.rpartition("\n")[2].partition(" ")[0]


def address(scope: str, tokens: Iterable[int], start: int) -> bytes:
    """The id of the range that begins at `start` and ends with the last of `tokens`, which are all from position 0."""
    hashed = hashlib.sha256(msgspec.msgpack.encode((FORMAT, scope, start)))
    hashed.update(array("i", tokens))
    return hashed.digest()[:ID_BYTES]


def folder_key(**parts: Part) -> str:
    """The name of the folder for everything that must match, such as model, build, KV types and adapters."""
    return hashlib.sha256(msgspec.msgpack.encode((FORMAT, sorted(parts.items())))).hexdigest()[:32]


def encode(record: Record) -> bytes:
    return _encoder.encode(record)


def decode(packed: bytes) -> Record:
    """Raises `ValueError` when these are not the bytes of a record."""
    record = _decoder.decode(packed)
    if not record.is_whole:
        raise ValueError("a record that contradicts itself")
    return record


def _pack(value: Any) -> bytes:
    assert isinstance(value, array)
    return value.tobytes()


def _unpack(_kind: type, packed: Any) -> Tokens:
    tokens = array("i")
    tokens.frombytes(packed)
    return tokens


_encoder = msgspec.msgpack.Encoder(enc_hook=_pack)
_decoder = msgspec.msgpack.Decoder(Record, dec_hook=_unpack)
