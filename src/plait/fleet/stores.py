"""The models that are on this machine already, wherever some other program has put them.

Only looks, and never copies: every store stays its owner's. What cannot be read is passed over. Knows where stores
lie and how their files are called; what is in a file, `gguf` knows.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec import Struct

from plait.fleet import ollama
from plait.fleet.choosing import is_model
from plait.gguf import SPLIT

_SNAPSHOTS = "models--*/snapshots/*/**/*.gguf"
"""What huggingface_hub, and llama.cpp after it, make of a repository."""


class Found(Struct, frozen=True):
    """A model's file, or the first of its parts; `name` may be given to `-m`."""

    name: str
    path: Path
    where: str


def find_models(env: Mapping[str, str] = os.environ, here: Path = Path()) -> list[Found]:
    """Every model once; of two that share a name, the first is meant by it."""
    found: list[Found] = []
    seen: set[str] = set()
    for model in _all(env, here):
        file = os.path.realpath(model.path)
        if os.path.isfile(file) and file not in seen:
            seen.add(file)
            found.append(model)
    return found


def name_of(path: Path) -> str:
    """A file's name without its ending, and without the number of its part."""
    split = SPLIT.fullmatch(path.name)
    return split["stem"] if split else path.stem


def _all(env: Mapping[str, str], here: Path) -> Iterator[Found]:
    home = Path(env.get("HOME") or Path.home())
    cache = Path(env.get("XDG_CACHE_HOME") or home / ".cache")
    yield from _files(here, "*.gguf", "this directory")
    yield from _files(_hub_cache(env, cache), _SNAPSHOTS, "Hugging Face")
    for pattern in ("*.gguf", _SNAPSHOTS):
        yield from _files(Path(env.get("LLAMA_CACHE") or cache / "llama.cpp"), pattern, "llama.cpp")
    for name, path in ollama.models(Path(env.get("OLLAMA_MODELS") or home / ".ollama" / "models")):
        yield Found(name, path, "Ollama")
    yield from _files(home / ".lmstudio" / "models", "*/*/*.gguf", "LM Studio")


def _hub_cache(env: Mapping[str, str], cache: Path) -> Path:
    """Where huggingface_hub and newer llama.cpp keep models."""
    said = env.get("HF_HUB_CACHE") or env.get("HUGGINGFACE_HUB_CACHE")
    return Path(said or Path(env.get("HF_HOME") or cache / "huggingface") / "hub").expanduser()


def _files(folder: Path, pattern: str, where: str) -> Iterator[Found]:
    for path in sorted(folder.glob(pattern)):
        split = SPLIT.fullmatch(path.name)
        if is_model(path.name) and (split is None or int(split["index"]) == 1):
            yield Found(name_of(path), path, where)
