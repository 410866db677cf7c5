"""huggingface_hub itself fetches from a hub on this machine; what to fetch, and what it says, is ours."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import close_session, constants

from plait.errors import ModelNotFound, Unavailable
from plait.fleet.choosing import choose
from plait.fleet.download import fetch
from tests.fakes.gguf_file import gguf_bytes
from tests.fakes.hub import Hub, running_hub

REPO = "owner/Tiny-GGUF"
CHUNK = constants.DOWNLOAD_CHUNK_SIZE
SMALL = gguf_bytes()

Told = list[tuple[str, int, int | None]]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """What HF_ENDPOINT and HF_HUB_CACHE would do, had they been set before the library was imported."""
    with running_hub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        yield hub
        close_session()


def test_a_model_is_fetched_and_progress_is_told(hub: Hub) -> None:
    hub.files[REPO] = {"README.md": b"", "tiny-Q8_0.gguf": SMALL}
    told: Told = []
    path = fetch(REPO, "q8_0", lambda *step: told.append(step))
    assert path.read_bytes() == SMALL
    assert told[-1] == ("tiny-Q8_0.gguf", len(SMALL), len(SMALL))


def test_what_is_in_the_cache_is_not_fetched_again(hub: Hub) -> None:
    hub.files[REPO] = {"tiny-Q8_0.gguf": SMALL}
    first = fetch(REPO, "")
    told: Told = []
    assert fetch(REPO, "", lambda *step: told.append(step)) == first
    assert told == []


def test_all_parts_are_fetched_and_the_first_stands_for_them(hub: Hub) -> None:
    names = [f"Q4_K_M/tiny-Q4_K_M-{i:05}-of-00003.gguf" for i in (1, 2, 3)]
    hub.files[REPO] = dict.fromkeys([*names, "tiny-Q8_0.gguf"], SMALL)
    path = fetch(REPO, "")
    assert path.name == "tiny-Q4_K_M-00001-of-00003.gguf"
    assert len(list(path.parent.iterdir())) == 3


def test_a_broken_connection_is_taken_up_where_it_broke(hub: Hub) -> None:
    large = SMALL + bytes(CHUNK)
    hub.files[REPO] = {"tiny-Q8_0.gguf": large}
    hub.hang_up_after = CHUNK + 10
    told: Told = []
    assert fetch(REPO, "", lambda *step: told.append(step)).read_bytes() == large
    assert hub.ranges == [f"bytes={CHUNK}-"]
    assert told[-1][1:] == (len(large), len(large))


def test_without_a_hub_the_cache_answers(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.files[REPO] = {"tiny-Q8_0.gguf": SMALL}
    first = fetch(REPO, "Q8_0")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch(REPO, "Q8_0") == fetch(REPO, "") == first


def test_offline_without_the_model_is_said(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(Unavailable, match="not in the cache, and HF_HUB_OFFLINE"):
        fetch(REPO, "")


def test_a_hub_out_of_reach_is_said(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(Unavailable, match=r"http://127\.0\.0\.1:1 cannot be reached to fetch owner/Tiny-GGUF"):
        fetch(REPO, "")


def test_a_repository_that_is_not_there_is_said(hub: Hub) -> None:
    with pytest.raises(ModelNotFound, match="has no model owner/Tiny-GGUF"):
        fetch(REPO, "")


def test_a_gated_model_is_said(hub: Hub) -> None:
    hub.files[REPO] = {"tiny-Q8_0.gguf": SMALL}
    hub.gated.add(REPO)
    with pytest.raises(ModelNotFound, match="gated: accept its terms"):
        fetch(REPO, "")


def test_a_missing_quantization_is_said_with_those_there_are(hub: Hub) -> None:
    hub.files[REPO] = {"tiny-Q8_0.gguf": SMALL, "mmproj-tiny-Q2_K.gguf": SMALL}
    with pytest.raises(ModelNotFound, match=r"has no Q2_K; it has tiny-Q8_0\.gguf$"):
        fetch(REPO, "Q2_K")


def test_a_repository_without_gguf_files_is_said(hub: Hub) -> None:
    hub.files[REPO] = {"model.safetensors": b""}
    with pytest.raises(ModelNotFound, match="has no GGUF file"):
        fetch(REPO, "")


def test_a_name_that_no_repository_has_is_said(hub: Hub) -> None:
    with pytest.raises(ModelNotFound, match="not of the form owner/repo"):
        fetch("owner/..", "")


def test_an_answer_that_is_no_hubs_is_said(hub: Hub) -> None:
    hub.files[REPO] = {"tiny.gguf": SMALL}
    hub.is_mad = True
    with pytest.raises(Unavailable, match="owner/Tiny-GGUF cannot be fetched"):
        fetch(REPO, "")


FILES = ["a-F16.gguf", "a-IQ4_XS.gguf", "a-Q4_K_M.gguf", "a-Q8_0.gguf", "a-q5_k_m.gguf", "mmproj-a-F32.gguf", "a.txt"]


@pytest.mark.parametrize(
    ("files", "quant", "chosen"),
    [
        (FILES, "", ["a-Q4_K_M.gguf"]),
        (FILES, "f16", ["a-F16.gguf"]),
        (FILES, "Q5_K_M", ["a-q5_k_m.gguf"]),
        (FILES, "Q4_K", []),
        (FILES, "F32", []),
        (FILES, "Q4_XS", []),
        (["a-Q8_0.gguf", "a-F16.gguf"], "", ["a-Q8_0.gguf"]),
        (["b-Q3_K_S.gguf", "b-Q2_K.gguf"], "", ["b-Q2_K.gguf"]),
        (["only.gguf"], "", ["only.gguf"]),
        (
            ["Q4_K_M/a-00002-of-00002.gguf", "Q4_K_M/a-00001-of-00002.gguf"],
            "q4_k_m",
            ["Q4_K_M/a-00001-of-00002.gguf", "Q4_K_M/a-00002-of-00002.gguf"],
        ),
        (["readme.md"], "", []),
    ],
)
def test_the_file_is_chosen_as_llama_cpp_does(files: list[str], quant: str, chosen: list[str]) -> None:
    assert choose(files, quant) == chosen
