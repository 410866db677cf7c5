"""The models in Ollama's store, which are GGUF files under the names of their hashes.

A model is a manifest, `manifests/<host>/<namespace>/<model>/<tag>`, whose layers are blobs; newer releases keep it in
`manifests-v2/` and may list one manifest for each runner, of which the first that is here with a GGUF layer is taken.
Only reads. A manifest that makes no sense is passed over with a line in the log.
"""

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import msgspec
from msgspec import Struct

logger = logging.getLogger(__name__)

MODEL_LAYER = "application/vnd.ollama.image.model"
PUBLIC_HOSTS = ("ollama.com", "registry.ollama.ai")
FOLDERS = ("manifests-v2", "manifests")
"""The newer first; it wins over what older releases left."""
MAX_MANIFEST = 1024**2

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Layer(Struct):
    mediaType: str = ""
    digest: str = ""


class Manifest(Struct):
    """A manifest, a list of them, or a line of such a list, which names the blob of its manifest."""

    layers: list[Layer] = []
    manifests: list["Manifest"] = []
    digest: str = ""


class BadManifest(ValueError):
    """Not a manifest of a model that can be served."""


BROKEN = (OSError, msgspec.DecodeError, RecursionError, BadManifest)
"""How reading a manifest fails."""


def models(store: Path) -> Iterator[tuple[str, Path]]:
    """The name, as Ollama writes it, and the GGUF file of every model."""
    seen: set[str] = set()
    for folder in FOLDERS:
        for path in sorted((store / folder).glob("*/*/*/*")):
            name = _name(path)
            if name in seen or _is_leftover(path):
                continue
            try:
                found = _weights(store, _read(path))
            except BROKEN as error:
                logger.warning("%s: not a model that can be served: %s", path, error)
            else:
                seen.add(name)
                yield name, found


def _name(path: Path) -> str:
    """`model:tag`, with the namespace and the host in front where they are not the usual ones."""
    host, namespace, model, tag = (unquote(part) for part in path.parts[-4:])
    is_public = host in PUBLIC_HOSTS
    front = [] if is_public else [host]
    if not (is_public and namespace == "library"):
        front.append(namespace)
    return "/".join([*front, f"{model}:{tag}"])


def _is_leftover(path: Path) -> bool:
    """A file being written, or the hash by which a newer release finds its way back."""
    return path.name.startswith(".") or re.fullmatch(r"[0-9a-f]{64}", path.name) is not None


def _read(path: Path) -> Manifest:
    with path.open("rb") as file:
        return msgspec.json.decode(file.read(MAX_MANIFEST), type=Manifest)


def _weights(store: Path, manifest: Manifest) -> Path:
    """The blob with the GGUF file."""
    for whole in [manifest, *_children(store, manifest)]:
        for layer in whole.layers:
            if layer.mediaType == MODEL_LAYER and (path := _blob(store, layer.digest)).is_file():
                return path
    raise BadManifest("no GGUF file of it is here")


def _children(store: Path, manifest: Manifest) -> Iterator[Manifest]:
    """The listed manifests that are here; those of other runners may never have been fetched."""
    for child in manifest.manifests:
        if child.layers:
            yield child
        elif (path := _blob(store, child.digest)).is_file():
            yield _read(path)


def _blob(store: Path, digest: str) -> Path:
    if not _DIGEST.fullmatch(digest):
        raise BadManifest(f"{digest!r} is no digest")
    return store / "blobs" / digest.replace(":", "-")
