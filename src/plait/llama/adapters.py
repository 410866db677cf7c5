"""LoRA adapters: what was trained onto a model's weights, each in a GGUF file of its own.

The native adapters belong to the native model, which frees them. A context is told which to compute with: as the
settings say when it is made, and as the requests of a decode call want it before that. What a stream holds depends on
them, so its tokens are all computed with the same.
"""

import ctypes
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from plait import gguf
from plait.config import parse_adapter
from plait.errors import BadRequest, ModelLoadFailed
from plait.llama import lib
from plait.llama.lib import native
from plait.protocol import AdapterScale

_ALPHA = "adapter.lora.alpha"
_INVOCATION = "adapter.alora.invocation_tokens"

Pointer: TypeAlias = "ctypes._Pointer[ctypes.c_void_p]"
"""A native adapter; false when libllama made none."""


class Adapter(NamedTuple):
    """A loaded one, and how much of it is added."""

    handle: Pointer
    scale: float


def load(model: int, spellings: Iterable[str]) -> list[Adapter]:
    """The adapters as the settings say them, on a native model. Raises `ModelLoadFailed`."""
    return [_load(model, *parse_adapter(spelling)) for spelling in spellings]


def chosen(wanted: Iterable[AdapterScale] | None, adapters: Sequence[Adapter]) -> tuple[float, ...]:
    """The scale of each of `adapters`; () when they are as loaded. Raises `BadRequest` for one that is not loaded."""
    if wanted is None:
        return ()
    said = {each.id: each.scale for each in wanted}
    for id in said:
        if not 0 <= id < len(adapters):
            raise BadRequest(f"lora: there is no adapter {id}; {_known(len(adapters))}", param="lora")
    scales = tuple(said.get(id, 0.0) for id in range(len(adapters)))
    return () if scales == tuple(adapter.scale for adapter in adapters) else scales


def _known(n: int) -> str:
    match n:
        case 0:
            return "none is loaded"
        case 1:
            return "the only one is 0"
        case _:
            return f"there are 0 to {n - 1}"


def apply(context: int, adapters: Sequence[Adapter]) -> None:
    """Makes a native context compute with these, and no others."""
    n = len(adapters)
    handles = (native.llama_adapter_lora_p_ctypes * n)(*(adapter.handle for adapter in adapters))
    scales = (ctypes.c_float * n)(*(adapter.scale for adapter in adapters))
    if native.llama_set_adapters_lora(context, handles, n, scales):
        raise ModelLoadFailed("libllama does not take these LoRA adapters together")


def _load(model: int, path: str, scale: float) -> Adapter:
    _check(path)
    with lib.errors_heard() as errors:
        handle: Pointer = native.llama_adapter_lora_init(model, os.fsencode(path))
    if not handle:
        reason = errors[-1].rpartition("failed to apply lora adapter: ")[2] if errors else "libllama gives no reason"
        raise ModelLoadFailed(f"{path}: {reason}")
    return Adapter(handle, scale)


def _check(path: str) -> None:
    """What libllama does not check, and would end the process for: that each key has its type."""
    said = gguf.skim(Path(path)).metadata
    if (said.get("general.type"), said.get("adapter.type")) != ("adapter", "lora"):
        raise ModelLoadFailed(f"{path}: not a LoRA adapter")
    if not isinstance(said.get("general.architecture"), str) or not isinstance(said.get(_ALPHA, 0.0), float):
        raise ModelLoadFailed(f"{path}: its architecture or its {_ALPHA} is not what it must be")
    if _INVOCATION in said:
        raise ModelLoadFailed(f"{path}: it is to be added behind certain tokens only, which is not served")
