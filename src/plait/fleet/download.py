"""Models from a Hugging Face hub into its usual cache, so that what others fetched is not fetched again.

Which file is fetched, `choosing` says. Where the cache lies, which hub is asked (`HF_ENDPOINT`), tokens, resuming and
offline mode (`HF_HUB_OFFLINE`) are huggingface_hub's business; progress is told to a callback, from the thread that
fetches. Importing that library takes a quarter of a second and memory that is then kept: only who fetches imports this.
"""

import logging
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
from plait.fleet.choosing import choose, is_model
from plait.fleet.progress import Progress, unheard

logger = logging.getLogger(__name__)


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
