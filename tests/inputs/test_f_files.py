"""F: model files, spoilt by chance or with purpose."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from plait import gguf
from plait.config import Engine
from plait.fleet import budget
from plait.gguf import GGUFError
from tests.inputs import spoilt
from tests.inputs.asking import HTTP, PROBE, TALE, complete, is_refused, post, text_of, workers
from tests.serving import Server, serving
from tests.waiting import until

N_MUTANTS = 600
SECONDS = 1.0
"""Of the processor, for the slowest of them."""
N_TRIED = 6
"""Of the mutants that read well, so many are given to a worker."""


def is_read(path: Path) -> bool:
    """Whether a file passes all that is done with it before a worker is started. Other errors are defects."""
    try:
        model = gguf.skim(path)
        gguf.check(model)
        budget.fit(path, Engine(), 2**50)
    except GGUFError as error:
        assert path.name in str(error)
        return False
    return True


def test_f1_a_spoilt_header_is_read_or_refused_and_quickly(server: Server, tmp_path: Path) -> None:
    path, n_read, slowest = tmp_path / "spoilt.gguf", 0, 0.0
    for mutant in spoilt.mutants(N_MUTANTS):
        mutant.write(path)
        began = time.process_time()
        n_read += is_read(path)
        slowest = max(slowest, time.process_time() - began)
    assert slowest < SECONDS
    assert 0 < n_read < N_MUTANTS / 4


def load(server: Server, path: Path) -> httpx2.Response:
    return post(server, "/admin/models", model=f"spoilt={path}")


def test_f1_what_does_not_read_well_is_refused_with_a_reason(server: Server, tmp_path: Path) -> None:
    path, before, n_refused = tmp_path / "spoilt.gguf", workers(server), 0
    for mutant in spoilt.mutants(N_MUTANTS, seed=1):
        mutant.write(path)
        if not is_read(path):
            n_refused += 1
            answer = load(server, path)
            assert is_refused(answer, "model")
            assert "spoilt.gguf" in answer.json()["error"]["message"]
            assert listed(server) == ("failed", answer.json()["error"]["message"])
    assert n_refused > 500
    assert workers(server) == before


def test_f1_what_reads_well_is_served_or_refused_by_its_worker(server: Server, probe: str, tmp_path: Path) -> None:
    path, n_tried = tmp_path / "spoilt.gguf", 0
    for mutant in spoilt.mutants(N_MUTANTS, seed=2):
        mutant.write(path)
        if n_tried == N_TRIED or not is_read(path):
            continue
        n_tried += 1
        answer = load(server, path)
        if answer.status_code == 201:
            assert post(server, prompt=TALE, model="spoilt", max_tokens=4).json()
            assert text_of(complete(server, **PROBE)) == probe
            assert httpx2.delete(f"{server.url}/admin/models/spoilt", timeout=30).status_code == 204
        else:
            assert answer.json()["error"]["code"] == "model_load_failed"
            assert listed(server) == ("failed", answer.json()["error"]["message"])
    assert n_tried == N_TRIED


CHECKED = {
    "no layers": spoilt.with_number("llama.block_count", "<I", 0),
    "600 layers": spoilt.with_number("llama.block_count", "<I", 600),
    "an epsilon below zero": spoilt.with_number("llama.attention.layer_norm_rms_epsilon", "<f", -1.0),
    "an epsilon that is no number": spoilt.with_number("llama.attention.layer_norm_rms_epsilon", "<f", float("nan")),
    "whole numbers for a norm": spoilt.with_tensor_type("output_norm.weight", 1, 24),
    "no GGUF": b"PK\3\4" + bytes(100),
    "four bytes": b"GGUF",
    "nothing": b"",
}


@pytest.mark.parametrize("data", CHECKED.values(), ids=CHECKED.keys())
def test_f1_what_libllama_would_die_of_is_refused_before(server: Server, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "spoilt.gguf"
    path.write_bytes(data)
    answer = load(server, path)
    assert is_refused(answer, "model")
    assert "spoilt.gguf" in answer.json()["error"]["message"]


FATAL = {
    "no heads": (spoilt.with_number("llama.attention.head_count", "<I", 0), "wrong shape"),
    "rows of another length": (spoilt.with_number("llama.embedding_length", "<I", 191), "hyperparameters"),
    "a token twice": (spoilt.with_a_token_twice(), "the worker died while it loaded"),
    "F3: no numbers": (spoilt.with_weights_of_ones(), "invalid data"),
}


@pytest.mark.parametrize(("data", "reason"), FATAL.values(), ids=FATAL.keys())
def test_f1_f3_what_only_a_worker_notices_is_not_tried_again(
    server: Server, tmp_path: Path, data: bytes, reason: str
) -> None:
    path, before = tmp_path / "spoilt.gguf", workers(server)
    path.write_bytes(data)
    answer = load(server, path)
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "model_load_failed"
    assert reason in answer.json()["error"]["message"]
    assert listed(server) == ("failed", answer.json()["error"]["message"])
    assert workers(server) == before
    assert server.is_ready


def listed(server: Server) -> tuple[str, str]:
    """How the operator is told of it, and why."""
    (model,) = (each for each in HTTP.get(f"{server.url}/admin/models").json() if each["name"] == "spoilt")
    return model["state"], model["reason"]


def overwrite(path: Path) -> None:
    """The second half, by what could be weights."""
    half = path.stat().st_size // 2
    with path.open("r+b") as file:
        weights = file.read(half)
        file.write(weights)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("spoil", [overwrite, truncate])
def test_f2_a_file_that_changes_under_its_worker_ends_that_and_is_not_read_again(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(spoilt.demo())
    with serving("-m", str(path), "--threads", "1", "--memory-budget", "1GiB") as other:
        complete(other)
        spoil(path)
        until(lambda: post(other, prompt=TALE, max_tokens=4).status_code == 503)
        until(lambda: other.get("/admin/models").json()[0]["state"] == "failed")
        answer = post(other, prompt=TALE)
        assert is_refused(answer, status=503)
        assert "model.gguf has changed since it was loaded" in answer.json()["error"]["message"]
        assert not other.is_ready
