"""What the disk's thread tells the engine's."""

from typing import Literal

from msgspec import Struct

from plait.disk.record import Record

Why = Literal["evicted", "cleared", "gone", "bad", "refused", "failed"]
"""`gone`: another process or a person removed it, or it cannot be read; `bad`: it is not what was written, or of
no use; `refused`: it was not written, being too large, or because what comes before it is not there; `failed`: the disk
did not let us write it, and may later."""


class Written(Struct, frozen=True):
    """It is on disk now, or was already. `record` is what lies there: another process may have given it other parents,
    or another `n_exact`."""

    record: Record


class Read(Struct, frozen=True):
    """The payload, which is exactly what was written, and the record that was written with it."""

    record: Record
    payload: bytearray


class Lost(Struct, frozen=True):
    """These are not on disk, or are of no use there: with a file goes all that hangs on it."""

    ids: tuple[bytes, ...]
    why: Why


Result = Written | Read | Lost
