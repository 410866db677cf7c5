"""libllama itself: started once per process, checked against the version that this package was written for, and quiet.

The only file that imports the binding; the rest of `llama` takes `native` from here. Owns what libllama has one of
per process: its log, which goes to the logger `plait.llama`, and its last words before an abort, which go to standard
error. Knows nothing of models and contexts.
"""

import ctypes
import functools
import importlib.metadata
import importlib.util
import logging
import os
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

from msgspec import Struct


@contextmanager
def _without_its_package(name: str) -> Iterator[None]:
    """In the block, modules of a package are imported, and the package is not. This one would bring a model class of
    its own with it, and a cache whose files are pickles: memory and start-up time that nothing is gained for."""
    spec = importlib.util.find_spec(name)
    if name in sys.modules or spec is None:
        yield
        return
    sys.modules[name] = bare = types.ModuleType(name)
    bare.__path__ = list(spec.submodule_search_locations or ())
    try:
        yield
    finally:
        del sys.modules[name]


with _without_its_package("llama_cpp"):
    import llama_cpp.llama_cpp as native

__all__ = [
    "CACHE_TYPES",
    "BuildInfo",
    "SamplerPointer",
    "WrongLibrary",
    "build_info",
    "can_offload",
    "errors_heard",
    "native",
    "start",
]

BINDING_VERSION = "0.3.36"
LIBRARY_VERSION = "0.5.0"
"""The structs that the binding passes are laid out for this libllama, and nothing tells when they do not fit."""

CACHE_TYPES = {
    "f32": native.GGML_TYPE_F32,
    "f16": native.GGML_TYPE_F16,
    "bf16": 30,  # GGML_TYPE_BF16, which the binding leaves out
    "q8_0": native.GGML_TYPE_Q8_0,
    "q5_1": native.GGML_TYPE_Q5_1,
    "q5_0": native.GGML_TYPE_Q5_0,
    "q4_1": native.GGML_TYPE_Q4_1,
    "q4_0": native.GGML_TYPE_Q4_0,
    "iq4_nl": native.GGML_TYPE_IQ4_NL,
}
"""ggml's numbers for `config.CacheType`."""

NUMA_STRATEGIES = {"": 0, "distribute": 1, "isolate": 2, "numactl": 3}
"""ggml's numbers for `config.Engine.numa`."""

SamplerPointer: TypeAlias = "ctypes._Pointer[native.llama_sampler]"
"""A native sampler; false when libllama made none."""

_CONTINUED = 5
_LEVELS = {1: logging.DEBUG, 2: logging.DEBUG, 3: logging.WARNING, 4: logging.ERROR}
"""ggml's log levels in ours: what it calls information is chatter to whoever runs a server."""

_STANDARD_ERROR = 2

_logger = logging.getLogger("plait.llama")


class WrongLibrary(RuntimeError):
    """The installed libllama is not the one that this package was written for."""


class BuildInfo(Struct, frozen=True):
    """What computes: part of the key of everything that is stored for later."""

    binding: str
    library: str
    features: str
    """The instruction sets and options that the kernels were built with."""
    can_offload: bool


class NativeLog:
    """Puts libllama's fragments together into lines. Called by whichever thread is inside libllama."""

    def __init__(self) -> None:
        self._line = ""
        self._level = logging.DEBUG
        self._errors: list[str] | None = None

    def hear(self, level: int, text: bytes | None, _data: object) -> None:
        """libllama's log callback."""
        if level != _CONTINUED:
            self._flush()
            self._level = _LEVELS.get(level, logging.DEBUG)
        *lines, self._line = (self._line + (text or b"").decode("utf-8", "replace")).split("\n")
        for line in lines:
            self._write(line)

    @contextmanager
    def errors(self) -> Iterator[list[str]]:
        """Collects the error lines of the calls made inside."""
        self._errors = []
        try:
            yield self._errors
        finally:
            self._flush()
            self._errors = None

    def _flush(self) -> None:
        self._write(self._line)
        self._line = ""

    def _write(self, line: str) -> None:
        line = line.rstrip()
        if not line:
            return
        if self._level == logging.ERROR and self._errors is not None:
            self._errors.append(line)
        _logger.log(self._level, "%s", line)


_log = NativeLog()
_log_callback = native.llama_log_callback(_log.hear)

errors_heard = _log.errors


def _last_words(message: bytes) -> None:
    """Says why libllama ends the process. Nothing but a write: whoever holds a lock now holds it forever."""
    line = b"plait: libllama aborts: " + b" ".join(message.split()) + b"\n"
    os.write(_STANDARD_ERROR, line)


_abort_callback = ctypes.CFUNCTYPE(None, ctypes.c_char_p)(_last_words)


@functools.cache
def start(numa: str) -> None:
    """Makes libllama ready. Does nothing when it is."""
    check_version(importlib.metadata.version("llama-cpp-python"), library_version())
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")  # an abort would run a debugger for seconds before it ends
    native.llama_log_set(_log_callback, ctypes.c_void_p(0))
    native._lib.ggml_set_abort_callback(_abort_callback)
    native.llama_backend_init()
    native.llama_numa_init(NUMA_STRATEGIES[numa])


def check_version(binding: str, library: str) -> None:
    """Raises `WrongLibrary` unless both are those that were tested together."""
    if binding != BINDING_VERSION or library.partition("-")[0] != LIBRARY_VERSION:
        raise WrongLibrary(
            f"llama-cpp-python {binding} with libllama {library} is installed;"
            f" this needs {BINDING_VERSION} with {LIBRARY_VERSION}"
        )


def library_version() -> str:
    version: bytes = native.llama_version()
    return version.decode()


def build_info() -> BuildInfo:
    """Which binding, library and kernels this process computes with."""
    start("")
    features: bytes = native.llama_print_system_info()
    return BuildInfo(
        binding=BINDING_VERSION,
        library=library_version(),
        features=features.decode().strip(" |"),
        can_offload=can_offload(),
    )


def can_offload() -> bool:
    """Whether libllama was built for GPUs, too."""
    answer: bool = native.llama_supports_gpu_offload()
    return answer
