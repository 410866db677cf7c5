"""What a worker knows of its model before it serves it, and on what terms a request is reproducible."""

import pytest
from msgspec import structs

from plait import config
from plait.errors import BadRequest, ModelLoadFailed
from plait.llama.adapters import Adapter
from plait.llama.lib import native
from plait.llama.model import Model
from plait.protocol import Load, Probed, RawPrompt, Request, Verdict
from plait.worker import judging
from plait.worker.judging import find_out

PATIENT = config.Engine(threads=1, batch_size=256, ubatch_size=256, slots=2, probe_seconds=600)
UNASKED = structs.replace(PATIENT, probe_seconds=0)
ANY = Request(prompt=RawPrompt("A"))
STEADY = structs.replace(ANY, reproducible=True)
NOTHING = native.llama_adapter_lora_p_ctypes()
PADDED = Verdict(reproducible="under load, padded", pad_to=4)


def load(engine: config.Engine, *probed: Probed, n_together: int = 0) -> Load:
    return Load("m.gguf", engine, "info", "0f" * 16, probed, n_together=n_together)


def test_what_is_known_is_not_measured_again(model: Model) -> None:
    first = find_out(model, load(PATIENT))
    assert first.probed
    assert first.verdict.reproducible != "no"
    assert find_out(model, load(UNASKED, first.probed)) == first._replace(probed=None)


def test_what_was_found_out_before_in_vain_is_known_too(model: Model) -> None:
    in_vain = find_out(model, load(UNASKED))
    assert in_vain.probed
    assert in_vain.probed.facts.cut_short
    assert find_out(model, load(PATIENT, in_vain.probed)).probed is None


def test_what_an_earlier_start_began_is_ended(model: Model) -> None:
    whole = find_out(model, load(PATIENT)).probed
    assert whole
    half = structs.replace(whole.facts, blocks=False, replay_chunk=1, n_steps=3, cut_short="too slow")
    begun = find_out(model, structs.replace(load(PATIENT), begun=(structs.replace(whole, facts=half),))).probed
    assert begun
    expected = structs.replace(whole.facts, blocks=False, seconds=begun.facts.seconds)
    assert begun.facts == expected


def test_a_worker_of_one_slot_computes_like_those_that_it_stands_in_for(model: Model) -> None:
    first = find_out(model, load(PATIENT))
    assert first.probed
    alone = find_out(model, load(structs.replace(UNASKED, slots=1), first.probed, n_together=2))
    assert (alone.verdict, alone.fingerprint) == (first.verdict, first.fingerprint)


def test_without_time_nothing_is_promised(model: Model) -> None:
    assert "not all was measured" in find_out(model, load(UNASKED)).verdict.reason


def test_who_must_be_reproducible_is_given_time_and_told_so(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    hurried = structs.replace(PATIENT, probe_seconds=0.01, reproducible=True)
    with caplog.at_level("INFO", "plait.worker"):
        assert find_out(model, load(hurried)).verdict.reproducible != "no"
    assert "takes 600 seconds at most" in caplog.text


def test_who_must_be_reproducible_and_is_not_is_not_loaded(model: Model) -> None:
    pooled = structs.replace(PATIENT, kv_cells=512)
    assert "one pool" in find_out(model, load(pooled)).verdict.reason
    with pytest.raises(ModelLoadFailed, match="one pool"):
        find_out(model, load(structs.replace(pooled, reproducible=True)))


def test_a_recurrent_model_is_not_reproducible(recurrent_model: Model) -> None:
    assert "all tokens at once" in find_out(recurrent_model, load(PATIENT)).verdict.reason


def test_a_request_is_reproducible_when_it_or_the_server_says_so() -> None:
    everyone = structs.replace(PATIENT, reproducible=True)
    enough = structs.replace(PADDED, pad_to=2)
    assert judging.rules(ANY, PATIENT, enough) is None
    assert judging.rules(STEADY, PATIENT, enough) is enough
    assert judging.rules(ANY, everyone, PADDED) is PADDED


@pytest.mark.parametrize(("verdict", "words"), [(Verdict(reason="so it is"), "so it is"), (PADDED, "with 2 slots")])
def test_what_cannot_be_promised_is_refused(verdict: Verdict, words: str) -> None:
    with pytest.raises(BadRequest, match=words) as refused:
        judging.rules(STEADY, PATIENT, verdict)
    assert refused.value.param == "reproducible"


def test_an_adapter_that_the_probe_did_not_see_is_refused_where_text_is_reproducible() -> None:
    loaded = [Adapter(NOTHING, 1.0), Adapter(NOTHING, 0.0)]
    for scales in ((), (0.5, 0.0), (0.0, 0.0)):
        judging.check_adapters(scales, loaded)
    with pytest.raises(BadRequest, match="adapter 1") as refused:
        judging.check_adapters((1.0, 0.5), loaded)
    assert refused.value.param == "lora"


def test_there_are_streams_for_dummy_rows_only_where_all_requests_want_them() -> None:
    assert judging.n_streams(PATIENT, PADDED) == 2
    assert judging.n_streams(structs.replace(PATIENT, reproducible=True), PADDED) == 4
