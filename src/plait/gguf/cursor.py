"""Reads a GGUF header's values one after another, and believes no length before it is held against the file's size.

A cursor is owned by the one call that reads a file. What is long is passed over and not kept.
"""

from dataclasses import dataclass, field
from io import FileIO
from struct import Struct as Layout
from struct import calcsize

from msgspec import Struct

from plait.errors import ModelLoadFailed

MAX_HEADER = 256 * 1024**2
"""Bytes. Vocabularies of 262,144 tokens make headers of about 16 MiB."""
MAX_STRINGS = 8_000_000
"""In all arrays together."""
MAX_KEPT = 1024
"""Longer arrays are passed over; per-layer numbers are shorter."""

_CHUNK = 1024**2
_U32, _U64 = Layout("<I"), Layout("<Q")
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Metadata types by their number, as `struct` spells them."""
_STRING, _ARRAY = 8, 9


class GGUFError(ModelLoadFailed):
    """Not a GGUF file that can be read; the message begins with its path."""


class Unreadable(GGUFError):
    """Of the file nothing is known: the system did not let us read it."""


class Array(Struct, frozen=True):
    """An array that was passed over."""

    n: int


Value = str | int | float | bool | tuple[int | float | bool, ...] | Array


@dataclass(slots=True, eq=False)
class Cursor:
    """A place in the file's first bytes. Reads as far on as it is asked to, but never past the end."""

    file: FileIO
    size: int
    data: bytearray = field(default_factory=bytearray)
    at: int = 0
    n_strings: int = 0

    def reach(self, end: int) -> None:
        """Have the bytes up to `end` at hand."""
        if end > self.size:
            raise GGUFError(f"its header would go on to byte {end}, the file ends at {self.size}")
        if end > MAX_HEADER:
            raise GGUFError(f"its header is longer than {MAX_HEADER} bytes")
        while len(self.data) < end:
            more = self.file.read(max(end - len(self.data), _CHUNK))
            if not more:
                raise GGUFError("it became shorter while it was read")
            self.data += more

    def skip(self, n: int) -> int:
        """Pass over `n` bytes, which are then at hand; where they began."""
        begin = self.at
        self.reach(begin + n)
        self.at += n
        return begin

    def u32(self) -> int:
        (value,) = _U32.unpack_from(self.data, self.skip(4))
        return int(value)

    def u64(self) -> int:
        (value,) = _U64.unpack_from(self.data, self.skip(8))
        return int(value)

    def string(self) -> str:
        n = self.u64()
        begin = self.skip(n)
        return self.data[begin : begin + n].decode(errors="replace")

    def value(self, kind: int) -> Value:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self.array(self.u32(), self.u64())
        (value,) = self.numbers(kind, 1)
        return value

    def numbers(self, kind: int, n: int) -> tuple[int | float | bool, ...]:
        code = _SCALARS.get(kind)
        if code is None:
            raise GGUFError(f"its metadata has a value of type {kind}, which does not exist")
        layout = Layout(f"<{n}{code}")
        return layout.unpack_from(self.data, self.skip(layout.size))

    def array(self, kind: int, n: int) -> Value:
        """Short arrays of numbers are kept: some models have a number for each layer."""
        if kind == _STRING:
            self.skip_strings(n)
        elif kind not in _SCALARS:
            raise GGUFError(f"its metadata has an array of type {kind}, which does not exist")
        elif n <= MAX_KEPT:
            return self.numbers(kind, n)
        else:
            self.skip(n * calcsize(f"<{_SCALARS[kind]}"))
        return Array(n)

    def skip_strings(self, n: int) -> None:
        """Hot: vocabularies have hundreds of thousands."""
        self.n_strings += n
        if self.n_strings > MAX_STRINGS:
            raise GGUFError(f"its metadata has more than {MAX_STRINGS} texts")
        length, data, at, known = _U64.unpack_from, self.data, self.at, len(self.data) - 8
        for _ in range(n):
            if at > known:
                self.reach(at + 8)
                known = len(data) - 8
            at += 8 + length(data, at)[0]
        self.reach(at)
        self.at = at
