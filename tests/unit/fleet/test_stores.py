"""Other programs' stores are looked through, and what is broken in them is passed over."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from plait.fleet.stores import Found, find_models
from tests.fakes.gguf_file import write_gguf

HASH = "5" * 64
BLOB = f"sha256-{HASH}"


def names(home: Path, env: Mapping[str, str] | None = None) -> list[str]:
    return [model.name for model in look(home, env)]


def look(home: Path, env: Mapping[str, str] | None = None) -> list[Found]:
    return find_models({"HOME": str(home), **(env or {})}, home / "here")


def snapshot(hub: Path, file: str, commit: str = "c0ffee") -> Path:
    """A file of owner/repo in a hub's cache, as a link into some other folder, as the shared store makes them."""
    blob = write_gguf(hub / "elsewhere" / file.replace("/", "-"))
    link = hub / "models--owner--repo" / "snapshots" / commit / file
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(blob)
    return link


def manifest(store: Path, place: str, content: object) -> Path:
    path = store / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def layers(digest: str = f"sha256:{HASH}", kind: str = "model") -> dict[str, object]:
    other = {"mediaType": "application/vnd.ollama.image.license", "digest": "sha256:" + "0" * 64}
    return {"layers": [other, {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": digest}]}


def test_an_empty_machine_has_no_models(tmp_path: Path) -> None:
    assert names(tmp_path) == []


def test_this_directory_comes_first(tmp_path: Path) -> None:
    here = write_gguf(tmp_path / "here" / "tiny.gguf")
    write_gguf(tmp_path / ".cache" / "llama.cpp" / "other.gguf")
    assert look(tmp_path)[0] == Found("tiny", here, "this directory")
    assert names(tmp_path) == ["tiny", "other"]


def test_the_hugging_face_cache_is_followed_through_its_links(tmp_path: Path) -> None:
    hub = tmp_path / ".cache" / "huggingface" / "hub"
    link = snapshot(hub, "tiny-Q8_0.gguf")
    assert look(tmp_path) == [Found("tiny-Q8_0", link, "Hugging Face")]


@pytest.mark.parametrize(
    ("variable", "folder", "hub"),
    [
        ("HF_HUB_CACHE", "x", "x"),
        ("HUGGINGFACE_HUB_CACHE", "x", "x"),
        ("HF_HOME", "x", "x/hub"),
        ("XDG_CACHE_HOME", "x", "x/huggingface/hub"),
    ],
)
def test_the_hugging_face_cache_may_lie_elsewhere(tmp_path: Path, variable: str, folder: str, hub: str) -> None:
    snapshot(tmp_path / hub, "tiny.gguf")
    assert names(tmp_path, {variable: str(tmp_path / folder)}) == ["tiny"]


def test_a_file_in_two_snapshots_is_one_model(tmp_path: Path) -> None:
    hub = tmp_path / ".cache" / "huggingface" / "hub"
    first = snapshot(hub, "tiny.gguf", "c1")
    second = hub / "models--owner--repo" / "snapshots" / "c2" / "tiny.gguf"
    second.parent.mkdir()
    second.symlink_to(first)
    assert names(tmp_path) == ["tiny"]


def test_of_a_split_model_the_first_part_is_shown(tmp_path: Path) -> None:
    for i in (1, 2):
        snapshot(tmp_path / ".cache" / "huggingface" / "hub", f"Q4_K_M/tiny-{i:05}-of-00002.gguf")
    assert names(tmp_path) == ["tiny"]


def test_files_beside_models_are_not_models(tmp_path: Path) -> None:
    for name in ("mmproj-tiny-F16.gguf", "imatrix.gguf", "tiny.gguf.part"):
        write_gguf(tmp_path / "here" / name)
    assert names(tmp_path) == []


def test_broken_links_are_passed_over(tmp_path: Path) -> None:
    link = snapshot(tmp_path / ".cache" / "huggingface" / "hub", "tiny.gguf")
    link.resolve().unlink()
    loop = tmp_path / "here" / "loop.gguf"
    loop.parent.mkdir()
    loop.symlink_to(loop)
    assert names(tmp_path) == []


def test_llama_cpps_cache_may_hold_files_or_repositories(tmp_path: Path) -> None:
    cache = tmp_path / "llama"
    write_gguf(cache / "owner_repo_old.gguf")
    snapshot(cache, "new.gguf")
    assert sorted(names(tmp_path, {"LLAMA_CACHE": str(cache)})) == ["new", "owner_repo_old"]


def test_lm_studios_models_are_found(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / ".lmstudio" / "models" / "owner" / "repo" / "tiny.gguf")
    assert look(tmp_path) == [Found("tiny", path, "LM Studio")]


# ── Ollama ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with one blob, which is a model."""
    store = tmp_path / ".ollama" / "models"
    write_gguf(store / "blobs" / BLOB)
    return store


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("manifests/registry.ollama.ai/library/llama3.2/1b", "llama3.2:1b"),
        ("manifests/registry.ollama.ai/someone/tiny/latest", "someone/tiny:latest"),
        ("manifests/hf.co/owner/repo/Q8_0", "hf.co/owner/repo:Q8_0"),
        ("manifests-v2/ollama.com/library/llama3.2/1b", "llama3.2:1b"),
        ("manifests-v2/localhost%3A5000/me/tiny/v1", "localhost:5000/me/tiny:v1"),
    ],
)
def test_an_ollama_model_has_the_name_that_ollama_gives_it(tmp_path: Path, store: Path, place: str, name: str) -> None:
    manifest(store, place, layers())
    assert look(tmp_path) == [Found(name, store / "blobs" / BLOB, "Ollama")]


def test_the_store_may_lie_elsewhere(tmp_path: Path) -> None:
    write_gguf(tmp_path / "x" / "blobs" / BLOB)
    manifest(tmp_path / "x", "manifests/registry.ollama.ai/library/tiny/latest", layers())
    assert names(tmp_path, {"OLLAMA_MODELS": str(tmp_path / "x")}) == ["tiny:latest"]


def test_of_a_list_the_manifest_with_a_gguf_file_is_taken(tmp_path: Path, store: Path) -> None:
    child, absent = "6" * 64, "7" * 64
    manifest(store, f"blobs/sha256-{child}", layers())
    runners = [{"digest": f"sha256:{absent}", "runner": "mlx"}, {"digest": f"sha256:{child}", "runner": "llamacpp"}]
    manifest(store, "manifests-v2/ollama.com/library/tiny/latest", {"manifests": runners})
    assert names(tmp_path) == ["tiny:latest"]


def test_a_dangling_new_manifest_leaves_the_old_one(tmp_path: Path, store: Path) -> None:
    new = store / "manifests-v2" / "ollama.com" / "library" / "tiny" / "latest"
    new.parent.mkdir(parents=True)
    new.symlink_to(store / "blobs" / "none")
    manifest(store, "manifests/registry.ollama.ai/library/tiny/latest", layers())
    assert names(tmp_path) == ["tiny:latest"]


def test_a_new_manifest_wins_over_an_old_one(tmp_path: Path, store: Path) -> None:
    newer = write_gguf(store / "blobs" / f"sha256-{'8' * 64}")
    manifest(store, "manifests/registry.ollama.ai/library/tiny/latest", layers())
    manifest(store, "manifests-v2/ollama.com/library/tiny/latest", layers(f"sha256:{'8' * 64}"))
    assert look(tmp_path) == [Found("tiny:latest", newer, "Ollama")]


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {"layers": [1]},
        {"manifests": [{"digest": "sha256:" + "9" * 64}]},
        layers(kind="adapter"),
        layers(digest="sha256:" + "1" * 64),
        layers(digest="../../../etc/passwd"),
        {"manifests": [{"digest": "sha256:../../secret"}]},
    ],
)
def test_a_manifest_that_makes_no_sense_is_passed_over(
    tmp_path: Path, store: Path, content: object, caplog: pytest.LogCaptureFixture
) -> None:
    bad = manifest(store, "manifests/registry.ollama.ai/library/bad/latest", content)
    manifest(store, "manifests/registry.ollama.ai/library/good/latest", layers())
    assert names(tmp_path) == ["good:latest"]
    assert str(bad) in caplog.text


def test_a_manifest_of_endless_depth_is_passed_over(tmp_path: Path, store: Path) -> None:
    bad = manifest(store, "manifests/registry.ollama.ai/library/bad/latest", {})
    bad.write_text('{"manifests":[' * 70_000)
    assert names(tmp_path) == []


def test_what_an_upgrade_left_is_no_model(tmp_path: Path, store: Path) -> None:
    manifest(store, f"manifests/registry.ollama.ai/library/llamacpp/{HASH}", layers())
    manifest(store, "manifests-v2/ollama.com/library/tiny/.manifest-123", layers())
    assert names(tmp_path) == []
