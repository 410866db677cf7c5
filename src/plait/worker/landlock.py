"""Landlock: what a thread may do with files and TCP, given up for good. Linux 5.13 and later.

It holds for the calling thread and for those that it starts afterwards. What the kernel does not know is left out of
what is forbidden; `version` tells how much that is.
"""

import ctypes
import os
import stat
import struct
from collections.abc import Iterable

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""Numbers of system calls, the same on every architecture."""
_ASK_VERSION = 1
_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_FILE, _MAKE_FILE, _TRUNCATE, _IOCTL_DEV = (
    1 << bit for bit in (0, 1, 2, 3, 5, 8, 14, 15)
)
_READ = _READ_FILE | _READ_DIR
_USE = _READ | _WRITE_FILE | _IOCTL_DEV
_KEEP = _READ | _WRITE_FILE | _TRUNCATE | _MAKE_FILE | _REMOVE_FILE
"""What a folder of files needs that come and go."""
_OF_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
"""What can be allowed for something that is not a folder."""

_BIND_AND_CONNECT = 0b11
_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11

FORBIDS_WRITING, FORBIDS_TCP = 3, 4
"""The versions from which a file cannot be cut short either, and from which TCP can be forbidden."""

_libc = ctypes.CDLL(None, use_errno=True)


def version() -> int:
    """Of this kernel's Landlock; 0 when there is none."""
    try:
        return _call(_CREATE_RULESET, None, 0, _ASK_VERSION)
    except OSError:
        return 0


def restrict(abi: int, *, readable: Iterable[str], usable: Iterable[str], writable: Iterable[str] = ()) -> None:
    """From now on: of files, only reading what is under `readable`; reading, writing and controlling what is under
    `usable`; making, writing and removing files in the folders `writable`. No program can be started, and what `abi`
    offers beyond that is forbidden. Raises `OSError`."""
    rights = _file_rights(abi)
    attributes = struct.pack(
        "=QQQ",
        rights,
        _BIND_AND_CONNECT if abi >= FORBIDS_TCP else 0,
        _ABSTRACT_SOCKETS_AND_SIGNALS if abi >= 6 else 0,
    )
    ruleset = _call(_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for path in readable:
            _allow(ruleset, path, rights & _READ)
        for path in usable:
            _allow(ruleset, path, rights & _USE)
        for path in writable:
            _allow(ruleset, path, rights & _KEEP)
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _file_rights(abi: int) -> int:
    """All that a version knows: each has the bits of the one before."""
    n_bits = {1: 13, 2: 14, 3: 15, 4: 15}.get(abi, 16)
    return (1 << n_bits) - 1


def _allow(ruleset: int, path: str, rights: int) -> None:
    """Does nothing for a path that there is not."""
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= _OF_A_FILE
        _call(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, fd), 0)
    finally:
        os.close(fd)


def _call(number: int, *arguments: int | bytes | None) -> int:
    words = (ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments)
    result: int = _libc.syscall(ctypes.c_long(number), *words)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
