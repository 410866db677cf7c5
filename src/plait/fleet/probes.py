"""What probes found out about models, kept between runs: one small file a model in the user's cache.

Workers may not write files, so the gateway does it. What is kept is never needed: without it, a worker measures again.
"""

import logging
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from plait.protocol import Probed

N_KEPT = 32
"""Of one model: for as many libraries, machines and settings."""

_decode = msgspec.json.Decoder(tuple[Probed, ...]).decode

log = logging.getLogger("plait.fleet")


def default_dir(env: Mapping[str, str] = os.environ) -> Path:
    """Where the files lie."""
    home = Path(env.get("HOME") or Path.home())
    return Path(env.get("XDG_CACHE_HOME") or home / ".cache") / "plait" / "probes"


def load(digest: str, folder: Path | None = None) -> tuple[Probed, ...]:
    """All that is known of a model, for a worker to pick from; the last that was saved comes first.

    A file that cannot be read is as good as none, and said so in the log.
    """
    path = _path(digest, folder)
    try:
        return _decode(path.read_bytes())
    except FileNotFoundError:
        return ()
    except (OSError, msgspec.MsgspecError) as error:
        log.warning("%s cannot be read and is not used: %s", path, error)
        return ()


def further(probed: Probed, known: Probed | None) -> Probed:
    """Which of two came further, of what was measured under one key: another worker may have had more time."""
    is_less = (
        known and probed.facts.cut_short and (not known.facts.cut_short or known.facts.n_steps > probed.facts.n_steps)
    )
    return known if known and is_less else probed


def save(probed: Probed, folder: Path | None = None) -> None:
    """Keep what was found out, if it is anything, and in place of what was known under its key, if that is not more. A
    file that cannot be written is said so in the log; nothing else follows from it."""
    if probed.facts.cut_short and not probed.facts.n_steps:
        return
    digest = probed.key.model
    found = load(digest, folder)
    if further(probed, next((known for known in found if known.key == probed.key), None)) is not probed:
        return
    others = (known for known in found if known.key != probed.key)
    path = _path(digest, folder)
    temporary = path.with_suffix(f".{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(msgspec.json.encode((probed, *others)[:N_KEPT]))
        temporary.replace(path)
    except OSError as error:
        log.warning("%s cannot be written: %s", path, error)
        with suppress(OSError):  # it may not even have been made
            temporary.unlink()


def _path(digest: str, folder: Path | None) -> Path:
    if not digest.isalnum():
        raise ValueError(f"{digest!r} is no digest")
    return (folder or default_dir()) / f"{digest}.json"
