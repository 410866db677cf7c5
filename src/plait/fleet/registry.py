"""What a model is called and where its file lies: turns what the user wrote after `-m` into a name and a path.

Knows the spellings; `stores` knows what is on this machine, `download` what is on the hub. Holds nothing.
"""

import os
import re
from importlib.resources import files
from pathlib import Path

from msgspec import Struct

from plait.errors import ModelNotFound
from plait.fleet import stores
from plait.fleet.progress import Progress, unheard

DEMO = "plait-demo"
"""The name of the model that comes with Plait."""

_NAMED = re.compile(r"(?P<name>[^=/\\\\\s]+)=(?P<source>.+)")
_HUB = re.compile(r"hf:(?P<repo>[^:/]+/[^:/]+)(?::(?P<quant>[^:/]+))?")


class Source(Struct, frozen=True):
    """A model's file, or the first of its parts, and the name that it is to be served under."""

    name: str
    path: Path
    converted: Path | None = None
    """What is loaded instead, when libllama cannot read the file itself."""

    @property
    def file(self) -> Path:
        """What is loaded."""
        return self.converted or self.path


def resolve(source: str, progress: Progress = unheard) -> Source:
    """`file.gguf`, `hf:owner/repo[:quant]`, `ollama:model[:tag]`, the name of a model on this machine, or `name=any`.

    Fetches what has to be fetched. Raises `ModelNotFound`, and `Unavailable` when a hub is needed and out of reach.
    """
    named = None if _is_file(source) else _NAMED.fullmatch(source)
    if named:
        return Source(named["name"], _locate(named["source"], progress).path)
    return _locate(source, progress)


def _locate(source: str, progress: Progress) -> Source:
    if _is_file(source):
        path = Path(source).expanduser()
        return Source(stores.name_of(path), path)
    if source == DEMO:
        return Source(DEMO, Path(str(files("plait") / "demo" / f"{DEMO}.gguf")))
    if source.startswith("hf:"):
        return _from_hub(source, progress)
    if source.endswith(".gguf") or os.path.isabs(source):
        raise ModelNotFound(f"there is no file {source}")
    return _from_stores(source)


def _is_file(source: str) -> bool:
    """Unlike `Path.is_file`, this raises nothing, whatever a client may have sent as a path."""
    return os.path.isfile(os.path.expanduser(source))


def _from_hub(source: str, progress: Progress) -> Source:
    said = _HUB.fullmatch(source)
    if not said:
        raise ModelNotFound(f"{source} is not of the form hf:owner/repo or hf:owner/repo:quant")
    repo, quant = said["repo"], said["quant"] or ""
    name = repo.rpartition("/")[2] + (f":{quant}" if quant else "")
    from plait.fleet import download  # not at the top: a quarter of a second, and memory that a server would keep

    return Source(name, download.fetch(repo, quant, progress))


def _from_stores(source: str) -> Source:
    wanted = source.removeprefix("ollama:")
    for found in stores.find_models():
        if found.name == wanted or found.name == f"{wanted}:latest":
            return Source(wanted, found.path)
    raise ModelNotFound(
        f"no model {source!r}: no such file, and `plait models` has no such name; hf:owner/repo is fetched from the hub"
    )
