"""Where a worker keeps prefixes on disk: one folder for all that must match, chosen before the sandbox closes.

The key of the folder is everything that the bytes in it depend on: the model's files and adapters, the library and its
kernels, the KV cache's types and layout, RoPE's settings, and the blocks in which the engine reads.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from plait import disk, gguf
from plait.engine.sequence import BLOCK, DEEP, SMALL_BLOCK
from plait.llama import lib
from plait.protocol import Load
from plait.worker.judging import adapter_key

log = logging.getLogger("plait.worker")


@dataclass(frozen=True, slots=True)
class Storage:
    """A folder of this worker's own, which the sandbox leaves writable."""

    folder: Path
    name: str
    max_bytes: int

    def open(self) -> disk.Shelf:
        """What lies there, to go on with."""
        return disk.Shelf(self.folder, self.name, self.max_bytes)


def folder(load: Load) -> Storage | None:
    """None when nothing is to be kept on disk. Made here, if it is not there yet."""
    settings = load.engine
    if not (load.digest and settings.cache_disk and settings.cache_ram and settings.prefix_sharing):
        return None
    try:
        key = _key(load)
    except gguf.GGUFError:
        return None  # an adapter that cannot be read: the model's load says why
    root = Path(settings.cache_dir).expanduser() if settings.cache_dir else disk.default_dir()
    folder = root / key
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        log.warning("prefixes are not kept on disk: %s: %s", folder, error.strerror)
        return None
    name = f"{Path(load.path).stem}, KV {settings.cache_type_k}/{settings.cache_type_v}"
    return Storage(folder, name, settings.cache_disk)


def _key(load: Load) -> str:
    """The folder's name. Raises `GGUFError`."""
    settings, build = load.engine, lib.build_info()
    return disk.folder_key(
        model=load.digest,
        adapters=[part for spelling in settings.lora for part in adapter_key(spelling)],
        binding=build.binding,
        library=build.library,
        kernels=build.features,
        types=(settings.cache_type_k, settings.cache_type_v),
        layout="unified" if settings.kv_cells else "split",
        rope=(str(settings.rope_freq_base), str(settings.rope_freq_scale)),
        gpu_layers=settings.n_gpu_layers if build.can_offload else 0,
        blocks=(str(BLOCK), str(SMALL_BLOCK), str(DEEP)),
    )
