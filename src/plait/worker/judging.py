"""How the model computes here: what was found out before, or is found out now, and what follows for the scheduler.

Runs on the engine's thread, once, before the model's context is made.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from msgspec import structs

from plait import gguf
from plait.config import Engine as Settings
from plait.config import parse_adapter
from plait.errors import BadRequest, ModelLoadFailed, PlaitError
from plait.llama import context, probe
from plait.llama.adapters import Adapter
from plait.llama.fingerprint import fingerprint
from plait.llama.model import Model
from plait.llama.verdict import judge
from plait.protocol import Facts, Load, Probed, Request, Verdict

SHARED_POOL = Verdict(reason="all sequences share one pool of cells, and one attention")

log = logging.getLogger("plait.worker")


class Judged(NamedTuple):
    """What is known of a model."""

    verdict: Verdict
    probed: Probed | None
    """What was measured just now, whole or not; None when it was known."""
    fingerprint: str


def find_out(model: Model, load: Load) -> Judged:
    """Takes some seconds when nothing is known yet. Raises `ModelLoadFailed` when the model must be reproducible and
    is not."""
    settings, n_slots = load.engine, load.n_together or load.engine.slots
    key = probe.key(
        load.digest,
        settings,
        n_threads=context.n_threads(settings),
        n_slots=n_slots,
        adapters=tuple(adapter_key(spelling) for spelling in settings.lora),
    )
    if settings.kv_cells:
        judged = Judged(SHARED_POOL, None, fingerprint(key, Facts(), SHARED_POOL))
    else:
        known = next((probed for probed in load.probed if probed.key == key), None)
        begun = next((probed.facts for probed in load.begun if probed.key == key), Facts())
        probed = known or Probed(key, measure(model, settings, n_slots, begun))
        verdict = judge(probed.facts, n_slots)
        judged = Judged(verdict, None if known else probed, fingerprint(key, probed.facts, verdict))
    if settings.reproducible and judged.verdict.reproducible == "no":
        raise ModelLoadFailed(f"--reproducible: this model is not: {judged.verdict.reason}")
    return judged


def measure(model: Model, settings: Settings, n_slots: int, begun: Facts) -> Facts:
    """What a probe finds out in the time that it has. A context that it cannot have is said in the facts."""
    seconds = settings.most_probe_seconds
    if not seconds:
        return structs.replace(begun, cut_short="it was not to be (--probe-seconds 0)")
    log.info("measuring if texts are reproducible: takes %g seconds at most, and is kept for the next start", seconds)
    try:
        return probe.probe(model, settings, n_slots=n_slots, seconds=seconds, begun=begun)
    except PlaitError as error:
        return structs.replace(begun, cut_short=error.message)


def adapter_key(spelling: str) -> tuple[str, str]:
    """The digest of an adapter's file, and its scale."""
    path, scale = parse_adapter(spelling)
    return gguf.digest(Path(path)), str(scale)


def check_adapters(scales: Sequence[float], loaded: Sequence[Adapter]) -> None:
    """Raise `BadRequest` for scales that bring in an adapter which was not there when the model was probed. Other
    scales of those that were change numbers, and not how they are computed."""
    for id, (scale, adapter) in enumerate(zip(scales, loaded, strict=False)):
        if scale and not adapter.scale:
            raise BadRequest(f"lora: adapter {id} had scale 0 when it was found out what is reproducible", param="lora")


def n_streams(settings: Settings, verdict: Verdict) -> int:
    """How many a context needs: one for each slot, and those of dummy rows when all requests are to be reproducible."""
    return max(settings.slots, verdict.n_rows(settings.slots)) if settings.reproducible else settings.slots


def rules(request: Request, settings: Settings, verdict: Verdict) -> Verdict | None:
    """By which a request's rows are computed. Raises `BadRequest` when it is to be reproducible and cannot be."""
    if not (request.reproducible or settings.reproducible):
        return None
    if verdict.reproducible == "no":
        raise BadRequest(f"reproducible: this model is not: {verdict.reason}", param="reproducible")
    if verdict.n_rows(settings.slots) > n_streams(settings, verdict):
        raise BadRequest(
            f"reproducible: with {settings.slots} slots, only a server that was started with --reproducible is",
            param="reproducible",
        )
    return verdict
