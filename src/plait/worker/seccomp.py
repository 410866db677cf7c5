"""seccomp: system calls given up for good, by all threads at once. For what Landlock does not know: sockets of every
kind, other processes' memory, and whose a file is.
"""

import ctypes
import errno
import os
import platform
import struct
from typing import NamedTuple

_SET_MODE_FILTER = 1
_ALL_THREADS, _AT_FULL_SPEED = 1, 4
"""Flags. Before Linux 5.16, a filter without the second turns off some of the processor's speculation."""

_LOAD, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
"""Instructions of the kernel's packet filter, which is the language of these filters."""
_NUMBER_AT, _ARCHITECTURE_AT = 0, 4
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM
_FOREIGN_NUMBERS = 0x40000000
"""From here on, x86 understands numbers as those of another interface."""


class Machine(NamedTuple):
    """An architecture: what the kernel calls it, and what it calls what a worker does not need."""

    audit: int
    seccomp: int
    network: tuple[int, ...]
    """socket, connect, accept, accept4, bind, listen, io_uring_setup."""
    programs: tuple[int, ...]
    """execve, execveat, ptrace, process_vm_readv, process_vm_writev, pidfd_getfd."""
    owners: tuple[int, ...]
    """fchmod, fchmodat, fchmodat2, fchown, fchownat; chmod, chown and lchown where there are such calls."""


MACHINES = {
    "x86_64": Machine(
        0xC000003E,
        317,
        (41, 42, 43, 288, 49, 50, 425),
        (59, 322, 101, 310, 311, 438),
        (91, 268, 452, 93, 260, 90, 92, 94),
    ),
    "aarch64": Machine(
        0xC00000B7,
        277,
        (198, 203, 202, 242, 200, 201, 425),
        (221, 281, 117, 270, 271, 438),
        (52, 53, 452, 55, 54),
    ),
}
"""By `platform.machine()`."""


def forbid() -> bool:
    """No more sockets, programs or other processes. False: not on this machine. Raises `OSError`.

    The process must have said that it wants no new privileges.
    """
    machine = MACHINES.get(platform.machine())
    if machine is None:
        return False
    code = program(machine)
    buffer = ctypes.create_string_buffer(code)
    header = struct.pack("HL", len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(ctypes.c_long(machine.seccomp), _SET_MODE_FILTER, _ALL_THREADS | _AT_FULL_SPEED, header):
        error = ctypes.get_errno() or errno.ESRCH  # instead of an error, the id of a thread that has other filters
        raise OSError(error, os.strerror(error))
    return True


def program(machine: Machine) -> bytes:
    """The filter: what is forbidden fails with EPERM, everything else goes on as it did."""
    forbidden = machine.network + machine.programs + machine.owners
    n_left = len(forbidden)
    return b"".join(
        [
            _instruction(_LOAD, 0, 0, _ARCHITECTURE_AT),
            _instruction(_IF_EQUAL, 0, n_left + 3, machine.audit),
            _instruction(_LOAD, 0, 0, _NUMBER_AT),
            _instruction(_IF_AT_LEAST, n_left + 1, 0, _FOREIGN_NUMBERS),
            *(_instruction(_IF_EQUAL, n_left - i, 0, number) for i, number in enumerate(forbidden)),
            _instruction(_RETURN, 0, 0, _ALLOW),
            _instruction(_RETURN, 0, 0, _REFUSE),
        ]
    )


def _instruction(code: int, if_true: int, if_false: int, operand: int) -> bytes:
    """`if_true` and `if_false`: how many instructions to leave out."""
    return struct.pack("=HBBI", code, if_true, if_false, operand)
