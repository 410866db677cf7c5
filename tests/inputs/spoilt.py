"""Models that somebody has spoilt: seeded mutants of a GGUF file, and files that are wrong in one certain way."""

import os
import random
from collections.abc import Iterator
from pathlib import Path
from struct import calcsize, pack, unpack_from

import msgspec

from plait import gguf
from plait.fleet.registry import resolve

HUGE = (2**31 - 1, 2**31, 2**32 - 1, 2**60, 2**63 - 1, 2**63, 2**64 - 1)


class Places(msgspec.Struct, frozen=True):
    """Where in a header things stand that can be spoilt with purpose."""

    lengths: list[int]
    """Of 64-bit lengths of names."""
    kinds: list[int]
    """Of the types of values and of tensors."""
    end: int


def demo() -> bytes:
    return resolve("plait-demo").path.read_bytes()


def places(data: bytes) -> Places:
    header = gguf.skim(resolve("plait-demo").path)
    keys = [data.index(pack("<Q", len(key)) + key.encode()) for key in header.metadata]
    tensors = [data.index(pack("<Q", len(each.name)) + each.name.encode()) for each in header.tensors]
    kinds = [at + 8 + len(key) for at, key in zip(keys, header.metadata, strict=True)]
    for at, each in zip(tensors, header.tensors, strict=True):
        kinds.append(at + 8 + len(each.name) + 4 + 8 * len(each.shape))
    return Places([8, 16, *keys, *tensors], kinds, tensors[-1] + 64)


class Mutant(msgspec.Struct, frozen=True):
    """A spoilt header, and how long the file is. Its weights are zeros, which take no time to write."""

    header: bytes
    n_bytes: int

    def write(self, path: Path) -> None:
        path.write_bytes(self.header)
        os.truncate(path, self.n_bytes)


def mutants(n: int, seed: int = 0) -> Iterator[Mutant]:
    """So many files, each spoilt in one of four ways."""
    dice, whole = random.Random(seed), demo()
    where = places(whole)
    for i in range(n):
        data, n_bytes = bytearray(whole[: where.end]), len(whole)
        match i % 4:
            case 0:
                for _ in range(dice.randint(1, 8)):
                    data[dice.randrange(where.end)] ^= 1 << dice.randrange(8)
            case 1:
                n_bytes = dice.randrange(where.end if dice.random() < 0.8 else len(whole))
            case 2:
                at = dice.choice(where.lengths)
                data[at : at + 8] = pack("<Q", dice.choice(HUGE))
            case 3:
                at = dice.choice(where.kinds)
                data[at : at + 4] = pack("<I", dice.randrange(40))
        yield Mutant(bytes(data), n_bytes)


def with_number(key: str, layout: str, value: float) -> bytes:
    """The demo model with another number for a key."""
    data = bytearray(demo())
    at = data.index(pack("<Q", len(key)) + key.encode()) + 8 + len(key) + 4
    data[at : at + calcsize(layout)] = pack(layout, value)
    return bytes(data)


def with_splitter(name: bytes) -> bytes:
    """The demo model whose texts are cut into words by another regex, one with a name as long as its own."""
    data = demo()
    at = data.index(b"tokenizer.ggml.pre") + 18 + 4 + 8
    return data[:at] + name + data[at + len(b"gpt-2") :]


def with_tensor_type(name: str, n_dims: int, number: int) -> bytes:
    """The demo model in which a tensor claims to be of another type."""
    data = bytearray(demo())
    at = data.index(pack("<Q", len(name)) + name.encode()) + 8 + len(name) + 4 + 8 * n_dims
    data[at : at + 4] = pack("<I", number)
    return bytes(data)


def with_a_token_twice() -> bytes:
    """The demo model in whose vocabulary two tokens are spelled alike: libllama ends its process over that."""
    data = bytearray(demo())
    at = data.index(b"tokenizer.ggml.tokens") + 21 + 16
    letters: list[int] = []
    while len(letters) < 2:
        (n,) = unpack_from("<Q", data, at)
        letters += [at + 8] * (n == 1)
        at += 8 + n
    data[letters[1]] = data[letters[0]]
    return bytes(data)


def with_weights_of_ones() -> bytes:
    """The demo model after its header: nothing but set bits, which are no numbers."""
    data = demo()
    n_bytes = gguf.skim(resolve("plait-demo").path).n_tensor_bytes
    return data[: len(data) - n_bytes] + b"\xff" * n_bytes
