"""The name of all that an answer's bits depend on, but for the request: OpenAI's `system_fingerprint`. Pure."""

import hashlib

from msgspec import msgpack

from plait import __version__
from plait.protocol import Facts, ProbeKey, Verdict

_N_HEX = 16


def fingerprint(key: ProbeKey, facts: Facts, verdict: Verdict) -> str:
    """Two servers with the same fingerprint give the same text to the same reproducible request.

    It names the model's digest, this program and its library with the instruction sets in use, the types of the KV
    cache, and what `verdict` asks of decode steps. The number of threads belongs to it only where it makes a
    difference. Empty when the model's digest is not known.
    """
    if not key.model:
        return ""
    n_threads = () if facts.any_threads else key.n_threads
    shapes = verdict.reproducible != "no", verdict.pad_to, verdict.pad_by, verdict.ends_decoded
    said = (__version__, key.model, key.adapters, key.library, key.cache_types, key.rope, n_threads, shapes)
    return "fp_" + hashlib.sha256(msgpack.encode(said)).hexdigest()[:_N_HEX]
