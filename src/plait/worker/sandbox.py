"""The worker drops what it does not need before it touches a stranger's file: files but its own, network, programs.

What the kernel does not offer is left out, and the gateway is told what holds. Nothing here can be taken back.
"""

import ctypes
import logging
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import plait
from plait import gguf
from plait.config import parse_adapter
from plait.llama import lib
from plait.protocol import Load, Protection
from plait.worker import landlock, seccomp
from plait.worker.storage import Storage

_SET_DUMPABLE, _SET_NO_NEW_PRIVILEGES = 4, 38
"""Of `prctl`."""

SYSTEM = (
    "/usr",
    "/lib",
    "/lib64",
    "/nix/store",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/sys",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/self",
    "/proc/stat",
    "/proc/sys",
    "/dev/null",
    "/dev/zero",
    "/dev/random",
    "/dev/urandom",
)
"""What Python, OpenMP and libllama read while they run. Not all of /proc: it tells other processes' environments."""
GPUS = ("nvidia*", "kfd", "dri", "dxg")
"""In /dev. Their drivers read what they like, so with them all may be read."""

log = logging.getLogger("plait.worker")


def enter(load: Load, storage: Storage | None) -> tuple[Protection, ...]:
    """Drop what serving this model does not need; returns what holds from now on, for threads that start later, too.
    Of files, it can go on writing those of its storage.

    To be called while this is the process's only thread: files stay open to those that run already.
    """
    if sys.platform != "linux":
        return ()
    _prctl(_SET_NO_NEW_PRIVILEGES, 1)
    held = {*_restrict_files(load, storage), *_forbid_calls(), *_forbid_dumps()}
    return tuple(protection for protection in get_args(Protection) if protection in held)


def readable(load: Load) -> Iterator[str]:
    """What a worker without a GPU needs: its model, Python, and what the system says of itself."""
    yield from map(str, gguf.files(Path(load.path)))
    yield from (parse_adapter(spelling)[0] for spelling in load.engine.lora)
    yield from SYSTEM
    yield from {sys.prefix, sys.base_prefix, *plait.__path__, *sys.path}


def gpu_devices() -> list[str]:
    """Those that libllama can use."""
    found = [str(path) for pattern in GPUS for path in Path("/dev").glob(pattern)]
    return [*found, "/dev/shm"] if found and lib.can_offload() else []


def _restrict_files(load: Load, storage: Storage | None) -> Iterator[Protection]:
    devices = gpu_devices() if load.engine.n_gpu_layers else []
    n_threads = len(os.listdir("/proc/self/task"))
    if n_threads > 1:
        log.warning("%d threads run already, so files stay open to the worker", n_threads)
        return
    abi = landlock.version()
    if not abi:
        return
    try:
        landlock.restrict(
            abi,
            readable=["/"] if devices else readable(load),
            usable=devices,
            writable=[str(storage.folder)] if storage else [],
        )
    except OSError as error:
        log.warning("Landlock: %s", error.strerror)
        return
    yield "no programs"
    if abi >= landlock.FORBIDS_WRITING:
        yield "no writes"
    if not devices:
        yield "no foreign files"


def _forbid_calls() -> Iterator[Protection]:
    try:
        if seccomp.forbid():
            yield "no network"
            yield "no programs"
    except OSError as error:
        log.warning("seccomp: %s", error.strerror)


def _forbid_dumps() -> Iterator[Protection]:
    """A core file would hold what people asked and were told."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_SET_DUMPABLE, 0)
    yield "no core dumps"


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, *map(ctypes.c_ulong, (value, 0, 0, 0))):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
