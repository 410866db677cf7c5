"""Models from a Hugging Face hub into its usual cache, so that what others fetched is not fetched again.

Chooses the file as llama.cpp does: the quantization that was asked for, else Q4_K_M, else Q8_0, else the first. Where
the cache lies, which hub is asked (`HF_ENDPOINT`), tokens, resuming and offline mode (`HF_HUB_OFFLINE`) are
huggingface_hub's business; progress is told to a callback, from the thread that fetches.
"""

import logging
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Self

import httpx2
from huggingface_hub import HfApi, constants, hf_hub_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
)

from plait.errors import ModelNotFound, PlaitError, Unavailable
from plait.gguf import SPLIT

logger = logging.getLogger(__name__)

PREFERRED = ("Q4_K_M", "Q8_0")
"""When no quantization is asked for, the first of these that there is."""

NOT_MODELS = ("mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-")
"""Parts of the names of GGUF files that go beside a model."""

Progress = Callable[[str, int, int | None], None]
"""Told now and then: a file's name, how many of its bytes are here, and of how many, where that is known."""


def unheard(file: str, n_done: int, n_total: int | None) -> None:
    """Progress that nobody watches."""


def fetch(repo: str, quant: str, progress: Progress = unheard) -> Path:
    """The model's file, or its first part, in the cache; from the hub if it is not there yet.

    Raises `ModelNotFound` when the hub has no such model or keeps it, `Unavailable` when it cannot be asked.
    """
    try:
        known = _files(repo)
        files = choose(known, quant)
        if not files:
            raise ModelNotFound(_nothing(repo, quant, known))
        paths = [Path(hf_hub_download(repo, file, tqdm_class=_bar(file, progress))) for file in files]
    except (httpx2.HTTPError, OSError, ValueError) as error:
        raise _in_words(repo, error) from error
    return paths[0]


def _files(repo: str) -> list[str]:
    """The names of the repository's files: on the hub, or in the cache when the hub is out of reach."""
    try:
        info = HfApi().model_info(repo, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        return [file.rfilename for file in info.siblings or []]
    except (OfflineModeIsEnabled, httpx2.TransportError) as error:
        cached = _cached(repo)
        if not cached:
            raise
        logger.warning("the hub is out of reach (%s); taking %s from the cache", error, repo)
        return cached


def _cached(repo: str) -> list[str]:
    folder = Path(constants.HF_HUB_CACHE, f"models--{repo.replace('/', '--')}")
    main = folder / "refs" / constants.DEFAULT_REVISION
    if not main.is_file():
        return []
    snapshot = folder / "snapshots" / main.read_text().strip()
    return [file.relative_to(snapshot).as_posix() for file in snapshot.rglob("*") if file.is_file()]


def choose(files: Iterable[str], quant: str) -> list[str]:
    """The file that holds the model, or all of its parts in order; nothing when there is none."""
    models = sorted(file for file in files if is_model(file))
    heads = [file for file in models if _part(file) == 1]
    for wanted in [quant] if quant else PREFERRED:
        named = re.compile(rf"(?:^|[^a-z0-9]){re.escape(wanted)}[./-]", re.IGNORECASE)
        if found := [file for file in heads if named.search(file)]:
            return _with_parts(found[0], models)
    return _with_parts(heads[0], models) if heads and not quant else []


def is_model(file: str) -> bool:
    """Whether a file's name is a model's, and not that of something beside it."""
    name = file.rpartition("/")[2]
    return name.endswith(".gguf") and not any(part in name for part in NOT_MODELS)


def _part(file: str) -> int:
    split = SPLIT.fullmatch(file.rpartition("/")[2])
    return int(split["index"]) if split else 1


def _with_parts(file: str, models: list[str]) -> list[str]:
    """The file, and those that differ from it only in the number of the part."""
    split = SPLIT.fullmatch(file)
    if not split:
        return [file]
    return [part for part in models if (other := SPLIT.fullmatch(part)) and other["stem"] == split["stem"]]


def _bar(file: str, progress: Progress) -> type:
    """A progress bar as huggingface_hub makes them, which tells instead of drawing."""

    class Bar:
        def __init__(self, *, total: int | None = None, initial: int = 0, **_look: object) -> None:
            self.total, self.n_done = total, initial

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_error: object) -> None:
            self.close()

        def update(self, n: int) -> None:
            self.n_done += n
            progress(file, self.n_done, self.total)

        def close(self) -> None:
            """Nothing is drawn, so nothing is left to clear."""

        def set_postfix_str(self, *_words: object, **_look: object) -> None:
            """Whoever listens works out the rate."""

        update_transfer = set_transfer_postfix_str = set_postfix_str

    return Bar


def _nothing(repo: str, quant: str, files: list[str]) -> str:
    models = [file for file in sorted(files) if is_model(file)]
    if not models:
        return f"{repo} has no GGUF file"
    return f"{repo} has no {quant}; it has {', '.join(models[:12])}{', …' if len(models) > 12 else ''}"


def _in_words(repo: str, error: Exception) -> PlaitError:
    hub = constants.ENDPOINT
    match error:
        case GatedRepoError():
            return ModelNotFound(f"{repo} is gated: accept its terms at {hub}/{repo} and set HF_TOKEN")
        case RepositoryNotFoundError():
            return ModelNotFound(f"{hub} has no model {repo}, or it is private and HF_TOKEN does not open it")
        case RemoteEntryNotFoundError():
            return ModelNotFound(f"{repo}: {error}")
        case HFValidationError():
            return ModelNotFound(f"{repo!r} is not of the form owner/repo")
        case OfflineModeIsEnabled() | LocalEntryNotFoundError() if constants.is_offline_mode():
            return Unavailable(f"{repo} is not in the cache, and HF_HUB_OFFLINE forbids to fetch it")
        case httpx2.TransportError() | LocalEntryNotFoundError():
            return Unavailable(f"{hub} cannot be reached to fetch {repo}: {error}")
        case _:
            return Unavailable(f"{repo} cannot be fetched: {error}")
