"""The prompts that clients of llm-http asked to keep: one file each, under the number that they gave it.

A file holds the prompt's token ids and says which model's they are. What that model made of them, their KV, is not in
it: that lies in the engine's own prefix cache, in RAM and on disk, and is found there by these ids. A file is written
under another name first, so what stands under its own is whole.
"""

import hashlib
import os
import secrets
from functools import lru_cache
from pathlib import Path

import msgspec
from msgspec import Struct

from plait import gguf
from plait.errors import Unavailable
from plait.fleet.base import Served

MAX_KEPT = 1024
"""Prompts in a folder."""
MAX_BYTES = 64 * 1024**2
"""Of one file: more than a prompt of the largest context needs."""


class RefusedPrompt(ValueError):
    """A file that is not to be restored. The message says why, without the file's name."""


class Kept(Struct, frozen=True):
    """One prompt."""

    model: str
    """The digest of the model whose tokens they are."""
    tokens: tuple[int, ...]
    text: str
    """What the client said that made it."""
    n_before: int = 0
    """Tokens at its beginning that the text does not stand for, since that prompt went on from another."""

    def prefix(self, text: str) -> tuple[int, ...]:
        """The tokens that a prompt with this text goes on from. What begins with the kept text is that prompt and
        more, so it is told whole; any other text follows behind all that was kept."""
        return self.tokens[: self.n_before] if text.startswith(self.text) else self.tokens


def default_folder() -> Path:
    """Where prompts are kept if nobody says otherwise."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "plait" / "llm-http"


def path_of(folder: Path, number: int) -> Path:
    """The file of the prompt with this number."""
    return folder / f"{number}.plait-prompt"


def model_of(served: Served) -> str:
    """The digest of a served model's file. Raises `GGUFError` when that cannot be read."""
    return _model(served.path, served.created)


@lru_cache(maxsize=64)
def _model(path: str, created: int) -> str:
    """Read once a load: a vocabulary has some megabytes."""
    return gguf.digest(Path(path))


def save(path: Path, prompt: Kept) -> None:
    """Write the file, in place of an older one. Raises `OSError`, and `Unavailable` when the folder is full."""
    body = msgspec.json.encode(prompt)
    if not path.exists() and sum(1 for _ in path.parent.glob("*.plait-prompt")) >= MAX_KEPT:
        raise Unavailable(f"{MAX_KEPT} prompts are kept already")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with fresh.open("xb") as file:
            file.write(_digest(body) + b"\n" + body)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def load(path: Path, model: str) -> Kept:
    """What was saved, if it is that model's. Raises `RefusedPrompt`, and `OSError` for what cannot be read."""
    if path.exists() and not path.is_file():
        raise RefusedPrompt("not a file")
    with path.open("rb") as file:
        digest, _, body = file.read(MAX_BYTES).partition(b"\n")
    if digest != _digest(body):
        raise RefusedPrompt("not a prompt that was kept, or damaged since")
    try:
        prompt = msgspec.json.decode(body, type=Kept)
    except msgspec.MsgspecError as error:
        raise RefusedPrompt(f"not a prompt of this version: {error}") from error
    if prompt.model != model:
        raise RefusedPrompt(f"kept for another model, {prompt.model}; this one is {model}")
    return prompt


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()
